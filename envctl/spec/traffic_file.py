"""The traffic file as far as a scenario needs it: every line is an operation, in the order of time."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envctl.errors import Problem
from envctl.spec.document import did_you_mean

FIELDS = ("at", "op", "to", "http", "grpc", "kafka", "key", "headers", "body")
_HTTP = re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([a-z0-9-]*)/\S*")
_MAX_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class TrafficSummary:
    """What a traffic file holds."""

    operations: tuple[str, ...]  # distinct names
    targets: tuple[tuple[str, int], ...]  # components that operations name, with the first line that does
    count: int
    length_s: float  # offset of the last operation


def scan_traffic(file: Path) -> tuple[TrafficSummary, list[Problem]]:
    """Reads every line; problems stand at the traffic file's own lines.  Raises OSError when it can't be read."""
    problems: list[Problem] = []
    names: dict[str, None] = {}
    targets: dict[str, int] = {}
    count, last = 0, 0.0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            count += 1
            operation = _operation(file, number, line, last, problems)
            if operation is None:
                continue
            names[operation["op"]] = None
            last = operation.get("at", last)
            named = operation.get("to") or (_HTTP.fullmatch(operation.get("http", "")) or ("", ""))[1]
            if named:
                targets.setdefault(str(named), number)
    if count == 0:
        problems.append(Problem(file, 0, "", "holds no operation", "write one JSON object a line"))
    if len(problems) > _MAX_PROBLEMS:
        more = len(problems) - _MAX_PROBLEMS
        problems[_MAX_PROBLEMS:] = [Problem(file, problems[_MAX_PROBLEMS].line, "", f"… and {more} more problems from here on")]
    return TrafficSummary(tuple(names), tuple(targets.items()), count, last), problems


def _operation(file: Path, number: int, line: bytes, last: float, problems: list[Problem]) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        problems.append(Problem(file, number, "", f"is not valid JSON: {error.msg} at column {error.colno}"))
        return None
    except UnicodeDecodeError:
        problems.append(Problem(file, number, "", "is not UTF-8 text"))
        return None
    if not isinstance(found, dict):
        problems.append(Problem(file, number, "", "found no JSON object", 'write {"at": 0.0, "op": "browse", "http": "GET /"}'))
        return None
    wrong = list(_wrong(found, last))
    problems += [Problem(file, number, *each) for each in wrong]
    return None if wrong else found


def _wrong(found: dict[str, Any], last: float) -> list[tuple[str, str, str]]:
    wrong = [(name, "unknown field", did_you_mean(name, FIELDS)) for name in found if name not in FIELDS]
    at = found.get("at", last)
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at < float("inf"):
        wrong.append(("at", f"found {at!r}, allowed: seconds since the start, 0 or more", ""))
    elif at < last:
        wrong.append(("at", f"{at} is before the operation above it ({last})", "sort the operations by time"))
    if not isinstance(found.get("op"), str) or not found["op"]:
        wrong.append(("op", f"found {found.get('op')!r}, allowed: the operation's name", ""))
    protocols = [name for name in ("http", "grpc", "kafka") if name in found]
    if len(protocols) != 1:
        wrong.append(("", f"found {' and '.join(protocols) or 'no request'}, allowed: one of http, grpc or kafka", ""))
    elif "http" in found and not (isinstance(found["http"], str) and _HTTP.fullmatch(found["http"])):
        wrong.append(("http", f"found {found['http']!r}, allowed: METHOD /path, such as GET /products?page=1", ""))
    elif not isinstance(found[protocols[0]], str):
        wrong.append((protocols[0], f"found {found[protocols[0]]!r}, allowed: text", ""))
    if "headers" in found and not isinstance(found["headers"], dict):
        wrong.append(("headers", "allowed: an object of names and values", ""))
    return wrong
