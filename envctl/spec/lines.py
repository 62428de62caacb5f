"""Files of JSON lines: one object a line, what is wrong with it in words."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from envctl.errors import Problem

Wrong = tuple[str, str, str]
"""Field, message and hint of a problem."""

_MAX_PROBLEMS = 20

def parsed(text: bytes, example: str) -> tuple[Any, list[Wrong]]:
    """The object of a line that is not blank, and what is wrong with it; `example` is a right line."""
    try:
        obj = json.loads(text.decode())
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


@contextmanager
def collector_paused() -> Iterator[None]:
    """Nothing made while reading is garbage in a cycle; searching a million new objects for it takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
