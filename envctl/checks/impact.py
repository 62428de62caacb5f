"""What faults did to the system and how soon it was noticed, against what the scenario tolerates and asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from envctl.checks.evidence import finding
from envctl.checks.slo import too_busy
from envctl.model.event import FaultEdge
from envctl.model.scenario import FaultSpec
from envctl.model.verdict import Evidence, Finding, Outcome, worst
from envctl.record import FaultWindow, Record
from envctl.spec.conditions import format_answer, format_value, parse_condition, quantity_of, subject_of

Judged = tuple[Outcome, str]
Stage = Literal["detect", "recover"]


def outcome_of(record: Record, answers: Sequence[Mapping[str, Any]]) -> tuple[Outcome, str]:
    """What measured conditions come to, and words that excuse those that did not hold; unknown ones are no failure."""
    unmet = [answer for answer in answers if answer["ok"] is False]
    busy = [words for answer in unmet if (words := _excuse(record, answer))]
    if len(busy) < len(unmet):
        return "fail", ""
    return "pass" if all(answer["ok"] for answer in answers) else "inconclusive", f"; {busy[0]}" if busy else ""


def _excuse(record: Record, condition: Mapping[str, Any]) -> str:
    """Why an unmet condition on latency may be the machine's doing; empty when it is not."""
    asked = parse_condition(condition["text"])
    return too_busy(record, condition["value"], asked.threshold) if quantity_of(asked) == "time" and subject_of(asked) == "traffic" else ""


def impact(record: Record) -> list[Finding]:
    """A finding `during:ID` for each fault under which something had to hold, and `detect:ID` for each that had to be noticed in time."""
    found = []
    for spec, window in _acted(record):
        if (during := window.edge("during")) is not None:
            found.append(_during(record, spec, during))
        elif record.scenario.during or spec.during:
            found.append(Finding(f"during:{spec.id}", "during", "inconclusive", "nothing is recorded of what had to hold meanwhile", "steady"))
        own, everyones = spec.detect.within_s if spec.detect else None, record.scenario.detect.within_s
        if (within_s := everyones if own is None else own) is not None:
            outcome, title = _detection(window, within_s)
            found.append(Finding(f"detect:{spec.id}", "detect", outcome, title, "steady", stats=_of(window.edge("detect"))))
    return found


def _acted(record: Record) -> list[tuple[FaultSpec, FaultWindow]]:
    """The faults that were applied: of the others, their own finding says why they were not."""
    windows = {window.id: window for window in record.faults}
    return [(spec, windows[spec.id]) for spec in record.scenario.faults
            if spec.id in windows and (apply := windows[spec.id].edge("apply")) is not None and apply.ok]


def _during(record: Record, spec: FaultSpec, edge: FaultEdge) -> Finding:
    answers = edge.detail.get("conditions", ())
    outcome, busy = outcome_of(record, answers)
    evidence = tuple(Evidence(format_answer(each), at_ns=edge.at_ns, faults=(spec.id,)) for each in answers if not each["ok"])
    stats = {each["text"]: format_value(parse_condition(each["text"]), each["value"]) for each in answers}
    return Finding(f"during:{spec.id}", "during", outcome, edge.summary + busy, "steady", evidence, len(evidence), stats)


def _of(edge: FaultEdge | None) -> Mapping[str, Any]:
    return {name: value for name, value in (edge.detail if edge else {}).items() if name in ("seconds", "within_s", "by")}


def _detection(window: FaultWindow, within_s: float) -> Judged:
    """Whether what had to notice a fault did so in time; nothing counts where the fault could not be shown to act."""
    verify, edge = window.edge("verify"), window.edge("detect")
    if verify is None or not verify.ok:
        return "inconclusive", "its effect could not be shown, so there was nothing to detect"
    if edge is None:
        return "inconclusive", "nothing is recorded of what told of it"
    seconds = edge.detail.get("seconds")
    if seconds is not None:
        late = seconds > within_s
        return ("fail" if late else "pass"), f"detected in {seconds:.1f} s, {within_s:g} s allowed: {edge.detail.get('by', '')}"
    if edge.detail.get("unknown"):
        return "inconclusive", f"{edge.summary}; {within_s:g} s allowed"
    if edge.detail.get("stopped"):
        return "inconclusive", "the run was stopped before it was detected"
    return "fail", f"not detected, {within_s:g} s allowed"


def _recovered(window: FaultWindow, within_s: float) -> Judged:
    """Whether the steady state held again in time."""
    edge = window.edge("recover")
    if edge is None:
        return "inconclusive", "nothing is recorded of a recovery from it"
    if edge.ok:
        seconds = float(edge.detail.get("seconds", 0.0))
        return ("fail" if seconds > within_s else "pass"), f"recovered in {seconds:.1f} s, {within_s:g} s allowed"
    measured = any(answer["ok"] is False for answer in edge.detail.get("conditions", ()))
    return ("fail" if measured else "inconclusive"), edge.summary


def fault_objectives(record: Record) -> tuple[Finding, ...]:
    """Findings `slo:time_to_detect` and `slo:time_to_recover` over all faults that acted: the worst of them counts."""
    slo = record.scenario.slo
    acted = _acted(record)
    asked: tuple[tuple[str, float | None, Stage, Callable[[FaultWindow, float], Judged]], ...] = (
        ("time_to_detect", slo.detect_s, "detect", _detection), ("time_to_recover", slo.recover_s, "recover", _recovered))
    return tuple(_objective(record, name, limit, {spec.id: judge(window, limit) for spec, window in acted}, [window.edge(stage) for _, window in acted])
                 for name, limit, stage, judge in asked if limit is not None)


def _objective(record: Record, name: str, limit_s: float, judged: Mapping[str, Judged], edges: Sequence[FaultEdge | None]) -> Finding:
    took = [edge.detail.get("seconds") if edge and (edge.ok or edge.edge == "detect") else None for edge in edges]
    missing = len(record.scenario.faults) - len(judged)
    outcome = worst([outcome for outcome, _ in judged.values()] + (["inconclusive"] if missing else []))
    bad = [Evidence(f"{id}: {title}", faults=(id,)) for id, (each, title) in judged.items() if each != "pass"]
    apart = f"; {missing} more did not act" if missing else ""
    title = f"{len(judged) - len(bad)} of {len(judged)} faults within {limit_s:g} s{apart}"
    return finding(f"slo:{name}", "slo", outcome, title, evidence=bad, total=len(bad), stats={"limit_s": limit_s, "faults": len(judged), "seconds": _longest(took)})


def _longest(seconds: Sequence[float | None]) -> float | None:
    """None where one of them never came about."""
    known = [each for each in seconds if each is not None]
    return max(known) if known and len(known) == len(seconds) else None


def escalations(record: Record, findings: Iterable[Finding]) -> list[Finding]:
    """A finding `escalation:ID` for each: which step it broke at, and which was the last that was survived."""
    known = {each.id: each for each in (*findings, *impact(record))}
    names = dict.fromkeys(spec.escalation for spec in record.scenario.faults if spec.escalation)
    return [_escalation(name, [spec for spec in record.scenario.faults if spec.escalation == name], known) for name in names]


def _escalation(name: str, specs: Sequence[FaultSpec], known: Mapping[str, Finding]) -> Finding:
    steps = specs[0].steps
    for step in range(1, steps + 1):
        ids = [f"{kind}:{spec.id}" for spec in specs if spec.step == step for kind in ("fault", "during")]
        bad = [known[id] for id in ids if id in known and known[id].outcome != "pass"]
        if bad:
            outcome = worst(each.outcome for each in bad)
            last = f"step {step - 1} was the last that was survived" if step > 1 else "no step was survived"
            title = f"it broke at step {step} of {steps} ({bad[0].id.partition(':')[2]}): {bad[0].title}; {last}"
            return Finding(f"escalation:{name}", "escalation", outcome, title, "run", tuple(Evidence(f"{each.id}: {each.title}") for each in bad[1:]), len(bad) - 1)
    return Finding(f"escalation:{name}", "escalation", "pass", f"all {steps} steps were survived", "run")
