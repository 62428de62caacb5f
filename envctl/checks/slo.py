"""Objectives over the replayed traffic: availability, and latency from the intended start.

Numbers are of the SRE workbook, chapter 5: of N operations ⌊(1 − SLO)·N⌋ may be bad, and fewer than 1/(1 − SLO) operations
can't tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import ceil, inf

from envctl.checks.evidence import SHOWN, during, finding, seconds, trace_words
from envctl.model.verdict import Evidence, Finding
from envctl.record import Operation, Record

NO_TURN = "before its turn came"  # the driver's words: an earlier operation of its key kept it from being sent
STOPPED = "the replay was stopped"
WAKE_UPS = 10  # that one operation may wait for on its way, each of which a busy machine may delay as it delays the driver


def objectives(record: Record) -> tuple[Finding, ...]:
    """A finding `slo:…` for each objective of the scenario."""
    slo, ops = record.scenario.slo, counted(record.operations)
    found = [_availability(record, slo.availability, ops)] if slo.availability is not None else []
    found += [_latency(record, name, limit, timed(ops)) for name, limit in slo.latency_s.items()]
    return tuple(found)


def counted(operations: Iterable[Operation]) -> list[Operation]:
    """Those that say how the system answered: all that were sent, and those whose turn never came because it did not answer."""
    return [op for op in operations if not op.unsent or NO_TURN in op.unsent]


def timed(ops: Iterable[Operation]) -> list[Operation]:
    """Those of the counted that were answered or given up, or never had their turn; known failures are left to availability, as
    being fast would help them.
    """
    return [op for op in ops if op.type != "fail" or op.unsent]


def latency_s(op: Operation) -> float:
    """From the intended start to the answer; unbounded without one."""
    return inf if op.latency_ns is None or op.unsent else op.latency_ns / 1e9


def never_sent(record: Record) -> tuple[str, ...]:
    """What operations that were never sent were waiting for: a phrase for each reason, with their count."""
    unsent = [op.unsent for op in record.operations if op.unsent]
    turn, stopped = (sum(words in reason for reason in unsent) for words in (NO_TURN, STOPPED))
    phrases = ((len(unsent) - turn - stopped, "were never sent: what they refer to was never answered"),
               (stopped, "were never sent: the replay was stopped"),
               (turn, "never had their turn: earlier ones of their key took until the end; they count as unanswered"))
    return tuple(f"{count:,} operations {words}" for count, words in phrases if count)


def too_busy(record: Record, seen_s: float, limit_s: float) -> str:
    """Why a latency over its limit says nothing about the system: the driver's own lateness may explain it; else empty."""
    late = max((float(log.detail.get("late_p99_ms") or 0) / 1000 for log in record.logs if log.message == "replay ended"), default=0.0)
    if limit_s < WAKE_UPS * late and seen_s - limit_s <= WAKE_UPS * late:
        return f"the machine was too busy to say: the driver itself was {_milli(late)} late (p99)"
    return ""


def allowed_bad(target: float | Fraction, count: int) -> int | None:
    """How many of `count` may be bad under a target ratio; None when `count` is too small to tell."""
    share = 1 - (target if isinstance(target, Fraction) else Fraction(str(target)))
    if not count or (share and count < 1 / share):
        return None
    return int(share * count)


def _always_too_few(record: Record, target: float | Fraction) -> bool:
    """Whether no run has enough operations: the traffic is as long in each, and all of it is too little to tell.

    It is longer than asked only where a fault's recovery is waited for and the scenario says for how long it lasts.
    """
    ends = [step for step in record.steps if step.name == "traffic" and step.edge == "end"]
    planned = int(ends[-1].detail.get("planned") or 0) if ends else 0
    same = record.scenario.traffic.duration_s is None or not record.scenario.faults
    return same and planned > 0 and allowed_bad(target, planned) is None


def _availability(record: Record, target: float, sent: Sequence[Operation]) -> Finding:
    id, bad = "slo:availability", [op for op in sent if op.type != "ok"]
    allowed = allowed_bad(target, len(sent))
    unsent = len(record.operations) - len(sent)
    apart = f"; {unsent:,} more were never sent and are counted apart" if unsent else ""
    stats = {"operations": len(sent), "bad": len(bad), "unknown": sum(op.type == "info" for op in bad), "allowed": allowed,
             "unsent": unsent, "target": target}
    if allowed is None:
        title = f"{len(sent):,} operations are too few to judge an availability of {target * 100:.6g} %{apart}"
        return finding(id, "slo", "inconclusive", title, stats=stats, fixed=_always_too_few(record, target))
    title = (f"{100 - 100 * len(bad) / len(sent):.2f} % of {len(sent):,} operations were answered well "
             f"({len(bad):,} were not, {target * 100:.6g} % allows {allowed:,}){apart}")
    if len(bad) > allowed:
        return finding(id, "slo", "fail", title, evidence=causes(record, bad), total=len(bad), stats=stats)
    return finding(id, "slo", "pass", title, stats=stats)


def causes(record: Record, bad: Sequence[Operation]) -> list[Evidence]:
    """The bad operations by name and answer, the most frequent cause first."""
    causes: dict[str, list[Operation]] = {}
    for op in bad:
        answer = op.response
        words = answer.get("error") or (f"status {answer['status']}" if "status" in answer else "no answer")
        causes.setdefault(f"{op.f}: {words}", []).append(op)
    return [_group(record, cause, ops) for cause, ops in sorted(causes.items(), key=lambda item: -len(item[1]))]


def _group(record: Record, words: str, ops: Sequence[Operation]) -> Evidence:
    start, end = min(op.start_ns for op in ops), max(op.end_ns or op.start_ns for op in ops)
    faults = record.overlapping(start, end)
    traces = tuple(op.trace_id for op in ops if op.trace_id)[:SHOWN]
    text = f"{len(ops):,} × {words}, {seconds(start)} – {seconds(end)}{during(record, faults)}{trace_words(traces)}"
    return Evidence(text, ids=tuple(str(op.op) for op in ops[:SHOWN]), at_ns=start, faults=faults, traces=traces)


def share_of(name: str) -> Fraction:
    """`p95` → 95/100, `p999` → 999/1000, `max` → 1."""
    digits = name.removeprefix("p")
    return Fraction(1) if name == "max" else Fraction(int(digits), 10 ** len(digits))


def percentile(values: Sequence[float], share: Fraction) -> float:
    """The nearest-rank percentile of sorted values."""
    return values[max(0, ceil(share * len(values)) - 1)]


def _latency(record: Record, name: str, limit_s: float, ops: Sequence[Operation]) -> Finding:
    share, id = share_of(name), f"slo:{name}"
    if allowed_bad(share, len(ops)) is None:
        title = f"{len(ops):,} operations are too few to judge {name}"
        return finding(id, "slo", "inconclusive", title, stats={"operations": len(ops)}, fixed=_always_too_few(record, share))
    values = sorted(latency_s(op) for op in ops)
    seen = percentile(values, share)
    slow = [op for op in ops if latency_s(op) > limit_s]
    stats = {"operations": len(ops), "seconds": None if seen == inf else seen, "limit_s": limit_s, "slower": len(slow),
             "p50_s": percentile(values, Fraction(1, 2))}
    title = f"{name} is {_milli(seen)}, at most {_milli(limit_s)} asked ({len(ops):,} operations)"
    if seen > limit_s and (busy := too_busy(record, seen, limit_s)):
        return finding(id, "slo", "inconclusive", f"{title}; {busy}", evidence=slowest(record, slow), total=len(slow), stats=stats)
    if seen > limit_s:
        return finding(id, "slo", "fail", title, evidence=slowest(record, slow), total=len(slow), stats=stats)
    return finding(id, "slo", "pass", title, stats=stats)


def _milli(value_s: float) -> str:
    return "unbounded" if value_s == inf else f"{value_s * 1000:,.0f} ms"


def slowest(record: Record, slow: Sequence[Operation]) -> list[Evidence]:
    """The slowest of operations that were too slow, each with its trace and the faults around it."""
    told = []
    for op in sorted(slow, key=latency_s, reverse=True)[:SHOWN]:
        end = op.end_ns if op.end_ns is not None else record.end_ns
        faults = record.overlapping(op.due_ns, end)
        traces = (op.trace_id,) if op.trace_id else ()
        text = f"{op.f} #{op.op} due {seconds(op.due_ns)} took {_milli(latency_s(op))}{during(record, faults)}{trace_words(traces)}"
        told.append(Evidence(text, ids=(str(op.op),), at_ns=op.due_ns, faults=faults, traces=traces))
    return told
