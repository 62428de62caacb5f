"""Which example covers a request, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from envctl.spec.examples import HttpExample


def covers(wanted: Any, given: Any) -> bool:
    """Whether `given` holds everything that `wanted` names: objects by their named fields, lists element by element."""
    if isinstance(wanted, dict):
        return isinstance(given, dict) and all(name in given and covers(value, given[name]) for name, value in wanted.items())
    if isinstance(wanted, list):
        same = isinstance(given, list) and len(wanted) == len(given)
        return same and all(covers(one, other) for one, other in zip(wanted, given, strict=True))
    return bool(wanted == given) and isinstance(wanted, bool) == isinstance(given, bool)


def path_values(pattern: str, target: str) -> dict[str, str] | None:
    """The values of the pattern's `{names}` when a request's target (path and query) fits it, else None."""
    pattern_path, _, pattern_query = pattern.partition("?")
    path, _, query = target.partition("?")
    parts = re.split(r"\{(\w+)\}", pattern_path)
    regex = "".join(re.escape(part) if at % 2 == 0 else f"(?P<{part}>[^/]+)" for at, part in enumerate(parts))
    match = re.fullmatch(regex, path)
    if match is None or not set(parse_qsl(pattern_query)) <= set(parse_qsl(query)):
        return None
    return {name: unquote(value) for name, value in match.groupdict().items()}


def answer(example: HttpExample, values: Mapping[str, str]) -> Any:
    """The example's answer with `{names}` of the path written in."""

    def written(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), value)
        if isinstance(value, dict):
            return {name: written(inner) for name, inner in value.items()}
        return [written(inner) for inner in value] if isinstance(value, list) else value

    return written(example.answer)
