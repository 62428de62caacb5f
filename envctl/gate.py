"""Findings of checks, objectives, faults and conditions → a verdict.  Pure: reads the record and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from envctl.checks.impact import escalations, fault_objectives, impact, outcome_of
from envctl.checks.restarts import restarts
from envctl.checks.settling import finding_of
from envctl.checks.slo import counted, never_sent, objectives
from envctl.model.event import FaultEdge, Step
from envctl.model.project import Gate, Waiver
from envctl.model.scenario import FaultSpec, Scenario
from envctl.model.verdict import Evidence, Finding, Outcome, Verdict, worst
from envctl.record import FaultWindow, Record
from envctl.record.verdict import load_verdict, save_verdict
from envctl.spec.conditions import format_answer, format_value, parse_condition

__all__ = ["explain", "judge", "load_verdict", "reproduce", "save_verdict"]

EVERYTHING = Gate()
UNSENT = 0.01  # share of the operations above which those that were never sent leave too much untried
SHOWN = 3  # pieces of evidence a terminal shows of one finding
ORDER: dict[Outcome, int] = {"fail": 0, "inconclusive": 1, "pass": 2}


def judge(record: Record, *, scenario: Scenario | None = None, gate: Gate = EVERYTHING) -> Verdict:
    """The verdict on a run.

    `scenario` replaces the one that ran, so that an old run is judged by other checks.  Raises UsageError and SpecError where
    there is no record to judge; whatever goes wrong inside a check is a finding.
    """
    record = record if scenario is None else Record.load(record.directory, scenario)
    record.read()  # once and before all else: a runner that nobody follows any more may still be at its first event
    checks = [finding_of(spec, record) for spec in record.scenario.checks]
    slo = (*objectives(record), *fault_objectives(record)) if gate.slo == "all" else ()
    faults = _faults(record)
    findings = [*checks, *slo, *faults, *impact(record), *escalations(record, faults), *_steady(record), *_run(record), *restarts(record)]
    if not checks and not slo:
        nothing = _run_finding("run:checks", "inconclusive", "nothing was checked: the scenario has no check and no objective")
        findings.append(replace(nothing, fixed=True))
    stubbed = record.manifest.stubbed
    if stubbed and gate.stubs_unverified == "fail":
        findings.append(_run_finding("run:stubs", "fail", f"{', '.join(stubbed)} were answered by stubs, which nobody verified"))
    waivers = [waiver for waiver in gate.waivers if waiver.scenario == record.scenario.name]
    findings = [_waive(finding, waivers) for finding in findings]
    findings.sort(key=lambda finding: (bool(finding.waived), ORDER[finding.outcome]))
    outcome = worst(finding.outcome for finding in findings if not finding.waived)
    unverified = () if gate.stubs_unverified == "ignore" else stubbed
    return Verdict(outcome, tuple(findings), unverified, (*_notes(record), *_idle(waivers, findings)), reproduce(record))


def reproduce(record: Record) -> str:
    """The one command that runs the same scenario with the same randomness again."""
    manifest = record.manifest
    return f"envctl run {manifest.scenario_file or record.scenario.name} --rng-seed {manifest.rng_seed}"


# --- findings --------------------------------------------------------------------------------------------------------


def _run_finding(id: str, outcome: Outcome, title: str, evidence: Sequence[Evidence] = ()) -> Finding:
    return Finding(id, "run", outcome, title, "run", tuple(evidence), len(evidence))


def _faults(record: Record) -> list[Finding]:
    windows = {window.id: window for window in record.faults}
    return [_fault(spec, windows.get(spec.id), record) for spec in record.scenario.faults]


def _fault(spec: FaultSpec, window: FaultWindow | None, record: Record) -> Finding:
    outcome, title = _fault_outcome(spec, window, record)
    if outcome == "pass" and window is not None and not _met(window, record):
        outcome, title = "inconclusive", f"no operation met it: {title}"
    evidence = tuple(
        Evidence(f"{edge.edge}: {edge.summary or 'failed'}", at_ns=edge.at_ns, faults=(spec.id,), detail=edge.detail)
        for edge in (window.edges if window else ()) if not edge.ok
    )
    stats = {str(edge.edge): edge.summary for edge in (window.edges if window else ()) if edge.summary}
    return Finding(f"fault:{spec.id}", spec.fault, outcome, title, "fault", evidence, len(evidence), stats)


def _met(window: FaultWindow, record: Record) -> bool:
    """Whether an operation was under way while the fault was there."""
    begin, end = window.start_ns or 0, record.end_ns if window.end_ns is None else window.end_ns
    return any(not op.unsent and op.start_ns <= end and (op.end_ns is None or op.end_ns >= begin) for op in record.operations)


def _fault_outcome(spec: FaultSpec, window: FaultWindow | None, record: Record) -> tuple[Outcome, str]:
    """What the stages say: what was left behind or didn't recover fails, what was never shown to act is inconclusive."""
    if window is None:
        held_back = next((log.message for log in record.logs if log.detail.get("not_started") == spec.id), "")
        return "inconclusive", held_back.partition(" was ")[2] or "its time never came"
    edges = {str(edge.edge): edge for edge in window.edges}
    applied = "journal" in edges and edges["journal"].ok
    for stage in ("heal", "absent"):
        if applied and stage in edges and not edges[stage].ok:
            if edges[stage].detail.get("unmeasured"):
                return "inconclusive", f"that it is gone could not be measured: {edges[stage].summary}"
            return "fail", f"it could not be healed: {stage}: {edges[stage].summary}"
    for stage, words in (("probe", "it was refused"), ("journal", "it could not be journalled"), ("apply", "it could not be applied"),
                         ("verify", "its effect could not be shown"), ("hold", "its effect did not last")):
        if stage in edges and not edges[stage].ok:
            return "inconclusive", f"{words}: {edges[stage].summary}"
    if missing := [stage for stage in ("apply", "verify", "heal", "absent") if stage not in edges]:
        return "inconclusive", f"it was cut short: nothing is recorded of {', '.join(missing)}"
    return _recovery(edges, record)


def _recovery(edges: Mapping[str, FaultEdge], record: Record) -> tuple[Outcome, str]:
    recover = edges.get("recover")
    if recover is None:
        ended = any(step.name == "run" and step.edge == "end" and not step.ok for step in record.steps)
        return "inconclusive", "the run ended before it had recovered" if ended else "nothing is recorded of a recovery from it"
    if recover.ok:
        return "pass", "; ".join(text for stage in ("verify", "absent", "recover") if (text := edges[stage].summary)) or "it acted"
    outcome, busy = outcome_of(record, recover.detail.get("conditions", ()))
    if outcome == "fail":
        return "fail", f"the system did not recover in time: {recover.summary}"
    return "inconclusive", recover.summary + busy


def _steady(record: Record) -> list[Finding]:
    """Before the first fault an unmet condition means there was nothing to hurt; after the last one it is a failure."""
    if not record.scenario.steady:
        return []
    phases = {step.detail.get("phase"): step for step in record.steps if step.name == "steady" and step.edge == "end"}
    found = []
    for phase in ("before", "after") if record.scenario.faults else ("after",):
        step = phases.get(phase)
        if step is None:
            found.append(Finding(f"steady:{phase}", "steady", "inconclusive", _phase(phase) + "was never looked at", "steady"))
            continue
        found.append(_looked_at(record, phase, step))
    return found


def _looked_at(record: Record, phase: str, step: Step) -> Finding:
    conditions = step.detail.get("conditions", ())
    outcome, busy = outcome_of(record, conditions)
    if outcome == "fail" and phase == "before":
        outcome = "inconclusive"
    bad = sorted((c for c in conditions if not c["ok"]), key=lambda c: c["ok"] is None)
    words = "held" if outcome == "pass" else "could not be measured" if bad[0]["ok"] is None else "did not hold"
    evidence = tuple(Evidence(format_answer(c), at_ns=step.at_ns) for c in bad)
    stats = {c["text"]: format_value(parse_condition(c["text"]), c["value"]) for c in conditions}
    return Finding(f"steady:{phase}", "steady", outcome, _phase(phase) + words + busy, "steady", evidence, len(evidence), stats)


def _phase(phase: str) -> str:
    return f"the steady state {'before the first fault' if phase == 'before' else 'at the end'} "


def _run(record: Record) -> list[Finding]:
    """What happened to the run as a whole: stopped early, cut short, too few operations."""
    found = [
        _run_finding("run:stop", "fail", f"a stop condition ended the run: {log.detail['stop']}",
                     [Evidence(f"{format_answer({'text': log.detail['stop'], 'value': log.detail.get('value')})}, at {log.at_ns / 1e9:.2f} s", at_ns=log.at_ns,
                               faults=record.overlapping(log.at_ns, log.at_ns))])
        for log in record.logs if "stop" in log.detail
    ]
    ends = [step for step in record.steps if step.name == "run" and step.edge == "end"]
    if not ends:
        found.append(_run_finding("run:end", "inconclusive", f"the run was cut short at {record.end_ns / 1e9:.2f} s"))
    elif not ends[-1].ok and not found:
        reason = ends[-1].detail.get("reason") or ends[-1].detail.get("error") or "no reason recorded"
        found.append(_run_finding("run:end", "inconclusive", f"the run ended early: {reason}"))
    return found + _traffic(record, stopped=bool(found))


def _traffic(record: Record, *, stopped: bool) -> list[Finding]:
    ends = [step for step in record.steps if step.name == "traffic" and step.edge == "end"]
    called, planned = len(record.operations), int(ends[-1].detail.get("planned") or 0) if ends else 0
    sent = len(counted(record.operations))
    if not called:
        return [_run_finding("run:operations", "inconclusive", "no operation was replayed")]
    if ends and not ends[-1].ok:
        return [_run_finding("run:operations", "inconclusive", f"the replay failed: {ends[-1].detail.get('error') or 'no reason'}")]
    if called < planned and not stopped:
        return [_run_finding("run:operations", "inconclusive", f"only {called:,} of {planned:,} operations were replayed")]
    if not sent or (called - sent > UNSENT * called and not stopped):
        share = f"only {sent:,} of {called:,} operations were" if sent else f"none of {called:,} operations was"
        return [_run_finding("run:operations", "inconclusive", f"{share} sent: {'; '.join(never_sent(record))}")]
    return []


def _notes(record: Record) -> tuple[str, ...]:
    unknown = sum(op.type == "info" for op in record.operations)
    notes = [f"{unknown:,} operations have an unknown outcome; they may have happened or not"] if unknown else []
    longer = [float(step.detail.get("extended_s", 0)) for step in record.steps if step.name == "traffic" and step.edge == "end"]
    notes += [f"the traffic went on {s:.1f} s longer than asked, until what the last fault left had been measured" for s in longer if s]
    return (*notes, *never_sent(record))


def _idle(waivers: Iterable[Waiver], findings: Sequence[Finding]) -> list[str]:
    """A note for each waiver that waived nothing: its finding is misnamed, or mended."""
    waived = {finding.id for finding in findings if finding.waived}
    return [f"the waiver of {w.finding} by {w.owner} waived nothing" for w in waivers if w.finding not in waived]


def _waive(finding: Finding, waivers: Iterable[Waiver]) -> Finding:
    waiver = next((w for w in waivers if w.finding == finding.id), None)
    if waiver is None or finding.outcome == "pass":
        return finding
    return replace(finding, waived=f"{waiver.owner} until {waiver.expires}: {waiver.reason}")


# --- words -------------------------------------------------------------------------------------------------


def explain(verdict: Verdict) -> list[str]:
    """The verdict for a terminal, the reason first; enough to act on."""
    lines: list[str] = []
    for finding in verdict.findings:
        if finding.outcome != "pass" and not finding.waived:
            word = "" if lines and finding.outcome == verdict.outcome else finding.outcome.upper()
            lines += _told(word, finding)
    if verdict.outcome == "pass":
        lines.append(f"{'PASS':<7} {_counted(verdict)}")
    lines += [f"        waived: {f.id}: {f.title} ({f.waived})" for f in verdict.findings if f.waived]
    if verdict.unverified:
        lines.append(f"        unverified: {', '.join(verdict.unverified)} answered by stubs")
    lines += [f"        note: {note}" for note in verdict.notes]
    if verdict.outcome != "pass" and verdict.reproduce:
        lines.append(f"        reproduce: {verdict.reproduce}")
    return lines


def _told(word: str, finding: Finding) -> list[str]:
    lines = [f"{word:<7} {finding.id}: {finding.title}"]
    for evidence in finding.evidence[:SHOWN]:
        lines += [f"          {line}" for line in evidence.summary.rstrip().splitlines()]
    more = finding.total - min(SHOWN, len(finding.evidence))
    return [*lines, f"          … and {more:,} more"] if more > 0 else lines


def _counted(verdict: Verdict) -> str:
    words = (("check", "check"), ("slo", "objective"), ("fault", "fault"))
    counts = [(sum(f.group == group and not f.waived for f in verdict.findings), word) for group, word in words]
    return ", ".join(f"{count} {word}{'s' if count != 1 else ''}" for count, word in counts if count)
