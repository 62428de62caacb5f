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

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envctl.spec.contracts import unary_methods
from envctl.spec.document import Document, did_you_mean
from envctl.spec.structure import open_document


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


def load_examples(file: Path) -> Examples:
    """Reads a file of examples.  Raises SpecError with every problem."""
    document = open_document(file, "examples")
    if "http" not in document.data and "grpc" not in document.data and not document.problems:
        document.problem((), "found no examples", "write `http:` or `grpc:`")
    rpc = document.data.get("grpc", {})
    proto = file.parent / rpc["proto"] if rpc else None
    if proto is not None:
        _check_calls(document, proto)
    document.raise_problems()
    return Examples(
        tuple(map(_http, document.data.get("http", ()))), proto,
        tuple(GrpcExample(one["method"], one.get("request", {}), one.get("response", {})) for one in rpc.get("examples", ())),
    )


def _check_calls(document: Document, proto: Path) -> None:
    if not proto.is_file():
        near = [each.name for each in proto.parent.glob("*.proto")]
        document.problem(("grpc", "proto"), f"no file {proto.name!r} in {proto.parent}", did_you_mean(proto.name, near))
        return
    methods = unary_methods([proto])
    for index, one in enumerate(document.data["grpc"]["examples"]):
        if one["method"] not in methods:
            message = f"{proto.name} declares no unary method {one['method']!r}"
            document.problem(("grpc", "examples", index, "method"), message, did_you_mean(one["method"], methods))


def _http(one: Mapping[str, Any]) -> HttpExample:
    request, response = one["request"], one.get("response", {})
    headers = {name: str(value) for name, value in response.get("headers", {}).items()}
    return HttpExample(request.get("method", "GET"), request["path"], request.get("body"), response.get("status", 200), headers,
                       response.get("body"))
