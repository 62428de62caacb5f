"""Linearizability (Herlihy and Wing 1990): every operation takes effect at one instant between its invocation and its completion."""

from __future__ import annotations

from collections.abc import Sequence

from envctl.consistency.base import Property
from envctl.model.history import History, Operation
from envctl.model.verdict import Finding


def judge(history: History, model: str, budget: int) -> Sequence[Finding]:
    """The finding `linearizable`."""
    del budget
    return (Finding("linearizable", "linearizable", "inconclusive", f"{len(history.operations):,} operations on a {model}"),)


def _fits(operation: Operation) -> tuple[int, str, str] | None:
    return None if operation.f in {"read", "write", "cas"} else (operation.began, "f", f"a register has no {operation.f!r}")


PROPERTY = Property({"register": _fits}, judge)
