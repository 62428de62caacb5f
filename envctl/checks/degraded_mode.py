"""degraded-mode: while one part is down, another one still answers as declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, ClassVar

from envctl.checks.evidence import SHOWN, during, finding, roots_of, seconds, trace_words
from envctl.checks.no_duplicates import same
from envctl.checks.slo import causes, counted, latency_s, percentile, share_of, slowest, timed, too_busy
from envctl.model.scenario import Condition
from envctl.model.verdict import Evidence, Finding
from envctl.record import FaultWindow, Operation, Record, pick
from envctl.spec.conditions import COMPARE, MEASURES, format_value, parse_condition

Span = tuple[int, int]
TRAFFIC = "traffic"
ALLOWED = tuple(name for name, (_, subject) in MEASURES.items() if subject == TRAFFIC and name != "throughput")


class DegradedMode:
    """`degraded-mode: {while: partition, operation: browse, expect: {success_rate: ">= 99 %", p95: "< 400 ms"}}`.

    The operations that were due while the fault (or any of several, or any that had taken down all nodes of `{down: COMPONENT}`) was proven to
    act are as `expect` says, taken together, and each was answered as `answers` says (expressions of the answer, such as
    `response.status: 503`).  A fault acts from when it was verified until it was last seen to, or was gone.
    """

    name: ClassVar[str] = "degraded-mode"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["while", "operation"],
        "anyOf": [{"required": ["expect"]}, {"required": ["answers"]}],
        "additionalProperties": False,
        "properties": {
            "while": {
                "description": "id of a fault, a list of them, or {down: COMPONENT}",
                "oneOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "uniqueItems": True},
                    {"type": "object", "required": ["down"], "additionalProperties": False, "properties": {"down": {"type": "string"}}},
                ],
            },
            "operation": {"type": "string", "minLength": 1, "description": "name of an operation, or traffic for all"},
            "expect": {"type": "object", "minProperties": 1, "additionalProperties": {"type": "string"},
                       "description": "measure → comparison, such as success_rate: '>= 99 %'"},
            "answers": {"type": "object", "minProperties": 1, "propertyNames": {"pattern": r"^response\..+"},
                        "description": "expression → value, such as response.status: 503"},
        },
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The faults or the component, and the operation."""
        what = params["while"]
        down = [("component", what["down"])] if isinstance(what, Mapping) else [("fault", id) for id in _ids(what)]
        operation = params["operation"]
        return (*down, *([("operation", operation)] if operation != TRAFFIC else []))

    @classmethod
    def wrong(cls, params: Mapping[str, Any]) -> Iterator[tuple[Sequence[str], str]]:
        """Expectations that are none."""
        for measure, text in params.get("expect", {}).items():
            if measure not in ALLOWED:
                yield ("expect", measure), f"no measure is called {measure!r}, allowed: {', '.join(ALLOWED)}"
                continue
            try:
                _condition(params, measure, text)
            except ValueError as error:
                yield ("expect", measure), str(error)

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """What was answered meanwhile can't change any more; nothing to wait for."""
        del params
        return 0.0

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on unmet expectations and other answers; inconclusive where the fault was not shown to act or nothing was due meanwhile."""
        spans, words = _spans(record, params["while"])
        if not spans:
            return finding(id, cls.name, "inconclusive", words)
        name = params["operation"]
        due = [op for op in counted(record.operations) if name in (TRAFFIC, op.f) and any(a <= op.due_ns < b for a, b in spans)]
        when = f"while {words} ({', '.join(f'{seconds(a)} – {seconds(b)}' for a, b in spans)})"
        if not due:
            return finding(id, cls.name, "inconclusive", f"{when} no {name} was due", stats={"operations": 0})
        conditions = [_condition(params, measure, text) for measure, text in params.get("expect", {}).items()]
        values = {condition: _value(condition, due) for condition in conditions}
        unmet = [c for c in conditions if (value := values[c]) is not None and not COMPARE[c.comparison](value, c.threshold)]
        other = [op for op in due if _differs(op, params.get("answers", {}))]
        stats = {"operations": len(due), "other_answers": len(other), **{c.measure: format_value(c, values[c]) for c in conditions}}
        told = [f"{c.measure} {format_value(c, values[c])}" for c in conditions] + (["every answer as declared"] if "answers" in params else [])
        if not unmet and not other:
            unknown = any(value is None for value in values.values())
            title = f"{when} {len(due):,} {name} had {', '.join(told)}"
            return finding(id, cls.name, "inconclusive" if unknown else "pass", title, stats=stats)
        title = f"{when} {name} was not as declared: " + "; ".join(
            [f"{c.measure} was {format_value(c, values[c])}, {_asked(c)} asked ({len(due):,} operations)" for c in unmet]
            + ([f"{len(other):,} of {len(due):,} were answered otherwise"] if other else []))
        if not other and (busy := [_busy(record, c, values[c]) for c in unmet]) and all(busy):
            return finding(id, cls.name, "inconclusive", f"{title}; {busy[0]}", evidence=_evidence(record, unmet, due), stats=stats)
        evidence = [*(_told(record, op, params["answers"]) for op in other[:SHOWN]), *_evidence(record, unmet, due)]
        return finding(id, cls.name, "fail", title, evidence=evidence, total=max(len(other), len(evidence)), stats=stats)


def _ids(what: str | Sequence[str]) -> Sequence[str]:
    return [what] if isinstance(what, str) else what


def _condition(params: Mapping[str, Any], measure: str, text: str) -> Condition:
    return parse_condition(f"{measure}({params['operation']}) {text}")


def _asked(condition: Condition) -> str:
    return condition.text.partition(")")[2].strip()


# --- when it acted ---------------------------------------------------------------------------------------------------


def _spans(record: Record, what: Any) -> tuple[list[Span], str]:
    """When the faults acted, and what that is called; why it is not known, where there is no such time."""
    windows = {window.id: window for window in record.faults}
    if isinstance(what, Mapping):
        down, words = [w for w in record.faults if _takes_down(record, w, what["down"])], f"{what['down']} was down"
        missing = f"no fault was shown to have taken down all nodes of {what['down']}"
    else:
        down, words = [windows[id] for id in _ids(what) if id in windows], f"{' or '.join(_ids(what))} acted"
        missing = f"{' and '.join(_ids(what))} was not shown to act, or never seen to end"
    return [span for window in down if (span := acted(window)) is not None], words if any(map(acted, down)) else missing


def acted(window: FaultWindow) -> Span | None:
    """From when a fault was verified until it was last seen to act or, where it is not held, was gone; None where it never was."""
    begin, held, gone = window.edge("verify"), window.edge("hold"), window.edge("absent")
    end = held if held is not None and held.ok else gone
    if begin is None or not begin.ok or end is None or not end.ok or (held is not None and not held.ok):
        return None
    return begin.at_ns, end.at_ns


def _takes_down(record: Record, window: FaultWindow, component: str) -> bool:
    """Whether all nodes of a component are among those that a fault has proven to have ended or stopped."""
    proof = window.edge("verify")
    named = [*proof.detail.get("nodes", ()), *proof.detail.get("paused", ())] if proof else []
    hit = {str(each.get("node") if isinstance(each, Mapping) else each) for each in named}
    nodes = {node.name for node in record.manifest.nodes if node.component == component}
    return bool(nodes) and nodes <= hit


# --- what was answered meanwhile -------------------------------------------------------------------------------------


def _value(condition: Condition, due: Sequence[Operation]) -> float | None:
    """A measure over the operations; None for a latency where none was answered or given up."""
    if condition.measure in ("success_rate", "error_rate"):
        good = sum(op.type == "ok" for op in due) / len(due)
        return good if condition.measure == "success_rate" else 1 - good
    values = sorted(latency_s(op) for op in timed(due))
    return percentile(values, Fraction(share_of(condition.measure))) if values else None


def _busy(record: Record, condition: Condition, value: float | None) -> str:
    timed = MEASURES[condition.measure][0] == "time"
    return too_busy(record, value, condition.threshold) if timed and value is not None else ""


def _differs(op: Operation, answers: Mapping[str, Any]) -> bool:
    roots = roots_of(op) if answers else {}
    return any(not same(pick(expression, roots), value) for expression, value in answers.items())


def _evidence(record: Record, unmet: Sequence[Condition], due: Sequence[Operation]) -> list[Evidence]:
    """The causes of bad answers, and the slowest operations, where those are what was asked for."""
    bad = [op for op in due if op.type != "ok"] if any(MEASURES[c.measure][0] == "ratio" for c in unmet) else []
    limits = [c.threshold for c in unmet if MEASURES[c.measure][0] == "time"]
    slow = [op for op in timed(due) if latency_s(op) > min(limits)] if limits else []
    return [*causes(record, bad), *slowest(record, slow)]


def _told(record: Record, op: Operation, answers: Mapping[str, Any]) -> Evidence:
    roots = roots_of(op)
    found = ", ".join(f"{expression} was {pick(expression, roots)!r}, {value!r} declared" for expression, value in answers.items()
                      if not same(pick(expression, roots), value))
    faults = record.overlapping(op.start_ns, op.end_ns if op.end_ns is not None else record.end_ns)
    traces = (op.trace_id,) if op.trace_id else ()
    text = f"{op.f} #{op.op} at {seconds(op.start_ns)}: {found}{during(record, faults)}{trace_words(traces)}"
    return Evidence(text, ids=(str(op.op),), at_ns=op.start_ns, faults=faults, traces=traces)
