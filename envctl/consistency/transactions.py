"""Transactions of a history: each a list of micro-operations, `["r", key, value]` and one kind of write."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from envctl.consistency.values import frozen
from envctl.consistency.values import shown as value_shown
from envctl.model.history import History, Operation, Outcome

READ = "r"
_WIDTH = 60  # of a value in messages
_SIMPLE = frozenset((int, str))  # what json gives for most values, and what is its own key

Step = tuple[str, Hashable, Any]
"""A micro-operation: what it does, the key, and the value written or (where it is known) read; keys and written values are `frozen`."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one client asked for in one transaction; its steps hold what reads returned only where it is `ok`."""

    index: int  # its operation's
    outcome: Outcome
    steps: Sequence[Step]
    began: int
    ended: int | None
    at_ns: int | None

    @property
    def name(self) -> str:
        """What it is called in findings: `T12`."""
        return f"T{self.index}"


def frozen_list(values: Sequence[Any]) -> list[Hashable]:
    """The elements of a list, `frozen`."""
    if _SIMPLE.issuperset(map(type, values)):
        return list(values)
    return [frozen(value) for value in values]


def shown(value: Any) -> str:
    """A frozen value, or a list of them, for a person; of what is long both ends."""
    if isinstance(value, list):
        texts = [shown(each) for each in (value if len(value) <= 8 else value[:2] + value[-3:])]
        return f"[{', '.join(texts if len(value) <= 8 else [*texts[:2], f'… {len(value) - 5} more …', *texts[2:]])}]"
    text = value_shown(value)
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH // 2]} … {text[-_WIDTH // 2:]}"


def key_shown(key: Hashable) -> str:
    """A key or a process for a person: plain text without quotes."""
    if key is None:
        return "the only object"
    return key if isinstance(key, str) and key.isprintable() and len(key) <= _WIDTH else shown(key)


def misfit(op: Operation, write: str, *, lists: bool) -> tuple[int, str, str] | None:
    """The place and field of what is wrong with an operation that should be a transaction of reads and `write`s, and why; None when it is right.

    Reads return lists, or single values.
    """
    if op.f != "txn":
        return op.began, "f", f"found {op.f!r}, allowed: txn"
    asked, told = op.asked, op.told
    if not isinstance(asked, list) or not all(isinstance(m, list) and len(m) == 3 and m[0] in (READ, write) for m in asked):
        return op.began, "value", f'found {_short(asked)}, allowed: a list of ["{READ}", key, null] and ["{write}", key, value]'
    if op.outcome != "ok" or op.ended is None:
        return None
    if not isinstance(told, list) or len(told) != len(asked) or not all(map(_answers, asked, told)):
        return op.ended, "value", f"found {_short(told)}, where the invocation asked for {_short(asked)}"
    if lists and not all(m[0] != READ or m[2] is None or isinstance(m[2], list) for m in told):
        return op.ended, "value", f"found {_short(told)}, allowed: reads that return a list, or null where it is empty"
    return None


def _answers(asked: Sequence[Any], told: Any) -> bool:
    return (isinstance(told, list) and len(told) == 3 and told[0] == asked[0] and told[1] == asked[1]
            and (told[0] == READ or told[2] == asked[2]))


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:79]}…"


def transactions(history: History, *, lists: bool) -> list[Transaction]:
    """The operations of a history, in its order; what they read is lists, or single values."""
    return [_transaction(op, lists=lists) for op in history.operations]


def _transaction(op: Operation, *, lists: bool) -> Transaction:
    told = op.outcome == "ok"
    steps: list[Step] = []
    for f, key, value in op.told if told else op.asked:
        if f != READ:
            steps.append((f, frozen(key), frozen(value)))
        elif told:
            read = frozen_list(value or ()) if lists else None if value is None else frozen(value)
            steps.append((f, frozen(key), read))
    return Transaction(op.index, op.outcome, steps, op.began, op.ended, op.at_ns)
