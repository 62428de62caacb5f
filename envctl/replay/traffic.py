"""Traffic files: one operation a line, and when each is due.

```json
{"at": 0.04, "op": "place_order", "http": "POST /orders", "key": "c17", "headers": {"Idempotency-Key": "{{uuid}}"},
 "body": {"sku": "{{browse.items[0].sku}}", "quantity": 1}}
```
Exactly one of `http` ("METHOD /path", or "METHOD component/path"), `grpc` ("package.Service/Method") and `kafka` (a topic)
says what is done; `to` names the component where it isn't the traffic's default.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from envctl.errors import Problem, SpecError
from envctl.replay import templates

Protocol = Literal["http", "grpc", "kafka"]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc", "kafka")
FIELDS = ("at", "op", *PROTOCOLS, "key", "headers", "body", "to")
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_NAME = re.compile(r"[A-Za-z_][\w-]*")
_HTTP = re.compile(r"([A-Z]+) ([a-z0-9-]*)(/[!-~]*)")
_GRPC = re.compile(r"[A-Za-z_][\w.]*/[A-Za-z_]\w*")
_TOPIC = re.compile(r"[\w.-]{1,249}")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a traffic file, checked."""

    number: int  # 1-based
    at_s: float
    op: str
    protocol: Protocol
    method: str  # HTTP method, "package.Service/Method", or topic
    path: str = ""  # HTTP only
    to: str = ""  # component; empty: the traffic's default
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None


@dataclass(frozen=True, slots=True)
class Due:
    """One operation: a line, in one round through the file, with its intended start."""

    number: int  # 1, 2, … over all rounds
    due_s: float  # since the traffic's begin
    line: Line
    round: int  # 0 is the first
    key: str | None  # the line's key; from the second round on with the round as a suffix, such as "c17~2"


def check_line(obj: Any) -> list[str]:
    """What is wrong with one parsed line, a sentence each; empty when it is right."""
    if not isinstance(obj, dict):
        return ["a line must be a JSON object"]
    wrong = [f"{name!r} is not a field; allowed: {', '.join(FIELDS)}" for name in obj if name not in FIELDS]
    at = obj.get("at", 0)
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < float("inf"):
        wrong.append("`at` must be seconds since the start, 0 or more")
    op = obj.get("op")
    if not isinstance(op, str) or not _NAME.fullmatch(op):
        wrong.append("`op` must name the operation (letters, digits, _ and -)")
    elif op in templates.OWN:
        wrong.append(f"`op` can't be {op!r}, which templates use")
    wrong += [f"`{name}` must be a text" for name in ("key", "to") if name in obj and not isinstance(obj[name], str)]
    headers = obj.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        wrong.append("`headers` must be an object of texts")
    return wrong + _check_protocol(obj) + _check_templates(obj)


def _check_protocol(obj: Mapping[str, Any]) -> list[str]:
    given = [name for name in PROTOCOLS if name in obj]
    if len(given) != 1:
        return ["exactly one of `http`, `grpc` and `kafka` must be there"]
    text = obj[given[0]]
    if given == ["http"]:
        match = _HTTP.fullmatch(text) if isinstance(text, str) else None
        if match is None or match[1] not in METHODS:
            return [f"`http` must be \"METHOD /path\" or \"METHOD component/path\", method one of {', '.join(METHODS)}"]
        if match[2] and "to" in obj:
            return ["the component stands in `http` and in `to`; leave one out"]
    elif given == ["grpc"] and not (isinstance(text, str) and _GRPC.fullmatch(text)):
        return ['`grpc` must be "package.Service/Method"']
    elif given == ["kafka"] and not (isinstance(text, str) and _TOPIC.fullmatch(text)):
        return ["`kafka` must be a topic's name"]
    if given == ["grpc"] and not isinstance(obj.get("body", {}), dict):
        return ["`body` of a gRPC request must be an object"]
    return []


def _check_templates(obj: Mapping[str, Any]) -> list[str]:
    wrong = []
    for expression in _expressions(obj):
        try:
            name = templates.operation_of(expression)
        except ValueError as error:
            wrong.append(str(error))
            continue
        if name is not None and "key" not in obj:
            wrong.append(f"{{{{{expression}}}}} refers to an earlier operation of the same key, but the line has no `key`")
    return wrong


def _expressions(obj: Mapping[str, Any]) -> list[str]:
    return list(templates.expressions([obj.get(name) for name in (*PROTOCOLS, "headers", "body")]))


def parse(obj: Mapping[str, Any], number: int) -> Line:
    """The line of an object that `check_line` found right."""
    protocol = next(name for name in PROTOCOLS if name in obj)
    method, path, to = str(obj[protocol]), "", obj.get("to", "")
    if protocol == "http":
        match = _HTTP.fullmatch(method)
        assert match is not None
        method, component, path = match.groups()
        to = to or component
    return Line(
        number=number, at_s=float(obj.get("at", 0)), op=obj["op"], protocol=protocol, method=method, path=path, to=to,
        key=obj.get("key"), headers=obj.get("headers", {}), body=obj.get("body"),
    )


def load(path: Path) -> tuple[Line, ...]:
    """All lines of a traffic file, by their `at`.  Raises SpecError with every problem."""
    lines: list[Line] = []
    problems: list[Problem] = []
    seen: set[tuple[str | None, str]] = set()  # (key, operation) that have come by
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            obj, wrong = _read(text)
            wrong = wrong or _unknown(obj, seen)
            problems += [Problem(path, number, "", message) for message in wrong]
            if not wrong:
                lines.append(parse(obj, number))
                seen.add((obj.get("key"), obj["op"]))
    if not lines and not problems:
        problems.append(Problem(path, 0, "", "no operation in the file"))
    if problems:
        raise SpecError(problems)
    return tuple(sorted(lines, key=lambda line: line.at_s))


def _read(text: str) -> tuple[Any, list[str]]:
    try:
        obj = json.loads(text)
    except ValueError as error:
        return None, [f"no JSON: {error}"]
    return obj, check_line(obj)


def _unknown(obj: Mapping[str, Any], seen: set[tuple[str | None, str]]) -> list[str]:
    """References to operations that no earlier line of the same key makes."""
    named = {expression: templates.operation_of(expression) for expression in _expressions(obj)}
    return [
        f"{{{{{expression}}}}}: no earlier line of key {obj.get('key')!r} is called {name!r}"
        for expression, name in named.items() if name is not None and (obj.get("key"), name) not in seen
    ]


def schedule(lines: Sequence[Line], rate_per_s: float | None, duration_s: float | None) -> Iterator[Due]:
    """When each operation is due.

    With a rate, the i-th (from 0) is due at i/rate; without one, at the line's own `at`.  With a duration the file is
    repeated until it is over (its own pace goes on: a round takes the last `at` plus the mean gap); without one it is gone
    through once.
    """
    count = len(lines)
    last = lines[-1].at_s
    period = last + (last / (count - 1) if count > 1 else 1.0)
    number = 0
    while True:
        turn, index = divmod(number, count)
        line = lines[index]
        due = number / rate_per_s if rate_per_s else turn * (period or 1.0) + line.at_s
        if due >= duration_s if duration_s is not None else turn:
            return
        number += 1
        yield Due(number, due, line, turn, keyed(line.key, turn))


def keyed(key: str | None, turn: int) -> str | None:
    """A key in the given round (0 is the first)."""
    return key if key is None or turn == 0 else f"{key}~{turn + 1}"
