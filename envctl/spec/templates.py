"""`{{…}}` in a traffic line: values that are known only when the operation starts.

`{{uuid}}` is the operation's own identifier (the same wherever it stands in the line), `{{key}}` its key, and
`{{op.path.to[0].field}}` a field of the JSON answer to the newest earlier operation `op` of the same key.  A string that is
one template and nothing else takes the value's type; inside a longer string the value is written as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_HOLE = re.compile(r"\{\{\s*((?:(?!\}\}).)*?)\s*\}\}")
_REFERENCE = re.compile(r"[A-Za-z_][\w-]*(?:\.[\w-]+|\[\d+\])*")
_STEP = re.compile(r"\.([\w-]+)|\[(\d+)\]")
OWN = ("uuid", "key")

Look = Callable[[str], Any]
"""Gives the value of an expression such as `uuid` or `browse.items[0].sku`.  Raises UnresolvedError."""


class UnresolvedError(LookupError):
    """A template names a value that isn't there; the message says which and why."""


def expressions(value: Any) -> list[str]:
    """Every expression inside a JSON value, in order."""
    if isinstance(value, str):
        return [match[1] for match in _HOLE.finditer(value)] if "{{" in value else []
    if isinstance(value, dict):
        return [found for pair in value.items() for each in pair for found in expressions(each)]
    if isinstance(value, list):
        return [found for each in value for found in expressions(each)]
    return []


def operation_of(expression: str) -> str | None:
    """The operation an expression refers to; None for the operation's own values.  Raises ValueError for bad syntax."""
    if not _REFERENCE.fullmatch(expression):
        raise ValueError(f"{{{{{expression}}}}} is no template; write {{{{uuid}}}}, {{{{key}}}} or {{{{operation.field[0].field}}}}")
    name = re.split(r"[.\[]", expression, maxsplit=1)[0]
    if name in OWN:
        if name != expression:
            raise ValueError(f"{{{{{name}}}}} has no fields")
        return None
    return name


def fill(value: Any, look: Look, quote: Callable[[str], str] = str) -> Any:
    """The JSON value with its templates filled in; `quote` is applied to what is written into longer strings.

    Raises UnresolvedError.
    """
    if isinstance(value, str):
        if "{{" not in value:
            return value
        if (whole := _HOLE.fullmatch(value)) and quote is str:
            return look(whole[1])
        return _HOLE.sub(lambda match: quote(_text(look(match[1]))), value)
    if isinstance(value, dict):
        return {str(fill(key, look)): fill(inner, look) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, look) for inner in value]
    return value


def pick(answer: Any, expression: str) -> Any:
    """What an expression such as `browse.items[0].sku` selects in the answer to `browse`.  Raises UnresolvedError."""
    value = answer
    for name, index in _STEP.findall(expression):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError) as error:
            raise UnresolvedError(f"the answer has no {expression}") from error
    return value


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
