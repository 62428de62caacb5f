"""Values of JSON that can be compared and counted."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Any


def frozen(value: Any) -> Hashable:
    """A value as something hashable; equal ones are equal in JSON, so that neither `true` nor `[1]` is the same as anything but itself."""
    if isinstance(value, bool):
        return ("bool", value)  # True == 1 in Python
    if isinstance(value, list):
        return ("list", *map(frozen, value))
    if isinstance(value, dict):
        return ("object", frozenset((name, frozen(each)) for name, each in value.items()))
    plain: Hashable = value
    return plain


def shown(value: Hashable) -> str:
    """The JSON of a frozen value."""
    return json.dumps(_thawed(value), ensure_ascii=False)


def _thawed(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    kind, *rest = value
    if kind == "list":
        return [_thawed(each) for each in rest]
    return {name: _thawed(each) for name, each in sorted(rest[0])} if kind == "object" else rest[0]
