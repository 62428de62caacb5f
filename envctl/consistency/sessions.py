"""What processes did with an object, step by step, and the guarantees they may rely on."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from envctl.consistency.transactions import READ, frozen_list
from envctl.consistency.values import frozen
from envctl.model.history import Operation

READ_YOUR_WRITES, MONOTONIC_READS, MONOTONIC_WRITES, WRITES_FOLLOW_READS = GUARANTEES = (
    "read-your-writes", "monotonic-reads", "monotonic-writes", "writes-follow-reads")
"""Between a process's write and its later read, two reads, two writes, a read and a later write of one object."""


class Act(NamedTuple):
    """A read or a write of one object."""

    process: int | str
    operation: Operation
    reads: bool
    value: Any  # frozen: what was written or read, for lists the element or all elements
    certain: bool  # False where nobody knows whether a write took effect


class Breach(NamedTuple):
    """What breaks a guarantee, or shows that of several one does not hold."""

    guarantees: Sequence[str]
    text: str
    operations: Sequence[Operation]


@dataclass(slots=True)
class Answer:
    """What the acts on one object say."""

    breaches: list[Breach] = field(default_factory=list)
    unclear: str = ""  # why what they say is not all


def steps(operation: Operation, *, lists: bool) -> Iterator[tuple[Hashable, Act]]:
    """The acts of an operation, with their objects; none where it never took effect."""
    certain = operation.outcome == "ok"
    for f, key, value in _micro(operation):
        if f in (READ, "read"):
            if certain:
                read = frozen_list(value or ()) if lists else frozen(value)
                yield frozen(key), Act(operation.process, operation, reads=True, value=read, certain=True)
        else:
            yield frozen(key), Act(operation.process, operation, reads=False, value=frozen(value), certain=certain)


def _micro(operation: Operation) -> Iterator[Sequence[Any]]:
    if operation.outcome == "fail":
        return
    f, key, asked = operation.f, operation.key, operation.asked
    if f == "txn":
        yield from operation.told if operation.outcome == "ok" else asked
    elif f == "cas":
        yield from (("read", key, asked[0]), ("write", key, asked[1]))
    else:
        yield (f, key, operation.told if f == "read" else asked)
