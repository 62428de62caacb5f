"""The timeline of a scenario: every fault starts once, in a known order, and ends while the traffic still flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from envctl.model.scenario import FaultSpec, Scenario
from envctl.model.topology import Topology
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.hits import clash, count_hit, within_reach
from envctl.spec.timeline import COMPOSED, entries, start_of
from envctl.spec.traffic import Line

COMPOSED_FIELDS = ("id", "at", "on", "repeat", *COMPOSED)


def check_timeline(document: Document, scenario: Scenario, lines: tuple[Line, ...], topology: Topology | None) -> None:
    """Notes every broken rule of the timeline."""
    _check_entries(document)
    _check_names(document, scenario.faults)
    starts = earliest_starts(scenario.faults)
    _check_ends(document, scenario, starts, _length_s(scenario, lines))
    _check_overlaps(document, scenario.faults, starts, topology)
    if topology is not None:
        _check_escalations(document, scenario.faults, topology)


def _check_entries(document: Document) -> None:
    """Every entry says when it starts, but for those whose turn comes; what is composed of others has nothing of a fault's own."""
    for at, each in entries(document):
        inside, starts = len(at) > len(("faults", 0)), [name for name in ("at", "on") if name in each]
        if inside and starts:
            document.problem((*at, starts[0]), f"found `{starts[0]}`, but it starts when its turn comes", "leave it out, or take the entry out")
        elif len(starts) > 1:
            document.problem((*at, "on"), "found both `at` and `on`, allowed: one of them")
        elif not inside and not starts:
            document.problem(at, "found neither `at` nor `on`", "say when it starts: `at: 5s` or `on: healed(ID)`")
        if "escalate" in each and "escalate" in at:
            document.problem((*at, "escalate"), "an escalation inside of an escalation", "make its steps steps of the outer one")
        for name in each if "fault" not in each else ():
            if name not in COMPOSED_FIELDS:
                document.problem((*at, name), "unknown field", did_you_mean(name, COMPOSED_FIELDS))


def _check_names(document: Document, faults: Sequence[FaultSpec]) -> None:
    named: dict[str, Location] = {}
    for at, each in entries(document):
        if "id" in each and named.setdefault(each["id"], at) != at:
            document.problem((*at, "id"), f"the id {each['id']!r} is taken already")
    ids = [fault.id for fault in faults]
    known = ids_in_file(document, ids)
    for fault in faults:
        for name in fault.after:
            if name not in known:
                document.problem((*fault.place, "on"), f"no fault has the id {name!r}", did_you_mean(name, [*ids, *named]))
    _check_order(document, faults, named)


def _check_order(document: Document, faults: Sequence[FaultSpec], named: dict[str, Location]) -> None:
    """What starts when something has healed stands below it: so none waits for itself, or two for each other."""
    places = {fault.id: fault.place for fault in reversed(faults)} | named
    for index, raw in enumerate(document.data.get("faults", ())):
        name = start_of(raw).on if raw is not None else ""
        if name in places and places[name][1] == index:
            document.problem(("faults", index, "on"), "it waits for its own healing", "name a fault above it")
        elif name in places and int(places[name][1]) > index:
            document.problem(("faults", index, "on"), f"{name!r} stands below it: it can't have healed before this one starts", "name a fault above it")


def ids_in_file(document: Document, ids: list[str]) -> set[str]:
    """Ids of all faults, those with a broken entry included (naming them is no mistake)."""
    return {*ids, *(text for at, text in document.texts.items() if at[:1] == ("faults",) and at[-1] in ("id", "fault"))}


def earliest_starts(faults: tuple[FaultSpec, ...]) -> dict[str, float]:
    """Fault id → the earliest start in seconds, where the file tells; healing and recovery are counted as instantaneous."""
    starts = {fault.id: fault.at_s for fault in faults if fault.at_s is not None}
    lasts = {fault.id: fault.for_s or 0.0 for fault in faults}
    for _ in faults:
        for fault in faults:
            if fault.after and fault.id not in starts and all(name in starts for name in fault.after):
                starts[fault.id] = max(starts[name] + lasts[name] for name in fault.after)
    return starts


def _length_s(scenario: Scenario, lines: tuple[Line, ...]) -> float | None:
    given = scenario.traffic
    if given.duration_s is not None:
        return given.duration_s
    if not lines:
        return None
    return len(lines) / given.rate_per_s if given.rate_per_s else lines[-1].at_s


def _check_ends(document: Document, scenario: Scenario, starts: dict[str, float], length_s: float | None) -> None:
    deadline_s = scenario.limits.deadline_s
    if deadline_s is not None and length_s is not None and length_s > deadline_s:
        document.problem(("limits", "deadline"), f"the deadline ({deadline_s:g} s) is before the end of the traffic ({length_s:g} s)")
    told = set()
    for fault in scenario.faults:
        end_s = starts.get(fault.id, 0.0) + (fault.for_s or 0.0)
        at: Location = (*fault.place, "for" if fault.for_s else "at")
        if at in told:
            continue
        if deadline_s is not None and end_s > deadline_s:
            document.problem(at, f"is healed at {end_s:g} s, after the deadline ({deadline_s:g} s)", "limits.deadline ends the run")
        elif length_s is not None and (end_s > length_s or starts.get(fault.id, 0.0) >= length_s > 0):
            message = f"lasts until {end_s:g} s, the traffic ends at {length_s:g} s"
            document.problem(at, message, "a fault without traffic shows nothing; let `traffic.for` be longer")
        else:
            continue
        told.add(at)


def _check_overlaps(document: Document, faults: Sequence[FaultSpec], starts: dict[str, float], topology: Topology | None) -> None:
    timed = sorted((starts[fault.id], index, fault) for index, fault in enumerate(faults) if fault.id in starts)
    found = {each.id: each for each in faults}
    awaited = {fault.id: _awaited(fault, found) for fault in faults}
    for position, (start, _, fault) in enumerate(timed):
        for before_start, _, before in timed[:position]:
            if not (start < before_start + (before.for_s or 0.0) or start == before_start) or before.id in awaited[fault.id]:
                continue
            if (before.fault, before.params) == (fault.fault, fault.params):
                message = f"the same fault ({before.id}) acts already from {before_start:g} s"
                document.problem(fault.place, message, "healing the one would heal the other; let them follow each other")
            elif topology is not None and clash(before, fault) and (both := within_reach(before, topology) & within_reach(fault, topology)):
                message = f"{before.fault} ({before.id}) acts on {', '.join(sorted(both))} from {before_start:g} s, which {fault.fault} may hit, too"
                document.problem(fault.place, message, "neither could be shown to have acted; let them follow each other, or name other nodes")


def _check_escalations(document: Document, faults: Sequence[FaultSpec], topology: Topology) -> None:
    """Each step reaches further than the one before; where only the living environment tells, it is looked at before the run starts."""
    told = set()
    for escalation in dict.fromkeys(fault.escalation for fault in faults if fault.escalation):
        mine = [fault for fault in faults if fault.escalation == escalation]
        counts = [count_hit([fault for fault in mine if fault.step == step], topology) for step in range(1, mine[0].steps + 1)]
        for step, (before, count) in enumerate(pairwise(counts), 2):
            place = next(fault.place for fault in mine if fault.step == step)
            if before is not None and count is not None and count <= before and place not in told:
                message = f"step {step} of the escalation hits {count} {'node' if count == 1 else 'nodes'}, the one before it {before}"
                document.problem(place, message, "a step reaches further than the one before it; `sequence` takes entries of any reach")
                told.add(place)


def _awaited(fault: FaultSpec, found: Mapping[str, FaultSpec]) -> set[str]:
    """The faults that have recovered when a fault starts."""
    waiting, seen = list(fault.after), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += found[name].after if name in found else ()
    return seen
