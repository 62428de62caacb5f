"""A run's directory as far as it can be read: what is missing or broken becomes a gap that the report tells."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from envctl.errors import EnvctlError
from envctl.model.event import FaultEdge, Log, Sample, Step
from envctl.model.scenario import FaultSpec, Scenario, Traffic
from envctl.model.topology import Topology
from envctl.model.verdict import Verdict
from envctl.record import FaultWindow, Operation, Record, RunManifest
from envctl.record.verdict import load_verdict
from envctl.telemetry.store import Spans

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Subject:
    """What there is of a run; `record` is None when no event can be read."""

    directory: Path
    manifest: RunManifest
    scenario: Scenario
    topology: Topology | None
    verdict: Verdict | None
    record: Record | None
    spans: Spans | None
    gaps: tuple[str, ...]

    @property
    def operations(self) -> Sequence[Operation]:
        """All operations, by number."""
        return self.record.operations if self.record else ()

    @property
    def windows(self) -> Sequence[FaultWindow]:
        """The faults that got as far as being probed."""
        return self.record.faults if self.record else ()

    @property
    def steps(self) -> Sequence[Step]:
        """All edges of steps."""
        return self.record.steps if self.record else ()

    @property
    def logs(self) -> Sequence[Log]:
        """All log events."""
        return self.record.logs if self.record else ()

    @property
    def end_ns(self) -> int:
        """The largest time of any event."""
        return self.record.end_ns if self.record else 0

    def samples(self, measure: str) -> Sequence[Sample]:
        """The samples of one measure."""
        return self.record.samples(measure) if self.record else ()

    def edge(self, fault: FaultSpec, stage: str) -> FaultEdge | None:
        """The newest event of a fault's stage."""
        window = next((window for window in self.windows if window.id == fault.id), None)
        return window.edge(stage) if window else None

    def close(self) -> None:
        """Closes the store of spans."""
        if self.spans:
            self.spans.close()


def load(run_dir: Path) -> closing[Subject]:
    """Reads a run for a `with`.  Raises UsageError where there is no run at all."""
    gaps: list[str] = []
    bare = Record.load(run_dir)
    manifest = bare.manifest
    scenario = _try(lambda: bare.scenario, "the scenario", gaps)
    record = Record(run_dir, scenario or _unknown_scenario(manifest, run_dir))
    events = _try(lambda: record.count, "the events", gaps)
    spans = _try(lambda: _spans(run_dir), "spans", gaps)
    topology = _try(lambda: bare.topology, "the topology", gaps)
    verdict = _try(lambda: load_verdict(run_dir), "a verdict", gaps)
    told = tuple(_local(gap, run_dir, manifest.id) for gap in (*_broke_off(run_dir), *gaps))
    return closing(Subject(run_dir, manifest, record.scenario, topology, verdict, None if events is None else record, spans, told))


def _local(text: str, run_dir: Path, id: str) -> str:
    """The text without the run's place on the machine that wrote it: a report is read elsewhere."""
    text = text.replace(f"{run_dir}/", "").replace(str(run_dir), id)
    return re.sub(rf"/\S*/{re.escape(id)}/", "", text)



def _try(read: Callable[[], T], what: str, gaps: list[str]) -> T | None:
    """A part of the record, or None and a gap: reports are written of whatever a run left behind."""
    try:
        return read()
    except FileNotFoundError:
        gaps.append(f"there are no {what} in the record" if what == "spans" else f"{what} can't be read: the file is missing")
    except (EnvctlError, OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        gaps.append(f"{what} can't be read: {error}" if what != "a verdict" else f"there is no verdict: {error}")
    return None


def _spans(run_dir: Path) -> Spans:
    spans = Spans(run_dir / "telemetry")
    spans.query("select 1 from spans, links, points limit 1")  # a broken file shows now, not in the middle
    return spans


def _broke_off(run_dir: Path) -> list[str]:
    """Why the runner gave up, if it left a word."""
    try:
        said = json.loads((run_dir / "error.json").read_text(encoding="utf-8"))
        return [f"the run broke off: {said['message']}"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _unknown_scenario(manifest: RunManifest, run_dir: Path) -> Scenario:
    traffic = Traffic(run_dir / "inputs", "", None, None)
    return Scenario(name=manifest.scenario, file=run_dir / "inputs" / "scenario.yaml", traffic=traffic)
