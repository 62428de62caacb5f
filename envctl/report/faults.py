"""What was done to the system, and how long it took to show and to pass."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

from envctl.model.event import FaultEdge
from envctl.model.scenario import FaultSpec
from envctl.model.verdict import Finding
from envctl.record import FaultWindow, Operation
from envctl.report import words
from envctl.report.model import Fault
from envctl.report.subject import Subject
from envctl.report.timeline import latency_limit_s
from envctl.spec.conditions import format_answer


def faults(subject: Subject, findings: Mapping[str, Finding]) -> tuple[Fault, ...]:
    """The faults of the scenario, then those that only the record knows."""
    windows = {window.id: window for window in subject.windows}
    specs = {spec.id: spec for spec in subject.scenario.faults}
    return tuple(_fault(subject, id, specs.get(id), windows.get(id), findings.get(f"fault:{id}"))
                 for id in dict.fromkeys(chain(specs, windows)))


def asked(spec: FaultSpec) -> str:
    """What the scenario asks for: parameters, and when."""
    when = f"{words.duration(spec.at_s)} into the traffic" if spec.at_s is not None else f"after {' and '.join(spec.after)} {'has' if len(spec.after) == 1 else 'have'} healed"
    held = f", for {words.duration(spec.for_s)}" if spec.for_s is not None else ""
    return f"{words.pairs(spec.params)}; {when}{held}" if spec.params else f"{when}{held}"


def _fault(subject: Subject, id: str, spec: FaultSpec | None, window: FaultWindow | None, finding: Finding | None) -> Fault:
    edges = window.edges if window else ()
    start, end = (window.start_ns, window.end_ns) if window else (None, None)
    symptom = _first_symptom(subject, window)
    detect_s, detected_by = _detection(window)
    during = window.edge("during") if window else None
    measured = [edge.summary for edge in edges if edge.edge in ("verify", "hold") and edge.summary]
    chosen = [str(edge.detail["mechanism"]) for edge in edges if "mechanism" in edge.detail]
    return Fault(
        id=id, fault=spec.fault if spec else window.fault if window else "", outcome=finding.outcome if finding else None,
        asked=asked(spec) if spec else words.NONE, mechanism=chosen[0] if chosen else "", measured=measured[0].removeprefix("measured ") if measured else words.NONE,
        title=finding.title if finding else "not judged", start_s=_s(start), end_s=_s(end),
        step=f"{spec.step} of {spec.steps} of {spec.escalation}" if spec and spec.escalation else "",
        detect_s=detect_s, detected_by=detected_by, symptom_s=None if symptom is None or start is None else (symptom[0] - start) / 1e9,
        symptom=symptom[1] if symptom else "", tolerated=during.summary if during else "", recover_s=_recovery_s(window),
        stages=tuple((str(edge.edge), edge.ok, edge.at_ns / 1e9, _told(edge)) for edge in edges),
    )


def _detection(window: FaultWindow | None) -> tuple[float | None, str]:
    """How long it took, and the condition that told of it; or why none did."""
    edge = window.edge("detect") if window else None
    if edge is None:
        return None, ""
    seconds = edge.detail.get("seconds")
    if isinstance(seconds, int | float):
        return float(seconds), str(edge.detail.get("by", ""))
    return None, edge.summary


def _told(edge: FaultEdge) -> str:
    """A stage's summary; of a recovery that came also the values it was believed by."""
    values = map(format_answer, edge.detail.get("conditions", ())) if edge.ok else ()
    return "; ".join((edge.summary, *values))


def _s(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e9


def _recovery_s(window: FaultWindow | None) -> float | None:
    recover, heal = (window.edge("recover"), window.edge("heal")) if window else (None, None)
    if recover is None or not recover.ok:
        return None
    told = recover.detail.get("seconds")
    if isinstance(told, int | float):
        return float(told)
    return (recover.at_ns - heal.at_ns) / 1e9 if heal else None


def _first_symptom(subject: Subject, window: FaultWindow | None) -> tuple[int, str] | None:
    """When the first operation that a fault's window overlaps was known to be bad (ns), and what was."""
    if window is None or window.start_ns is None:
        return None
    recover = window.edge("recover")
    until = recover.at_ns if recover else subject.end_ns
    limit = latency_limit_s(subject)
    bad = (_bad(op, limit, window.start_ns) for op in subject.operations if not op.unsent and op.start_ns <= until)
    return min((found for found in bad if found and window.start_ns <= found[0] <= until), default=None)


def _bad(op: Operation, limit_s: float | None, since_ns: int) -> tuple[int, str] | None:
    """When it was known that an operation went badly: at its answer, or, if it was due since then, once it was slower than the limit."""
    if op.type != "ok" and op.end_ns is not None:
        return op.end_ns, f"{op.f} #{op.op} {'failed' if op.type == 'fail' else 'got no answer'}"
    if limit_s is not None and op.due_ns >= since_ns and op.latency_ns is not None and op.latency_ns > limit_s * 1e9:
        return op.due_ns + int(limit_s * 1e9), f"{op.f} #{op.op} took {words.duration(op.latency_ns / 1e9)}"
    return None
