"""`scenario.yaml` → Scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envctl.model.scenario import CheckSpec, Detect, Limits, Measure, Scenario, Slo, Stream, Traffic
from envctl.model.topology import Service, Topology
from envctl.spec.conditions import conditions, detect
from envctl.spec.document import Document
from envctl.spec.names import topics_of
from envctl.spec.scenario_rules import check_scenario
from envctl.spec.structure import open_document, recorded
from envctl.spec.timeline import timeline
from envctl.spec.units import duration_s, rate_per_s, ratio

_UNITS = ("observe", "measures", "faults", "checks", "steady", "stop", "during")


def load_scenario(file: Path, topology: Topology | None = None, *, seeds: Path | None = None, rng_seed: int | None = None) -> Scenario:
    """Reads and checks a scenario, its traffic file, and the parameters of its faults and checks.

    Names of components, groups and topics are checked against the topology where one is given.  `seeds` is the directory of
    the seeds (None: beside the scenario's directory), `rng_seed` takes the place of the scenario's own.  The copy that a run keeps stands without seeds, its traffic file beside it.
    Raises SpecError with every problem at once, the traffic file's too.
    """
    document = open_document(file, "scenario", units=_UNITS)
    if topology is not None and document.data.get("stack", topology.name) != topology.name:
        message = f"this scenario is for {document.data['stack']!r}, the topology here is {topology.name!r}"
        document.problem(("stack",), message, "say which stack is meant in envctl.yaml")
        document.raise_problems()
    scenario = _scenario(document, topology, rng_seed)
    lines = check_scenario(document, scenario, topology, None if recorded(file) else seeds or file.resolve().parent.parent / "seeds")
    document.raise_problems()
    owners = topics_of(topology) if topology is not None else {}
    named = (owners.get(line.method, "") if line.protocol == "kafka" else line.to for line in lines)
    receivers = tuple(dict.fromkeys(name for name in named if name))
    return replace(scenario, traffic=replace(scenario.traffic, receivers=receivers))


def _scenario(document: Document, topology: Topology | None, rng_seed: int | None) -> Scenario:
    data = document.data
    seed = data.get("rng_seed", 0) if rng_seed is None else rng_seed
    return Scenario(
        name=data["name"],
        file=document.file,
        traffic=_traffic(document, data["traffic"], _receiver(data, topology)),
        stack=data.get("stack", ""),
        owner=data.get("owner", ""),
        description=data.get("description", ""),
        suites=tuple(data.get("suites", ())),
        rng_seed=seed,
        seed=data.get("seed", ""),
        powers=tuple(data.get("powers", ())),
        takes=tuple(data.get("takes", ())),
        stubs=tuple(data.get("stubs", ())),
        streams={name: _stream(document, name, raw) for name, raw in data.get("observe", {}).items()},
        measures={name: _measure(document, name, raw) for name, raw in data.get("measures", {}).items()},
        steady=conditions(document, ("steady",), data.get("steady")),
        faults=timeline(document, seed),
        limits=_limits(data.get("limits", {})),
        stop=conditions(document, ("stop",), data.get("stop")),
        during=conditions(document, ("during",), data.get("during")),
        detect=detect(document, ("detect",), data["detect"]) if "detect" in data else Detect(),
        recover_within_s=duration_s(data["recover"]["within"]) if "recover" in data else 30.0,
        checks=_checks(document),
        slo=_slo(document),
    )


def _receiver(data: Mapping[str, Any], topology: Topology | None) -> str:
    """`traffic.to`, else the first component in `takes` that has a port."""
    if "to" in data["traffic"]:
        return str(data["traffic"]["to"])
    takes = tuple(data.get("takes", ()))
    if topology is None:
        return takes[0] if takes else ""
    services = (name for name in takes if isinstance(found := topology.components.get(name), Service) and found.ports)
    return next(services, "")


def _traffic(document: Document, raw: Mapping[str, Any], to: str) -> Traffic:
    return Traffic(
        file=document.file.parent / ("traffic.jsonl" if recorded(document.file) else raw["file"]),
        to=to,
        rate_per_s=rate_per_s(raw["rate"]) if "rate" in raw else None,
        duration_s=duration_s(raw["for"]) if "for" in raw else None,
        model=raw.get("model", "open"),
        in_order_by=raw.get("in_order_by", ""),
        timeout_s=duration_s(raw["timeout"]) if "timeout" in raw else 5.0,
        line=document.line("traffic"),
    )


def _stream(document: Document, name: str, raw: Mapping[str, Any]) -> Stream:
    component, _, database = str(raw.get("on", "")).partition("/")
    return Stream(
        name,
        operation=raw.get("operation", ""),
        topic=raw.get("topic", ""),
        sql=raw.get("sql", ""),
        http=raw.get("http", ""),
        component=component,
        database=database,
        fields={field: str(raw[field]) for field in ("id", "key", "order", "value") if field in raw},
        line=document.line("observe", name),
    )


def _measure(document: Document, name: str, raw: Mapping[str, Any]) -> Measure:
    component, _, database = str(raw["on"]).partition("/")
    every_s = duration_s(raw["every"]) if "every" in raw else 1.0
    return Measure(
        name,
        sql=raw.get("sql", ""),
        http=raw.get("http", ""),
        command=tuple(raw.get("command", ())),
        component=component,
        database=database,
        take=raw.get("take") or ("response.status" if "http" in raw else "stdout" if "command" in raw else ""),
        every_s=every_s,
        timeout_s=duration_s(raw["timeout"]) if "timeout" in raw else every_s,
        line=document.line("measures", name),
    )


def _unique(name: str, used: Counter[str]) -> str:
    used[name] += 1
    return name if used[name] == 1 else f"{name}-{used[name]}"


def _checks(document: Document) -> tuple[CheckSpec, ...]:
    used: Counter[str] = Counter()
    found = []
    for index, raw in enumerate(document.data.get("checks", ())):
        for name, params in (raw or {}).items():
            found.append(CheckSpec(_unique(name, used), name, params or {}, document.line("checks", index)))
    return tuple(found)


def _limits(raw: Mapping[str, Any]) -> Limits:
    deadline_s = duration_s(raw["deadline"]) if "deadline" in raw else None
    return Limits(raw.get("max_nodes"), raw.get("max_zones"), deadline_s)


def _slo(document: Document) -> Slo:
    raw = document.data.get("slo", {})
    availability = None
    if "availability" in raw:
        try:
            availability = ratio(raw["availability"])
        except ValueError as error:
            document.problem(("slo", "availability"), str(error), "allowed: 0 % to 100 %")
    times = {name: duration_s(value) for name, value in raw.items() if name != "availability"}
    detect_s, recover_s = times.pop("time_to_detect", None), times.pop("time_to_recover", None)
    return Slo(availability, times, document.line("slo"), detect_s, recover_s)
