"""Files of JSON lines: one object a line, what is wrong with it in words."""

from __future__ import annotations

import json
from typing import Any

from envctl.errors import Problem

Wrong = tuple[str, str, str]
"""Field, message and hint of a problem."""

_MAX_PROBLEMS = 20
_DECODER = json.JSONDecoder()
_ENDS = frozenset(("\n", "", "\r\n"))


def parsed(text: bytes, example: str, decoder: json.JSONDecoder = _DECODER) -> tuple[Any, list[Wrong]]:
    """The object of a line that is not blank, and what is wrong with it; `example` is a right line."""
    try:
        line = text.decode()
        try:
            obj, end = decoder.raw_decode(line)  # twice as fast as `decode`, and right for every line without white space around it
        except ValueError:
            end = -1
        if end < 0 or line[end:] not in _ENDS:
            obj = decoder.decode(line)
    except json.JSONDecodeError as error:
        return None, [("", f"is not valid JSON: {error.msg} at column {error.colno}", "")]
    except UnicodeDecodeError:
        return None, [("", "is not UTF-8 text", "")]
    except (ValueError, RecursionError) as error:
        return None, [("", f"is not valid JSON: {error}", "")]
    if not isinstance(obj, dict):
        return None, [("", "found no JSON object", f"write {example}")]
    return obj, []


def few(problems: list[Problem]) -> list[Problem]:
    """The first problems, and how many more there are."""
    if len(problems) <= _MAX_PROBLEMS:
        return problems
    more, first = len(problems) - _MAX_PROBLEMS, problems[_MAX_PROBLEMS]
    return [*problems[:_MAX_PROBLEMS], Problem(first.file, first.line, "", f"… and {more} more problems from here on")]
