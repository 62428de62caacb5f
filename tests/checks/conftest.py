"""Small histories, written as real records and read back."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Self

import pytest

from envctl.model.event import FaultEdge, Observation, Op, Sample, Step
from envctl.model.scenario import Scenario, Slo, Stream, Traffic
from envctl.record import EVENTS, Record, RecordWriter, RunManifest

S = 1_000_000_000
STREAMS = {
    "accepted": Stream("accepted", operation="place_order", fields={"id": "response.order_id", "key": "request.customer"}),
    "published": Stream("published", topic="orders.placed", fields={"id": "value.order_id", "key": "value.customer"}),
    "settled": Stream("settled", topic="payments.settled", fields={"id": "value.order_id"}),
    "charges": Stream("charges", sql="select", component="db", database="payments", fields={"id": "order_id", "value": "n"}),
    "report": Stream("report", http="/orders", component="reporting", fields={"id": "id", "value": "n"}),
}


class History:
    """A record in the making; times in seconds."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="history-"))
        RunManifest(id="r", scenario="s", stack="shop", env_id="e", commit="c", branch="b", rng_seed=7, started_at=0.0, clock_ns=0,
                    epoch_ns=0).save(self.directory)
        self._writer = RecordWriter(self.directory / EVENTS)
        self._ops = 0
        self._rounds: dict[str, list[Observation]] = {}
        self._offsets: dict[tuple[str, int], int] = {}
        self._writer.write(Step(at_ns=0, name="traffic", edge="begin"))

    def write(self, event: Any) -> None:
        self._writer.write(event)

    def order(self, id: str | None, key: str = "k", *, start: float = 1.0, end: float | None = None, type: str = "ok",
              due: float | None = None, answer: dict[str, Any] | None = None, f: str = "place_order") -> None:
        """An operation; end None: a tenth of a second later."""
        self._ops += 1
        finish = start + 0.1 if end is None else end
        trace = f"{self._ops:032x}"
        self.write(Op(at_ns=round(start * S), op=self._ops, process=key, type="invoke", f=f, key=key, trace_id=trace,
                      due_ns=round((start if due is None else due) * S), value={"body": {"customer": key}}))
        value = answer or ({"status": 201, "body": {"order_id": id}} if type == "ok" else {"error": "timed out"})
        self.write(Op(at_ns=round(finish * S), op=self._ops, process=key, type=type, f=f, value=value))  # type: ignore[arg-type]

    def message(self, stream: str, id: str | None, key: str | None = "k", *, at: float = 1.2, partition: int = 0,
                order: float | None = None) -> None:
        """The next message of a partition."""
        topic = STREAMS[stream].topic
        offset = self._offsets[topic, partition] = self._offsets.get((topic, partition), -1) + 1
        self._round(stream).append(Observation(at_ns=round(at * S), stream=stream, id=id, key=key, order=order,
                                               source={"topic": topic, "partition": partition, "offset": offset}))

    def row(self, stream: str, id: str | None, value: Any = None, order: float | None = None, key: str | None = None) -> None:
        """A row, or an element of an answer."""
        self._round(stream).append(Observation(at_ns=40 * S, stream=stream, id=id, key=key, value=value, order=order))

    def empty(self, *streams: str) -> None:
        """Streams that are read and hold nothing (yet)."""
        for stream in streams:
            self._round(stream)

    def _round(self, stream: str) -> list[Observation]:
        return self._rounds.setdefault(stream, [])

    def fault(self, id: str, start: float, end: float) -> None:
        """A fault that went well."""
        for edge, at in (("probe", 0), ("journal", start), ("apply", start), ("verify", start), ("heal", end), ("absent", end),
                         ("recover", end)):
            self.write(FaultEdge(at_ns=round(at * S), id=id, fault="node-kill", edge=edge, ok=True))  # type: ignore[arg-type]

    def lag(self, at: float, value: float | None, partition: int = 0, end: int = 100, committed: int | None = None) -> None:
        """A sample of the group `payments`."""
        done = committed if committed is not None or value is None else end - int(value)
        self.write(Sample(at_ns=round(at * S), measure="kafka.consumer_group.lag", value=value,
                          attrs={"group": "payments", "topic": "orders.placed", "partition": partition, "end": end, "committed": done}))

    def record(self, read_at: float = 40.0, slo: Slo = Slo()) -> Record:
        """Ends the history: every stream's elements become one round."""
        for stream, elements in self._rounds.items():
            self.write(Step(at_ns=round(read_at * S), name="observe", edge="begin", detail={"stream": stream}))
            for element in elements:
                self.write(element)
            self.write(Step(at_ns=round(read_at * S), name="observe", edge="end", ok=True, detail={"stream": stream}))
        self._writer.close()
        scenario = Scenario("s", Path("scenarios/s.yaml"), Traffic(Path("t.jsonl"), "gateway", None, None), streams=STREAMS, slo=slo)
        return Record.load(self.directory, scenario)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory)


@pytest.fixture(scope="session")
def histories() -> type[History]:
    """The class of histories, for tests that make many."""
    return History


@pytest.fixture
def history(histories):
    """One empty history."""
    with histories() as made:
        yield made
