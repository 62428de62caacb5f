"""The timeline of a scenario: every fault starts once, in a known order, and ends while the traffic still flows."""

from __future__ import annotations

from envctl.model.scenario import FaultSpec, Scenario
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.plugin_rules import located
from envctl.spec.topology_rules import find_cycle
from envctl.spec.traffic import Line


def check_timeline(document: Document, scenario: Scenario, lines: tuple[Line, ...]) -> None:
    """Notes every broken rule of the timeline."""
    faults = located(document, "faults", scenario.faults)
    _check_starts(document, faults)
    starts = earliest_starts(scenario.faults)
    _check_ends(document, scenario, faults, starts, _length_s(scenario, lines))
    _check_overlaps(document, faults, starts)


def _check_starts(document: Document, faults: list[tuple[int, FaultSpec]]) -> None:
    ids = [fault.id for _, fault in faults]
    for index, fault in faults:
        at: Location = ("faults", index)
        if fault.at_s is not None and fault.after:
            document.problem((*at, "on"), "found both `at` and `on`, allowed: one of them")
        elif fault.at_s is None and not fault.after:
            document.problem(at, "found neither `at` nor `on`", "say when it starts: `at: 5s` or `on: healed(ID)`")
        elif fault.after and fault.after not in _ids_in_file(document, ids):
            document.problem((*at, "on"), f"no fault has the id {fault.after!r}", did_you_mean(fault.after, ids))
        if "id" in document.data["faults"][index] and fault.id != document.data["faults"][index]["id"]:
            document.problem((*at, "id"), f"the id {document.data['faults'][index]['id']!r} is taken already")
    cycle = find_cycle({fault.id: [fault.after] if fault.after in ids else [] for _, fault in faults})
    if cycle:
        index = faults[ids.index(cycle[0])][0]
        document.problem(("faults", index, "on"), f"the faults wait for each other: {' → '.join(cycle)}")


def _ids_in_file(document: Document, ids: list[str]) -> set[str]:
    """Ids of all faults, those with a broken entry included (naming them is no mistake)."""
    return {*ids, *(text for at, text in document.texts.items() if at[:1] == ("faults",) and at[2:] in (("id",), ("fault",)))}


def earliest_starts(faults: tuple[FaultSpec, ...]) -> dict[str, float]:
    """Fault id → the earliest start in seconds, where the file tells; healing and recovery are counted as instantaneous."""
    starts = {fault.id: fault.at_s for fault in faults if fault.at_s is not None}
    lasts = {fault.id: fault.for_s or 0.0 for fault in faults}
    for _ in faults:
        for fault in faults:
            if fault.after in starts and fault.id not in starts:
                starts[fault.id] = starts[fault.after] + lasts[fault.after]
    return starts


def _length_s(scenario: Scenario, lines: tuple[Line, ...]) -> float | None:
    given = scenario.traffic
    if given.duration_s is not None:
        return given.duration_s
    if not lines:
        return None
    return len(lines) / given.rate_per_s if given.rate_per_s else lines[-1].at_s


def _check_ends(
    document: Document, scenario: Scenario, faults: list[tuple[int, FaultSpec]], starts: dict[str, float], length_s: float | None
) -> None:
    deadline_s = scenario.limits.deadline_s
    if deadline_s is not None and length_s is not None and length_s > deadline_s:
        document.problem(("limits", "deadline"), f"the deadline ({deadline_s:g} s) is before the end of the traffic ({length_s:g} s)")
    for index, fault in faults:
        end_s = starts.get(fault.id, 0.0) + (fault.for_s or 0.0)
        at: Location = ("faults", index, "for" if fault.for_s else "at")
        if deadline_s is not None and end_s > deadline_s:
            document.problem(at, f"is healed at {end_s:g} s, after the deadline ({deadline_s:g} s)", "limits.deadline ends the run")
        elif length_s is not None and (end_s > length_s or starts.get(fault.id, 0.0) >= length_s > 0):
            message = f"lasts until {end_s:g} s, the traffic ends at {length_s:g} s"
            document.problem(at, message, "a fault without traffic shows nothing; let `traffic.for` be longer")


def _check_overlaps(document: Document, faults: list[tuple[int, FaultSpec]], starts: dict[str, float]) -> None:
    timed = sorted(((starts[fault.id], index, fault) for index, fault in faults if fault.id in starts), key=lambda each: each[:2])
    for position, (start, index, fault) in enumerate(timed):
        for before_start, _, before in timed[:position]:
            same = (before.fault, before.params) == (fault.fault, fault.params)
            if same and (start < before_start + (before.for_s or 0.0) or start == before_start):
                message = f"the same fault ({before.id}) acts already from {before_start:g} s"
                document.problem(("faults", index), message, "healing the one would heal the other; let them follow each other")
