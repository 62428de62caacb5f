"""Replayed operations as a history of objects, by what a check's parameters say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envctl.checks.evidence import during, roots_of, seconds, trace_words
from envctl.model import history
from envctl.model.verdict import Evidence
from envctl.record import Operation, Record, pick

READS = ("read", "r")
DOES: Mapping[str, tuple[str, ...]] = {
    "register": ("read", "write", "cas"), "counter": ("read", "add"), "set": ("read", "add"), "append-list": ("read", "append"),
    "list-append": ("txn",), "rw-register": ("txn",),
}
"""Model → what an operation may be."""
WRITES = {"list-append": "append", "rw-register": "w"}  # beside `r`, in a transaction
EXPRESSION = {"type": "string", "pattern": r"^(key$|request\.|response\.)", "description": "key, request.… or response.…"}
STEP = {"type": "array", "prefixItems": [{"type": "string"}, EXPRESSION, EXPRESSION], "minItems": 3, "maxItems": 3, "items": False}
OPERATIONS: Mapping[str, Any] = {
    "type": "object",
    "minProperties": 1,
    "description": "name of an operation → what it does to which object",
    "additionalProperties": {
        "type": "object",
        "required": ["f", "value"],
        "additionalProperties": False,
        "properties": {
            "f": {"enum": sorted({f for each in DOES.values() for f in each})},
            "key": {**EXPRESSION, "description": "which object; without it the operation's own key"},
            "value": {"description": "what is read or written; [old, new] of a cas; [[r, key, value], …] of a txn", "oneOf": [
                EXPRESSION, {"type": "array", "items": EXPRESSION, "minItems": 2, "maxItems": 2},
                {"type": "array", "items": STEP, "minItems": 1}]},
        },
    },
}
ASKED = re.compile(r"key$|request\.")


def wrong(params: Mapping[str, Any], model: str) -> Iterator[tuple[Sequence[str], str]]:
    """(place, why) of each operation that can't be one of the model."""
    for name, does in params["operations"].items():
        at = ("operations", name)
        f, value = does["f"], does["value"]
        if f not in DOES[model]:
            yield (*at, "f"), f"found {f!r}, allowed for a {model}: {', '.join(DOES[model])}"
        elif f == "txn" and not (isinstance(value, list) and all(isinstance(step, list) for step in value)):
            yield (*at, "value"), f"found {value!r}, allowed for a txn: [[r, KEY, VALUE], [{WRITES[model]}, KEY, VALUE], …]"
        elif f == "cas" and not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
            yield (*at, "value"), f"found {value!r}, allowed for a cas: [OLD, NEW]"
        elif f not in ("cas", "txn") and not isinstance(value, str):
            yield (*at, "value"), f"found {value!r}, allowed for a {f}: one expression"
        else:
            yield from ((at, why) for why in _untold(model, does))


def _untold(model: str, does: Mapping[str, Any]) -> Iterator[str]:
    """What must be known of an operation that was not answered, but is asked of its answer."""
    f, value = does["f"], does["value"]
    steps = value if f == "txn" else [[f, does.get("key", "key"), each] for each in ([value] if isinstance(value, str) else value)]
    for what, key, each in steps:
        if f == "txn" and what not in ("r", WRITES[model]):
            yield f"found {what!r}, allowed in a txn of {model}: r, {WRITES[model]}"
        for part in (key,) if what in READS else (key, each):
            if not ASKED.match(part):
                yield f"found {part!r}, allowed for a key and what is written: key or request.…, as an operation without an answer may have taken effect, too"


def history_of(record: Record, params: Mapping[str, Any]) -> list[history.Operation]:
    """The operations that the parameters name, in the order of time; those that were never sent are none.

    Where an invocation and a completion have the same time, the invocation comes first: the two overlap.
    """
    chosen = [op for op in record.operations if op.f in params["operations"] and not op.unsent]
    edges = sorted([(op.start_ns, 0, op.op) for op in chosen] + [(op.end_ns, 1, op.op) for op in chosen if op.end_ns is not None])
    places = {(kind, number): place for place, (_, kind, number) in enumerate(edges, 1)}
    made = [_operation(op, params, places[0, op.op], places.get((1, op.op))) for op in chosen]
    return sorted(made, key=lambda each: each.began)


def _operation(op: Operation, params: Mapping[str, Any], began: int, ended: int | None) -> history.Operation:
    does, roots = params["operations"][op.f], roots_of(op)
    f, value = does["f"], does["value"]
    asked = told = None
    if f == "txn":
        asked = [[what, _key(key, roots), None if what in READS else pick(each, roots)] for what, key, each in value]
        told = [[what, _key(key, roots), pick(each, roots)] for what, key, each in value]
    elif f in READS:
        told = pick(value, roots)
    else:
        asked = [pick(each, roots) for each in value] if f == "cas" else pick(value, roots)
    key = None if f == "txn" else _key(does.get("key", "key"), roots)
    process = str(pick(params["process"], roots)) if "process" in params else op.process
    until = seconds(op.end_ns) if op.end_ns is not None and op.type != "info" else "unknown"
    return history.Operation(op.op, process, f, key, asked, told if op.type == "ok" else None, op.type, began,
                             None if op.type == "info" else ended, op.start_ns, f"{op.f} #{op.op}, {seconds(op.start_ns)} – {until}")


def _key(expression: str, roots: Mapping[str, Any]) -> Any:
    found = pick(expression, roots)
    return found if type(found) in (int, str, type(None)) else str(found)


def nothing_written(each: history.Operation) -> bool:
    """Whether what an operation writes was not found: an expression that leads nowhere, and not a null that somebody wrote."""
    if each.f == "txn":
        return any(value is None for what, _, value in each.asked if what not in READS)
    return each.f not in READS and (each.asked is None or (each.f == "cas" and each.asked[1] is None))


def asks(operations: Sequence[history.Operation]) -> bool:
    """Whether any answer says something of the state of an object."""
    return any(each.outcome == "ok" and (each.f in ("read", "cas") or (each.f == "txn" and any(what in READS for what, *_ in each.told)))
               for each in operations)


def at_once(operations: Sequence[history.Operation], record: Record) -> history.Operation | None:
    """The first operation that began before its process had been told of another one, if any."""
    until: dict[int | str, int] = {}
    for each in operations:
        op = record.by_number(each.index)
        assert op is not None
        if op.start_ns < until.get(each.process, 0):
            return each
        until[each.process] = op.end_ns if op.end_ns is not None else record.end_ns
    return None


def placed(record: Record, evidence: Evidence) -> Evidence:
    """Evidence whose ids are numbers of operations, with their traces and the faults that they overlap."""
    ops = [op for id in evidence.ids if (op := record.by_number(int(id))) is not None]
    if not ops:
        return evidence
    start, end = min(op.start_ns for op in ops), max(record.end_ns if op.end_ns is None else op.end_ns for op in ops)
    faults = record.overlapping(start, end)
    traces = tuple(dict.fromkeys(op.trace_id for op in ops if op.trace_id))
    return Evidence(f"{evidence.summary}{during(record, faults)}{trace_words(traces)}", evidence.ids, start, faults, traces, evidence.detail)
