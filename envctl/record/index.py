"""One pass over the record's file; bodies of requests, answers and sources stay in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.errors import UsageError
from envctl.model.event import FaultEdge, Log, Sample, Step
from envctl.model.scenario import Stream
from envctl.record.expression import pick
from envctl.record.lines import Lines, whole_lines
from envctl.record.values import Observed, Operation
from envctl.spec.lines import collector_paused

_decode = json.JSONDecoder().raw_decode  # json.loads guesses the encoding of every line first


def _parse(line: bytes) -> dict[str, Any]:
    """The event of one whole line.  Raises ValueError."""
    text = line.decode()
    event: dict[str, Any]
    event, end = _decode(text)
    if end != len(text) - 1:
        raise ValueError(f"more than one value: {text[end:].strip()[:40]!r}")
    return event


def _unsent(answer: Any) -> str:
    """Why an operation was never sent; empty when it was."""
    return str(answer.get("error") or "no reason recorded") if isinstance(answer, dict) and answer.get("sent") is False else ""


class Index:
    """One pass over the file: what is small is kept as it is, what is large as positions."""

    def __init__(self, path: Path, streams: Mapping[str, Stream]) -> None:
        self.path = path
        self.lines = Lines(path)
        self.operations: list[Operation] = []
        self.streams: dict[str, list[Observed]] = {name: [] for name in streams}
        self.rounds: dict[str, Step] = {}  # newest `observe` edge by stream
        self.steps: list[Step] = []
        self.edges: dict[str, list[FaultEdge]] = {}
        self.samples: dict[str, list[Sample]] = {}
        self.logs: list[Log] = []
        self.count = self.end_ns = 0
        self._derived: dict[str, list[Stream]] = {}
        for stream in streams.values():
            if stream.operation:
                self._derived.setdefault(stream.operation, []).append(stream)
        self._open: dict[int, tuple[dict[str, Any], int]] = {}
        self._known: dict[str, str] = {}  # one object for each distinct text: ids recur in every stream
        with collector_paused():
            self._read()

    def _read(self) -> None:
        take = {"op": self._op, "observation": self._observation, "sample": self._sample, "fault": self._fault,
                "step": self._step, "log": self._log}
        for position, line in whole_lines(self.path):
            try:
                event = _parse(line)
                self.count += 1
                self.end_ns = max(self.end_ns, event["at_ns"])
                handler = take.get(event["kind"])  # kinds of a later version are passed over
                if handler:
                    handler(event, position)
            except (ValueError, KeyError, TypeError) as error:
                raise UsageError(f"{self.path}: the line at byte {position} is not an event: {error!r}") from error
        for invoke, position in self._open.values():
            self._join(invoke, position, None, None)
        self._open.clear()
        self._known.clear()
        self.operations.sort(key=lambda operation: operation.op)

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        text = value if type(value) is str else str(value)
        return self._known.setdefault(text, text)

    def _op(self, event: dict[str, Any], position: int) -> None:
        if event["type"] == "invoke":
            self._open[event["op"]] = (event, position)
            return
        invoke, invoked = self._open.pop(event["op"], (event, position))
        self._join(invoke, invoked, event, position)

    def _join(self, invoke: dict[str, Any], invoked: int, completion: dict[str, Any] | None, position: int | None) -> None:
        start = invoke["at_ns"]
        answer = (completion.get("value") if completion else None) or {}
        operation = Operation(
            invoke["op"], self._text(invoke["process"]) or "", self._text(invoke["f"]) or "", self._text(invoke.get("key")),
            completion["type"] if completion else "info", invoke.get("due_ns", start), start,
            completion["at_ns"] if completion else None,
            (completion.get("trace_id") if completion else None) or invoke.get("trace_id"),
            self._text(invoke.get("target")), _unsent(answer),
            self.lines, invoked, position,
        )
        self.operations.append(operation)
        if operation.type == "ok":
            for stream in self._derived.get(operation.f, ()):
                self._derive(stream, operation, invoke.get("value"), answer)

    def _derive(self, stream: Stream, operation: Operation, request: Any, response: Any) -> None:
        roots = {"request": request, "response": response, "key": operation.key, "op": operation.op, "f": operation.f}
        found = {name: pick(expression, roots) for name, expression in stream.fields.items()}
        end = operation.end_ns if operation.end_ns is not None else operation.start_ns
        self.streams[stream.name].append(
            Observed(
                self._text(found.get("id")), self._text(found["key"]) if "key" in found else operation.key, found.get("order"),
                found.get("value"), operation.start_ns, end, None, operation.op, operation._invoke,  # noqa: SLF001
            )
        )

    def _observation(self, event: dict[str, Any], position: int) -> None:
        at = event["at_ns"]
        partition = (event.get("source") or {}).get("partition")
        self.streams.setdefault(event["stream"], []).append(
            Observed(
                self._text(event.get("id")), self._text(event.get("key")), event.get("order"), event.get("value"), at, at,
                partition, None, position,
            )
        )

    def _step(self, event: dict[str, Any], _position: int) -> None:
        step = Step(at_ns=event["at_ns"], name=event["name"], edge=event["edge"], ok=event.get("ok"),
                    detail=event.get("detail") or {})
        self.steps.append(step)
        if step.name == "observe":
            stream = str(step.detail["stream"])
            self.rounds[stream] = step
            if step.edge == "begin":
                self.streams[stream] = []

    def _fault(self, event: dict[str, Any], _position: int) -> None:
        edge = FaultEdge(at_ns=event["at_ns"], id=event["id"], fault=event["fault"], edge=event["edge"], ok=event["ok"],
                         summary=event.get("summary", ""), detail=event.get("detail") or {})
        self.edges.setdefault(edge.id, []).append(edge)

    def _sample(self, event: dict[str, Any], _position: int) -> None:
        sample = Sample(at_ns=event["at_ns"], measure=event["measure"], value=event["value"], attrs=event.get("attrs") or {})
        self.samples.setdefault(sample.measure, []).append(sample)

    def _log(self, event: dict[str, Any], _position: int) -> None:
        self.logs.append(Log(at_ns=event["at_ns"], level=event["level"], message=event["message"],
                             detail=event.get("detail") or {}))
