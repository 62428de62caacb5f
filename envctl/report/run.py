"""What ran, what came of it in numbers, and where it is written down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction
from math import inf
from pathlib import Path

from envctl.checks.slo import counted, latency_s, percentile, timed
from envctl.model.event import Sample
from envctl.model.verdict import Finding
from envctl.record import Operation
from envctl.report import words
from envctl.report.lag import LAG, peak_lag
from envctl.report.model import ComponentRow, Figures, FileRow, Link, NodeRow, Objective, PostMortem, Run
from envctl.report.subject import Subject
from envctl.telemetry.measures import peaks

_WHY = {"changed": "changed", "needed": "needed by what takes part", "scenario": "takes part in the scenario", "asked": "asked for",
        "full": "the full topology"}
_FILES = (("run.json", "what ran"), ("verdict.json", "the verdict"), ("events.jsonl", "the record: every event, one a line"),
          ("inputs/scenario.yaml", "the scenario as it was"), ("inputs/topology.yaml", "the topology as it was"),
          ("telemetry/telemetry.sqlite", "spans and metrics"), ("runner.log", "the runner's own output"),
          ("error.json", "why the run broke off"), ("report.json", "this report for machines"), ("report.md", "this report, short"),
          ("junit.xml", "the findings as test cases"), ("shrunk.yaml", "the smallest scenario found that fails so"))


def run(subject: Subject) -> Run:
    """The run's identity, from its manifest and its scenario."""
    manifest, scenario = subject.manifest, subject.scenario
    ends = [step for step in subject.steps if step.name == "run" and step.edge == "end"]
    return Run(
        id=manifest.id, scenario=manifest.scenario, description=scenario.description, owner=scenario.owner, stack=manifest.stack,
        commit=manifest.commit, branch=manifest.branch, seed=manifest.seed, rng_seed=manifest.rng_seed,
        repetition=manifest.repetition, started_at=datetime.fromtimestamp(manifest.started_at, UTC).isoformat(timespec="seconds"),
        duration_s=subject.end_ns / 1e9 if subject.record else None, whole=bool(ends) and ends[-1].ok is True,
        machine=manifest.machine, versions=manifest.versions,
    )


def figures(subject: Subject) -> Figures:
    """The numbers at a glance."""
    ops = counted(subject.operations)
    ok = sum(op.type == "ok" for op in ops)
    latencies = sorted(map(latency_s, timed(ops)))
    p50, p95, p99 = (_bounded(latencies, Fraction(share, 100)) for share in (50, 95, 99))
    spans, traces = _spans(subject)
    return Figures(
        operations=len(subject.operations), ok=ok, failed=sum(op.type == "fail" for op in ops),
        unknown=sum(op.type == "info" for op in ops), unsent=len(subject.operations) - len(ops),
        success=ok / len(ops) if ops else None, p50_s=p50, p95_s=p95, p99_s=p99, rate_per_s=_rate(ops),
        peak_lag=peak_lag(subject.samples(LAG)), spans=spans, traces=traces, late_p99_s=_late(subject),
    )


def _bounded(values: Sequence[float], share: Fraction) -> float | None:
    found = percentile(values, share) if values else inf
    return None if found == inf else found


def _rate(sent: Sequence[Operation]) -> float | None:
    if len(sent) < 2:
        return None
    span_s = (max(op.due_ns for op in sent) - min(op.due_ns for op in sent)) / 1e9
    return (len(sent) - 1) / span_s if span_s else None


def _spans(subject: Subject) -> tuple[int, int]:
    if subject.spans is None:
        return 0, 0
    ((spans, traces),) = subject.spans.query("select count(*), count(distinct trace_id) from spans")
    return int(spans), int(traces)


def _late(subject: Subject) -> float | None:
    late = [log.detail["late_p99_ms"] for log in subject.logs if "late_p99_ms" in log.detail]
    return float(late[-1]) / 1000 if late and late[-1] is not None else None


def objectives(findings: Sequence[Finding]) -> tuple[Objective, ...]:
    """The objectives among the findings, with their error budgets."""
    return tuple(_objective(finding) for finding in findings if finding.group == "slo")


def _objective(finding: Finding) -> Objective:
    stats = finding.stats
    if "target" in stats:
        good = 1 - stats["bad"] / stats["operations"] if stats.get("operations") else None
        return Objective(id=finding.id, outcome=finding.outcome, title=finding.title, asked=f"at least {words.percent(stats['target'])}",
                         seen=words.percent(good), allowed=stats.get("allowed"), used=stats.get("bad"))
    if "limit_s" in stats:
        name = finding.id.partition(":")[2]
        seen = stats.get("seconds")
        return Objective(id=finding.id, outcome=finding.outcome, title=finding.title, asked=f"{name.replace('_', ' ')} at most {words.duration(stats['limit_s'])}",
                         seen=words.duration(seen) if seen is not None else "unbounded", allowed=_slower_allowed(name, stats.get("operations")),
                         used=stats.get("slower"))
    return Objective(id=finding.id, outcome=finding.outcome, title=finding.title, asked=words.NONE, seen=words.NONE, allowed=None, used=None)


def _slower_allowed(name: str, operations: int | None) -> int | None:
    """How many may be slower than a percentile's limit: p95 leaves 5 in 100."""
    digits = name.removeprefix("p")
    if operations is None or not digits.isdigit():
        return 0 if name == "max" else None
    return int((1 - Fraction(int(digits), 10 ** len(digits))) * operations)


def cost(subject: Subject) -> dict[str, tuple[float, float]]:
    """Cores that envctl's own processes took: by role, mean and peak."""
    roles: dict[str, list[float]] = {}
    for sample in subject.samples("envctl.cpu"):
        if sample.value is not None:
            roles.setdefault(str(sample.attrs.get("role")), []).append(sample.value)
    return {role: (sum(values) / len(values), max(values)) for role, values in roles.items()}


def nodes(subject: Subject) -> tuple[NodeRow, ...]:
    """The nodes in the order of their names."""
    cpu, memory = (peaks(_by_node(subject.samples(measure))) for measure in ("process.cpu", "process.memory"))
    ends: dict[str, list[str]] = {}
    for log in subject.logs:
        if "node" in log.detail:
            ends.setdefault(str(log.detail["node"]), []).append(f"exit {log.detail.get('exit_status')} at {words.instant(log.at_ns / 1e9)}")
    return tuple(
        NodeRow(name=node.name, component=node.component, kind=node.kind, zone=node.zone,
                version=subject.manifest.versions.get(node.component, ""), restarts=len(ends.get(node.name, ())),
                exits=", ".join(ends.get(node.name, ())[:3]), peak_cpu=cpu.get(node.name), peak_memory=memory.get(node.name),
                log=_log(subject.directory, node.name))
        for node in sorted(subject.manifest.nodes, key=lambda node: node.name)
    )


def _by_node(samples: Sequence[Sample]) -> Iterator[tuple[str, float | None]]:
    return ((str(sample.attrs.get("node")), sample.value) for sample in samples)


def _log(directory: Path, node: str) -> str:
    return f"logs/{node}.log" if "/" not in node and (directory / "logs" / f"{node}.log").is_file() else ""


def components(subject: Subject) -> tuple[ComponentRow, ...]:
    """Every component, in topology order: what took part and why, what was stubbed, what was left out."""
    manifest = subject.manifest
    chosen = {selection.component: selection for selection in manifest.components}
    kinds = {name: one.kind for name, one in subject.topology.components.items()} if subject.topology else {}
    rows = []
    for name in dict.fromkeys((*kinds, *chosen, *manifest.stubbed, *manifest.left_out)):
        selection = chosen.get(name)
        if selection:
            rows.append(ComponentRow(name=name, kind=kinds.get(name, ""), part="in", why=_WHY.get(selection.why, selection.why),
                                     because=selection.because))
        elif name in manifest.stubbed:
            rows.append(ComponentRow(name=name, kind=kinds.get(name, ""), part="stubbed", why="called, and answered by a stub: unverified", because=()))
        else:
            rows.append(ComponentRow(name=name, kind=kinds.get(name, ""), part="out", why="left out", because=()))
    return tuple(rows)


def links(subject: Subject) -> tuple[Link, ...]:
    """Who needs, calls and feeds whom, as the topology declares it."""
    if subject.topology is None:
        return ()
    found: dict[Link, None] = {}
    everything = subject.topology.components
    for name, component in everything.items():
        for need in component.needs:
            found[Link(name, need, "needs")] = None
        for callee, protocol in getattr(component, "calls", {}).items():
            found[Link(name, callee, "calls", protocol)] = None
        for topic in getattr(component, "publishes", ()):
            for reader, other in everything.items():
                if any(one.topic == topic for one in getattr(other, "consumes", ())):
                    found[Link(name, reader, "sends", topic)] = None
    return tuple(found)


def files(directory: Path) -> tuple[FileRow, ...]:
    """The files of the run that a person may want to open."""
    found = [FileRow(path, what, (directory / path).stat().st_size) for path, what in _FILES if (directory / path).is_file()]
    logs = sorted((directory / "logs").glob("*.log")) if (directory / "logs").is_dir() else []
    return (*found, *(FileRow(f"logs/{log.name}", f"output of {log.stem}", log.stat().st_size) for log in logs[:200]))


def post_mortem(subject: Subject, findings: Sequence[Finding], asked: Sequence[str]) -> PostMortem:
    """What was tried, expected and seen; the rest is for people."""
    scenario = subject.scenario
    slo = scenario.slo
    expected = [f"steady state: {condition.text}" for condition in scenario.steady]
    expected += [f"while faults act: {condition.text}" for condition in scenario.during]
    expected += [f"{check.check}: {words.pairs(check.params)}" for check in scenario.checks]
    expected += [f"availability of at least {words.percent(slo.availability)}"] if slo.availability is not None else []
    expected += [f"{name} of at most {words.duration(limit)}" for name, limit in slo.latency_s.items()]
    times = (("detect", slo.detect_s), ("recover", slo.recover_s))
    expected += [f"time to {what} of at most {words.duration(limit)}" for what, limit in times if limit is not None]
    unmet = [f"{finding.id}: {finding.title}" for finding in findings if finding.outcome != "pass"]
    seen = unmet or ([f"all {len(findings)} findings pass"] if findings else ["nothing was judged yet"])
    return PostMortem(tried=tuple(asked), expected=tuple(expected), seen=tuple(seen), owner=scenario.owner)
