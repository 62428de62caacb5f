"""What a reader sees: operations with both edges, elements of streams, windows of faults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from envctl.model.event import FaultEdge
from envctl.record.lines import Lines


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation with both of its edges; without a completion its outcome is unknown (`info`, `end_ns` None).

    Times are nanoseconds since the run's start.  `unsent` says why an operation never left the driver, empty if it did.
    """

    op: int
    process: str
    f: str
    key: str | None
    type: Literal["ok", "fail", "info"]
    due_ns: int
    start_ns: int
    end_ns: int | None
    trace_id: str | None
    target: str | None
    unsent: str
    _lines: Lines
    _invoke: int
    _completion: int | None

    @property
    def request(self) -> Mapping[str, Any]:
        """{"method", "path", "headers", "body"}, as sent."""
        return self._lines.at(self._invoke).get("value") or {}

    @property
    def response(self) -> Mapping[str, Any]:
        """{"status", "body"} or {"error"}; empty when nothing came back."""
        return (self._lines.at(self._completion).get("value") or {}) if self._completion is not None else {}

    @property
    def latency_ns(self) -> int | None:
        """From the intended start to the answer; None without one."""
        return None if self.end_ns is None else self.end_ns - self.due_ns


@dataclass(frozen=True, slots=True)
class Observed:
    """One element of a stream.  `op` is the number of the operation it is derived from, if any.

    `start_ns` … `at_ns` is when it came about: invocation and answer of an operation, one instant for everything else.
    `position` is where its line stands in the record (see `Record.source`).
    """

    id: str | None
    key: str | None
    order: int | float | None
    value: Any
    start_ns: int
    at_ns: int
    partition: int | None
    op: int | None
    position: int


@dataclass(frozen=True, slots=True)
class FaultWindow:
    """A fault of the timeline: from just before it was applied until it was measured to be gone.

    `start_ns` is None when it never got that far, `end_ns` None when it was never shown to be gone.
    """

    id: str
    fault: str
    start_ns: int | None
    end_ns: int | None
    edges: tuple[FaultEdge, ...]

    def edge(self, name: str) -> FaultEdge | None:
        """The newest event of a stage, such as "verify"."""
        return next((edge for edge in reversed(self.edges) if edge.edge == name), None)

    def overlaps(self, start_ns: int, end_ns: int) -> bool:
        """Whether the fault, or the recovery from it, fell into that time."""
        recover = self.edge("recover")
        end = recover.at_ns if recover else self.end_ns
        return self.start_ns is not None and self.start_ns <= end_ns and (end is None or end >= start_ns)
