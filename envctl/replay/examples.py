"""The examples that a stub answers from: `envctl: examples/v1`.

```yaml
envctl: examples/v1
http:
  - request: {method: POST, path: "/prices/{sku}", body: {quantity: 1}}     # body: a subset of what must be there
    response: {status: 200, headers: {X-Source: example}, body: {sku: "{sku}", price: 12.5}}
grpc:
  proto: fraud.proto                                                        # beside this file
  examples:
    - {method: shop.fraud.v1.Fraud/Check, request: {}, response: {verdict: ACCEPT}}
```
The first example that fits answers.  `{sku}` in the answer is the part of the path that stood there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import yaml

from envctl.errors import Problem, SpecError

FORMAT = "examples/v1"


@dataclass(frozen=True, slots=True)
class HttpExample:
    """One answer to HTTP requests."""

    method: str
    path: str  # may hold {name} for one segment, and ?name=value pairs that must be there
    body: Any = None  # None: any body
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: Any = None


@dataclass(frozen=True, slots=True)
class GrpcExample:
    """One answer to calls of a unary method."""

    method: str  # "package.Service/Method"
    request: Mapping[str, Any]
    response: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of one file."""

    http: tuple[HttpExample, ...] = ()
    proto: Path | None = None
    grpc: tuple[GrpcExample, ...] = ()


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


def load(file: Path) -> Examples:
    """Reads a file of examples.  Raises SpecError with every problem."""
    try:
        obj = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise SpecError([Problem(file, line, "", f"no YAML: {error.problem}")]) from error
    wrong: list[tuple[str, str]] = []
    if not isinstance(obj, dict) or obj.get("envctl") != FORMAT:
        raise SpecError([Problem(file, 1, "envctl", f"the file must begin with `envctl: {FORMAT}`")])
    _only(obj, ("envctl", "http", "grpc"), "", wrong)
    http = [_http(one, f"http[{at}]", wrong) for at, one in enumerate(obj.get("http") or ())]
    rpc = obj.get("grpc") or {}
    _only(rpc, ("proto", "examples"), "grpc", wrong)
    proto = file.parent / rpc["proto"] if isinstance(rpc, dict) and "proto" in rpc else None
    if rpc and (proto is None or not proto.is_file()):
        wrong.append(("grpc.proto", "must name a .proto file beside this one"))
    calls = [_grpc(one, f"grpc.examples[{at}]", wrong) for at, one in enumerate(rpc.get("examples") or ())] if proto else []
    if wrong:
        raise SpecError([Problem(file, 0, where, message) for where, message in wrong])
    return Examples(tuple(one for one in http if one), proto, tuple(one for one in calls if one))


def _only(obj: Any, allowed: tuple[str, ...], where: str, wrong: list[tuple[str, str]]) -> bool:
    if not isinstance(obj, dict):
        wrong.append((where, "must be a mapping"))
        return False
    wrong += [(f"{where}.{name}".strip("."), f"is no field; allowed: {', '.join(allowed)}") for name in obj if name not in allowed]
    return True


def _http(obj: Any, where: str, wrong: list[tuple[str, str]]) -> HttpExample | None:
    if not _only(obj, ("request", "response"), where, wrong):
        return None
    request, response = obj.get("request"), obj.get("response", {})
    whole = _only(request, ("method", "path", "body"), f"{where}.request", wrong)
    if not (whole and _only(response, ("status", "headers", "body"), f"{where}.response", wrong)):
        return None
    method, path, status = request.get("method", "GET"), request.get("path"), response.get("status", 200)
    if not isinstance(path, str) or not path.startswith("/"):
        wrong.append((f"{where}.request.path", "must be a path, such as /prices/{sku}"))
        return None
    if not isinstance(status, int) or not 200 <= status <= 599:
        wrong.append((f"{where}.response.status", "must be an HTTP status"))
    headers = {str(name): str(value) for name, value in (response.get("headers") or {}).items()}
    return HttpExample(str(method).upper(), path, request.get("body"), status, headers, response.get("body"))


def _grpc(obj: Any, where: str, wrong: list[tuple[str, str]]) -> GrpcExample | None:
    if not _only(obj, ("method", "request", "response"), where, wrong):
        return None
    method = obj.get("method")
    if not isinstance(method, str) or "/" not in method:
        wrong.append((f"{where}.method", "must be package.Service/Method"))
        return None
    return GrpcExample(method, obj.get("request") or {}, obj.get("response") or {})
