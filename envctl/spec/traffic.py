"""Traffic files: one operation a line, in the order of time.

```json
{"at": 0.04, "op": "place_order", "http": "POST /orders", "key": "c17", "headers": {"Idempotency-Key": "{{uuid}}"},
 "body": {"sku": "{{browse.items[0].sku}}", "quantity": 1}}
```
Exactly one of `http` ("METHOD /path", or "METHOD component/path"), `grpc` ("package.Service/Method") and `kafka` (a topic)
says what is done; `to` names the component where it isn't the traffic's default; `at` is that of the line above where it is
left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from envctl.errors import Problem, SpecError
from envctl.spec import templates
from envctl.spec.document import did_you_mean
from envctl.spec.lines import Wrong, few, parsed

Protocol = Literal["http", "grpc", "kafka"]
PROTOCOLS: tuple[Protocol, ...] = ("http", "grpc", "kafka")
FIELDS = ("at", "op", "to", *PROTOCOLS, "key", "headers", "body")
TEMPLATED = (*PROTOCOLS, "headers", "body")
FORMS: Mapping[Protocol, tuple[re.Pattern[str], str]] = {
    "http": (re.compile(r"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([a-z0-9-]*)(/[!-~]*)"), "METHOD /path, such as GET /products?page=1"),
    "grpc": (re.compile(r"[A-Za-z_][\w.]*/[A-Za-z_]\w*"), "package.Service/Method"),
    "kafka": (re.compile(r"[\w.-]{1,249}"), "the name of a topic"),
}
_NAME = re.compile(r"[A-Za-z_][\w-]*")
EXAMPLE = '{"at": 0.0, "op": "browse", "http": "GET /"}'


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a traffic file."""

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


def load_traffic(file: Path) -> tuple[Line, ...]:
    """All lines of a traffic file.  Raises SpecError with every problem, OSError when it can't be read."""
    lines, problems = read_traffic(file)
    if problems:
        raise SpecError(problems)
    return lines


def read_traffic(file: Path) -> tuple[tuple[Line, ...], list[Problem]]:
    """The lines that are right, and what is wrong with the others.  Raises OSError when the file can't be read."""
    lines: list[Line] = []
    problems: list[Problem] = []
    seen: set[tuple[Any, Any]] = set()  # (key, operation) that have come by; broken lines too: naming them is no mistake
    last_s, count = 0.0, 0
    with file.open("rb") as texts:
        for number, text in enumerate(texts, 1):
            if not text.strip():
                continue
            count += 1
            obj, wrong = parsed(text, EXAMPLE)
            if not wrong:
                wrong = [*wrong_in(obj, last_s), *_unknown(obj, seen)]
                seen |= {(obj.get("key"), obj.get("op"))} if isinstance(obj.get("op"), str) and isinstance(obj.get("key", ""), str) else set()
            if wrong:
                problems += [Problem(file, number, *each) for each in wrong]
            else:
                lines.append(parse(obj, number, last_s))
                last_s = lines[-1].at_s
    if count == 0:
        problems.append(Problem(file, 0, "", "holds no operation", "write one JSON object a line"))
    return tuple(lines), few(problems)


def wrong_in(obj: Mapping[str, Any], last_s: float = 0.0) -> list[Wrong]:
    """Everything that is wrong with one line that follows one at `last_s`; empty when it is right."""
    wrong = [(name, "unknown field", did_you_mean(name, FIELDS)) for name in obj if name not in FIELDS]
    return [*wrong, *_wrong_time(obj, last_s), *_wrong_texts(obj), *_wrong_request(obj), *_wrong_templates(obj)]


def _wrong_time(obj: Mapping[str, Any], last_s: float) -> Iterator[Wrong]:
    at = obj.get("at", last_s)
    if not isinstance(at, int | float) or isinstance(at, bool) or not 0 <= at < float("inf"):
        yield "at", f"found {at!r}, allowed: seconds since the start, 0 or more", ""
    elif at < last_s:
        yield "at", f"{at} is before the operation above it ({last_s:g})", "sort the operations by time"


def _wrong_texts(obj: Mapping[str, Any]) -> Iterator[Wrong]:
    op = obj.get("op")
    if not isinstance(op, str) or not _NAME.fullmatch(op):
        yield "op", f"found {op!r}, allowed: the operation's name (letters, digits, _ and -)", ""
    elif op in templates.OWN:
        yield "op", f"{op!r} is a word of templates", "call the operation something else"
    for name in ("key", "to"):
        if name in obj and not isinstance(obj[name], str):
            yield name, f"found {obj[name]!r}, allowed: text", "write it in quotes"
    headers = obj.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        yield "headers", "allowed: an object of names and texts", ""


def _wrong_request(obj: Mapping[str, Any]) -> Iterator[Wrong]:
    given = [name for name in PROTOCOLS if name in obj]
    if len(given) != 1:
        yield "", f"found {' and '.join(given) or 'no request'}, allowed: one of http, grpc or kafka", ""
        return
    name, (form, allowed) = given[0], FORMS[given[0]]
    match = form.fullmatch(obj[name]) if isinstance(obj[name], str) else None
    if match is None:
        yield name, f"found {obj[name]!r}, allowed: {allowed}", ""
    elif name == "http" and match[2] and "to" in obj:
        yield "to", "the component stands in `http` and in `to`", "leave one out"
    if name == "grpc" and not isinstance(obj.get("body", {}), dict):
        yield "body", "allowed: an object with the fields of the request's message", ""


def _wrong_templates(obj: Mapping[str, Any]) -> Iterator[Wrong]:
    for place, expression in _expressions(obj):
        try:
            name = templates.operation_of(expression)
        except ValueError as error:
            yield place, str(error), ""
            continue
        if name is not None and "key" not in obj:
            yield place, f"{{{{{expression}}}}} refers to an earlier operation of the same key, but the line has no `key`", ""


def _unknown(obj: Mapping[str, Any], seen: set[tuple[Any, Any]]) -> Iterator[Wrong]:
    """References to operations that no earlier line of the same key makes."""
    for place, expression in _expressions(obj):
        try:
            name = templates.operation_of(expression)
        except ValueError:
            continue
        key = obj.get("key")
        if name is not None and isinstance(key, str) and (key, name) not in seen:
            hint = did_you_mean(name, {op for other, op in seen if other == key})
            yield place, f"{{{{{expression}}}}}: no earlier line of key {key!r} is called {name!r}", hint


def _expressions(obj: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(field, expression) of every template in a line."""
    return [(name, found) for name in TEMPLATED if name in obj for found in templates.expressions(obj[name])]


def parse(obj: Mapping[str, Any], number: int, last_s: float = 0.0) -> Line:
    """The line of an object in which `wrong_in` finds nothing."""
    protocol = next(name for name in PROTOCOLS if name in obj)
    method, path, to = str(obj[protocol]), "", obj.get("to", "")
    if protocol == "http":
        match = FORMS["http"][0].fullmatch(method)
        assert match is not None
        method, component, path = match.groups()
        to = to or component
    return Line(
        number=number, at_s=float(obj.get("at", last_s)), op=obj["op"], protocol=protocol, method=method, path=path, to=to,
        key=obj.get("key"), headers=obj.get("headers", {}), body=obj.get("body"),
    )
