"""What is shrunk of a scenario, and the scenario file of what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from envctl import plugins
from envctl.model.scenario import FaultSpec, Scenario
from envctl.spec.document import read
from envctl.spec.timeline_rules import earliest_starts
from envctl.spec.traffic import load_traffic

FLOW = ("suites", "powers", "takes", "stubs", "traffic", "limits", "recover", "slo")  # written on one line each


@dataclass(frozen=True, slots=True)
class Schedule:
    """The parts of a scenario that are reduced.  Everything else stays as it is."""

    faults: tuple[FaultSpec, ...]
    for_s: float  # how long traffic flows
    rate_per_s: float | None  # None: the file's own offsets
    operations: tuple[str, ...]  # kinds that are replayed
    seed: str = ""  # the data it starts from

    @property
    def key(self) -> str:
        """The same for the same schedule."""
        return repr([(f.id, f.at_s, f.after, f.for_s, sorted(f.params.items())) for f in self.faults]) + repr(
            (self.for_s, self.rate_per_s, self.operations, self.seed))

    def __str__(self) -> str:
        rate = f" at {self.rate_per_s:g}/s" if self.rate_per_s else ""
        faults = ", ".join(map(_told, self.faults)) or "no fault"
        return f"{faults}; traffic for {self.for_s:g} s{rate}: {', '.join(self.operations)}" + ("" if self.seed else "; no seed")


def _told(fault: FaultSpec) -> str:
    start = f"after {', '.join(fault.after)}" if fault.after else f"at {fault.at_s or 0:g} s"
    return f"{fault.id} {start}" + (f" for {fault.for_s:g} s" if fault.for_s is not None else "")


@dataclass(frozen=True, slots=True)
class Origin:
    """The scenario that is shrunk, as it stands in its files."""

    name: str
    rng_seed: int
    data: Mapping[str, Any]
    traffic: tuple[str, ...]  # its lines
    kinds: tuple[str, ...]  # of each line its operation
    whole: Schedule


def open_origin(scenario: Scenario) -> Origin:
    """Reads a scenario's files once more, to write smaller ones.  Raises SpecError, OSError."""
    lines = load_traffic(scenario.traffic.file)
    texts = [text for text in scenario.traffic.file.read_text(encoding="utf-8").splitlines() if text.strip()]
    rate, asked = scenario.traffic.rate_per_s, scenario.traffic.duration_s
    for_s = asked if asked is not None else len(lines) / rate if rate else lines[-1].at_s
    operations = tuple(dict.fromkeys(line.op for line in lines))
    whole = Schedule(_alone(scenario.faults), for_s, rate, operations, scenario.seed)
    return Origin(scenario.name, scenario.rng_seed, read(scenario.file).data, tuple(texts), tuple(line.op for line in lines), whole)


def _alone(faults: Sequence[FaultSpec]) -> tuple[FaultSpec, ...]:
    """Faults that start after several others start after the one of them that is to end last: a file names one."""
    starts = earliest_starts(tuple(faults))
    ends = {fault.id: starts.get(fault.id, 0.0) + (fault.for_s or 0.0) for fault in faults}
    return tuple(replace(fault, after=(max(fault.after, key=lambda name: ends.get(name, 0.0)),)) if fault.after else fault for fault in faults)


def keeping(faults: Sequence[FaultSpec], kept: Sequence[FaultSpec]) -> tuple[FaultSpec, ...]:
    """Only those; one that waited for another that is gone starts when that one would have."""
    known, ids = {fault.id: fault for fault in faults}, {fault.id for fault in kept}

    def start(fault: FaultSpec) -> FaultSpec:
        while fault.after and fault.after[0] in known and fault.after[0] not in ids:
            before = known[fault.after[0]]
            fault = replace(fault, at_s=before.at_s, after=before.after)
        return fault

    return tuple(start(fault) for fault in faults if fault.id in ids)


def end_s(schedule: Schedule) -> float:
    """When the last fault ends at the earliest, in seconds."""
    starts = earliest_starts(schedule.faults)
    return max((starts.get(fault.id, 0.0) + (fault.for_s or 0.0) for fault in schedule.faults), default=0.0)


def written(origin: Origin, schedule: Schedule, directory: Path, name: str, header: Sequence[str] = ()) -> Path:
    """Writes `NAME.yaml`, and its traffic below `traffic/`; returns the scenario's path."""
    traffic = Path("traffic") / f"{name}.jsonl"
    (directory / traffic).parent.mkdir(parents=True, exist_ok=True)
    lines = [text for text, kind in zip(origin.traffic, origin.kinds, strict=True) if kind in schedule.operations]
    (directory / traffic).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    data = {**origin.data, "name": name, "rng_seed": origin.rng_seed, "faults": [_entry(fault) for fault in schedule.faults],
            "traffic": _traffic(origin.data["traffic"], str(traffic), schedule), "seed": schedule.seed,
            "checks": [check for check in origin.data.get("checks", ()) if _told_of(check) <= {fault.id for fault in schedule.faults}]}
    body = [_part(key, value) for key, value in data.items() if value not in ("", [], None)]
    file = directory / f"{name}.yaml"
    file.write_text("".join([*(f"# {line}\n" for line in header), *body]), encoding="utf-8")
    return file


def _told_of(check: Mapping[str, Any]) -> set[str]:
    """The faults that a check is about: without them it says nothing."""
    return {id for name, params in check.items() for what, id in plugins.load("envctl.checks", name).references(params) if what == "fault"}


def _traffic(raw: Mapping[str, Any], file: str, schedule: Schedule) -> dict[str, Any]:
    rate = {"rate": f"{schedule.rate_per_s:g}/s"} if schedule.rate_per_s else {}
    return {**raw, "file": file, **rate, "for": f"{schedule.for_s:g}s"}


def _entry(fault: FaultSpec) -> dict[str, Any]:
    """A fault as an entry of its own, with the id that its random choices depend on."""
    start = {"on": f"healed({fault.after[0]})"} if fault.after else {"at": f"{fault.at_s or 0:g}s"}
    named = {"id": fault.id} if fault.id != fault.fault else {}
    held = {"for": f"{fault.for_s:g}s"} if fault.for_s is not None else {}
    return {**named, **start, **held, "fault": fault.fault, **fault.params, **_judged(fault)}


def _judged(fault: FaultSpec) -> dict[str, Any]:
    """What an entry says of how its fault is judged, where it says so itself."""
    found: dict[str, Any] = {"during": [condition.text for condition in fault.during]} if fault.during else {}
    if fault.detect is not None:
        found["detect"] = {"within": f"{fault.detect.within_s:g}s", "by": [condition.text for condition in fault.detect.by]}
    if fault.recover_within_s is not None:
        found["recover"] = {"within": f"{fault.recover_within_s:g}s"}
    return found


def _part(key: str, value: Any) -> str:
    """A field of the file: one line, or one for each of its entries."""
    if isinstance(value, list) and key not in FLOW:
        return f"{key}:\n" + "".join(f"  - {_flow(each)}\n" for each in value)
    if isinstance(value, Mapping) and key not in FLOW:
        return f"{key}:\n" + "".join(f"  {_flow(name)}: {_flow(each)}\n" for name, each in value.items())
    return f"{key}: {_flow(value)}\n"


def _flow(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False, allow_unicode=True)
    return text.strip().removesuffix("...").strip()
