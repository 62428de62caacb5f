"""A history: what clients asked of a system and what they were told, in the order in which it happened.

`docs/history-format.md` is the format of a file of it.  Consistency is a property of histories, whatever tool recorded them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["ok", "fail", "info"]


@dataclass(frozen=True, slots=True)
class Operation:
    """An invocation with its completion.

    `outcome`: `ok` (it took effect between `began` and `ended`), `fail` (it never took effect) or `info` (unknown: it may have taken effect at
    any time after `began`, or never will).  An invocation without a completion is `info`.
    """

    index: int  # of the invocation's line, as the file has it
    process: int | str  # the logical client; one operation at a time
    f: str  # what was asked for: `read`, `write`, `cas`, `txn`, …
    key: Any  # the object it was asked of; None where there is but one
    asked: Any  # value of the invocation
    told: Any  # value of the completion; of no meaning unless `ok`
    outcome: Outcome
    began: int  # place of the invocation in the history (its line, in a file): only the order of places has a meaning
    ended: int | None  # place of the completion; None where the outcome is unknown
    at_ns: int | None = None  # time of the invocation, only ever shown
    where: str = ""  # what a person finds it by; without it the lines at its places


@dataclass(frozen=True, slots=True)
class History:
    """All operations, by `began`."""

    operations: Sequence[Operation]


Fits = Callable[[Operation], tuple[int, str, str] | None]
"""What is wrong with an operation for a model: its place (`began` or `ended`), the field (`f`, `value`) and why; None when it is right."""
