"""A run's directory, read on demand."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from envctl.errors import UsageError
from envctl.model.event import FaultEdge, Log, Sample, Step
from envctl.record.index import Index
from envctl.record.manifest import MANIFEST, RunManifest
from envctl.record.values import FaultWindow, Observed, Operation

if TYPE_CHECKING:
    from envctl.model.scenario import Scenario
    from envctl.model.topology import Topology

EVENTS = "events.jsonl"


def _window(id: str, edges: Sequence[FaultEdge]) -> FaultWindow:
    first = {edge.edge: edge.at_ns for edge in reversed(edges)}
    gone = next((edge.at_ns for edge in reversed(edges) if edge.edge == "absent" and edge.ok), None)
    start = first.get("journal", first["apply"]) if "apply" in first else None
    return FaultWindow(id, edges[0].fault, start, gone, tuple(edges))


class Record:
    """A run's directory, read on demand and never written."""

    def __init__(self, run_dir: Path, scenario: Scenario | None = None) -> None:
        self.directory = run_dir
        self._scenario = scenario

    @classmethod
    def load(cls, run_dir: Path, scenario: Scenario | None = None) -> Record:
        """The record of `run_dir`; `scenario` replaces the one that ran.  Raises UsageError where there is no run."""
        if not (run_dir / MANIFEST).is_file():
            raise UsageError(f"{run_dir} holds no run", hint="runs are in .envctl/runs/")
        return cls(run_dir, scenario)

    @cached_property
    def manifest(self) -> RunManifest:
        """What ran."""
        return RunManifest.load(self.directory)

    @cached_property
    def topology(self) -> Topology:
        """The topology as it was.  Raises SpecError."""
        from envctl.spec import load_topology

        return load_topology(self.directory / "inputs" / "topology.yaml")

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario as it was.  Raises SpecError."""
        if self._scenario is not None:
            return self._scenario
        from envctl.spec import load_scenario

        return load_scenario(self.directory / "inputs" / "scenario.yaml", rng_seed=self.manifest.rng_seed)

    @cached_property
    def _index(self) -> Index:
        path = self.directory / EVENTS
        if not path.is_file():
            raise UsageError(f"{path} is missing", hint="the run was ended before its first event")
        return Index(path, self.scenario.streams)

    def read(self) -> None:
        """Reads the events as they are now, unless that has been done.  Raises UsageError when there are none."""
        _ = self._index

    @property
    def operations(self) -> Sequence[Operation]:
        """All operations, by number."""
        return self._index.operations

    @cached_property
    def faults(self) -> tuple[FaultWindow, ...]:
        """The faults that got as far as being probed, in that order."""
        return tuple(_window(id, edges) for id, edges in self._index.edges.items())

    @property
    def steps(self) -> Sequence[Step]:
        """All edges of steps, in the order of writing."""
        return self._index.steps

    @property
    def logs(self) -> Sequence[Log]:
        """All log events, in the order of writing."""
        return self._index.logs

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of all measures that have samples."""
        return tuple(sorted(self._index.samples))

    @property
    def count(self) -> int:
        """How many events there are."""
        return self._index.count

    @property
    def end_ns(self) -> int:
        """The largest time of any event."""
        return self._index.end_ns

    def samples(self, measure: str) -> Sequence[Sample]:
        """The samples of one measure, in the order of writing; none for an unknown one."""
        return self._index.samples.get(measure, ())

    def stream(self, name: str) -> Sequence[Observed]:
        """The elements of a stream: of the newest round that collected it, or of all acknowledged operations."""
        return self._index.streams.get(name, ())

    def unread(self, name: str) -> str:
        """Why a stream can't be relied on (never read, cut short, the reader failed); empty when it can."""
        stream = name.partition("@")[0]  # behind it, which reading apart of the rounds
        if stream not in self.scenario.streams:
            return f"the scenario observes nothing called {name}"
        if self.scenario.streams[stream].operation:
            return "" if any(step.name == "traffic" for step in self.steps) else f"{name} has no traffic to come from"
        newest = self._index.rounds.get(name)
        if newest is None:
            return f"{name} was never read"
        if newest.edge == "begin":
            return f"reading {name} was cut short"
        return "" if newest.ok else f"{name} could not be read: {newest.detail.get('error', 'no reason recorded')}"

    def read_at(self, name: str) -> int:
        """When the newest round of a stream began (nothing that came later need be in it); the record's end for operations."""
        begun = [s.at_ns for s in self.steps if s.name == "observe" and s.edge == "begin" and s.detail["stream"] == name]
        return begun[-1] if begun else self.end_ns

    def source(self, observed: Observed) -> Mapping[str, Any]:
        """Where an element was found: {topic, partition, offset}, {component, database}, …; empty for operations."""
        if observed.op is not None:
            return {}
        found: Mapping[str, Any] = self._index.lines.at(observed.position).get("source") or {}
        return found

    def by_number(self, op: int) -> Operation | None:
        """The operation with that number."""
        at = bisect_left(self.operations, op, key=lambda operation: operation.op)
        return self.operations[at] if at < len(self.operations) and self.operations[at].op == op else None

    def overlapping(self, start_ns: int, end_ns: int) -> tuple[str, ...]:
        """Ids of the faults whose windows overlap that time."""
        return tuple(window.id for window in self.faults if window.overlaps(start_ns, end_ns))
