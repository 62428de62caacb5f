"""The examples that a stub answers from, as far as they can be judged without a request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envctl.errors import Problem, SpecError
from envctl.spec.document import did_you_mean
from envctl.spec.structure import open_document


def example_problems(file: Path) -> Sequence[Problem]:
    """Everything that is wrong with a file of examples."""
    try:
        document = open_document(file, "examples")
    except SpecError as error:
        return error.problems
    if "http" not in document.data and "grpc" not in document.data:
        document.problem((), "found no examples", "write `http:` or `grpc:`")
    proto = document.data.get("grpc", {}).get("proto")
    if proto and not (file.parent / proto).is_file():
        near = [each.name for each in file.parent.glob("*.proto")]
        document.problem(("grpc", "proto"), f"no file {proto!r} in {file.parent}", did_you_mean(proto, near))
    return document.problems
