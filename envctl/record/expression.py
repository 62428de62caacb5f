"""The expressions by which a scenario's streams name fields, such as `response.items[0].sku`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


@cache
def _path(expression: str) -> tuple[str | int, ...]:
    return tuple(int(index) if index else name for index, name in _STEP.findall(expression))


def _walk(value: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        else:
            value = value.get(step) if isinstance(value, Mapping) else None
        if value is None:
            return None
    return value


def pick(expression: str, roots: Mapping[str, Any]) -> Any:
    """What an expression such as `response.items[0].sku` names; None where there is nothing.

    The fields of a request or an answer are those of its body; what the body lacks is looked up beside it (`response.status`).
    """
    first, *rest = _path(expression)
    root = roots.get(str(first))
    if rest and first in ("request", "response") and isinstance(root, Mapping):
        inner = _walk(root.get("body"), rest)
        return _walk(root, rest) if inner is None else inner
    return _walk(root, rest)
