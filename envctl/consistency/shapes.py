"""The shapes of values that operations of a model may have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from envctl.model.history import Fits, Operation

Shape = tuple[Callable[[Any], bool], str]
ANY: Shape = (lambda _: True, "any value")
WHOLE: Shape = (lambda value: type(value) is int, "a whole number")
LIST: Shape = (lambda value: type(value) is list, "a list of elements")
PAIR: Shape = (lambda value: type(value) is list and len(value) == 2, "[old, new]")


def fits(object: str, shapes: Mapping[str, tuple[Shape, Shape]]) -> Fits:
    """Whether an operation is one of `shapes` (name → shapes of what is asked and, on `ok`, told)."""
    known = ", ".join(sorted(shapes))

    def wrong(operation: Operation) -> tuple[int, str, str] | None:
        if operation.f not in shapes:
            return operation.began, "f", f"found {operation.f!r}; allowed for a {object}: {known}"
        (asked, asked_words), (told, told_words) = shapes[operation.f]
        if not asked(operation.asked):
            return operation.began, "value", f"found {operation.asked!r}, allowed for {operation.f!r}: {asked_words}"
        if operation.ended is not None and operation.outcome == "ok" and not told(operation.told):
            return operation.ended, "value", f"found {operation.told!r}, allowed as the answer of {operation.f!r}: {told_words}"
        return None

    return wrong
