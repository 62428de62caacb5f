"""idempotent-consumer: what is delivered again has no further effect."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envctl.checks.base import Redelivery
from envctl.checks.evidence import DURATION, SHOWN, STREAM, Lives, finding
from envctl.model.event import Step
from envctl.model.verdict import Finding
from envctl.record import Record
from envctl.spec.units import duration_s

WITHIN = "60s"


class IdempotentConsumer:
    """`idempotent-consumer: {group: payments, topic: orders.placed, effects: [booked, charged], within: 60s}`.

    When all else of the run is over, the group's consumers are stopped, its offsets in the topic go back to where the run began, and the consumers
    are started again; a partition of which the group has committed nothing stays as it is.  When they have caught up (`within`), each effect has the same ids with the same values as before, each as often.
    """

    name: ClassVar[str] = "idempotent-consumer"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["group", "topic", "effects"],
        "additionalProperties": False,
        "properties": {
            "group": {"type": "string", "minLength": 1, "description": "consumer group"},
            "topic": {"type": "string", "minLength": 1, "description": "a topic that it consumes"},
            "effects": {"type": "array", "items": STREAM, "minItems": 1, "uniqueItems": True, "description": "streams that must not change"},
            "within": {**DURATION, "description": "how long the group may take to catch up again; default 60s"},
        },
    }

    @classmethod
    def redelivers(cls, params: Mapping[str, Any]) -> Redelivery:
        """See `Acting.redelivers`."""
        return Redelivery(params["group"], params["topic"], tuple(params["effects"]), duration_s(params.get("within", WITHIN)))

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The subscription and the effects, which are no operations: those stay as they are."""
        return (("subscription", f"{params['group']} of {params['topic']}"), *(("observation", effect) for effect in params["effects"]))

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Nothing: it acts after everything else."""
        del params
        return 0.0

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on effects that became others; inconclusive where nothing was delivered again, or effects could not be read."""
        step = next((s for s in reversed(record.steps) if s.name == "redeliver" and s.detail.get("check") == id), None)
        if why := _undone(step):
            return finding(id, cls.name, "inconclusive", why)
        assert step is not None
        asked, messages = cls.redelivers(params), int(step.detail["messages"])
        names = {(effect, when): asked.reading(effect, id, when) for effect in asked.effects for when in ("before", "after")}
        if unread := [why for name in names.values() if (why := record.unread(name))]:
            return finding(id, cls.name, "inconclusive", "; ".join(unread))
        stats: dict[str, Any] = {"messages": messages, **{effect: len(record.stream(names[effect, "before"])) for effect in asked.effects}}
        if not any(stats[effect] for effect in asked.effects):
            return finding(id, cls.name, "inconclusive", f"{' and '.join(asked.effects)} are empty, so that nothing could be done twice", stats=stats)
        changed = changes(record, asked, id)
        again = f"{messages:,} messages of {params['topic']} were delivered to {params['group']} again"
        if not changed:
            return finding(id, cls.name, "pass", f"{again}, without effect on {' and '.join(asked.effects)}", stats=stats)
        shown = list(changed)[:SHOWN]
        lives = Lives(record, [name for _, name in shown], {params["group"]})
        title = f"{again}, which changed {len(changed):,} in {' and '.join(dict.fromkeys(effect for effect, _ in changed))}"
        evidence = [lives.tell(name, changed[effect, name]) for effect, name in shown]
        return finding(id, cls.name, "fail", title, evidence=evidence, total=len(changed), stats=stats | {"changed": len(changed)})


def changes(record: Record, asked: Redelivery, id: str) -> dict[tuple[str, str], str]:
    """(effect, id) of what is not as it was before the redelivery, as far as that was read → how."""
    found: dict[tuple[str, str], str] = {}
    for effect in asked.effects:
        before, after = (_state(record, asked.reading(effect, id, when)) for when in ("before", "after"))
        found |= {(effect, name): _words(effect, before, after, name) for name in _ids(before - after, after - before)}
    return found


def _undone(step: Step | None) -> str:
    """Why nothing was delivered again; empty where it was."""
    if step is None:
        return "nothing was delivered again: the run did not come to that"
    if step.edge == "begin":
        return "the redelivery was cut short"
    if not step.ok:
        return f"nothing was delivered again: {step.detail.get('error', 'no reason recorded')}"
    return "" if step.detail.get("messages") else "there was nothing to deliver again"


def _state(record: Record, name: str) -> Counter[tuple[str, str]]:
    """(id, value as JSON) → how often."""
    return Counter((str(o.id), json.dumps(o.value, sort_keys=True, default=str)) for o in record.stream(name))


def _ids(*differences: Counter[tuple[str, str]]) -> list[str]:
    return list(dict.fromkeys(id for difference in differences for id, _ in difference))


def _words(effect: str, before: Counter[tuple[str, str]], after: Counter[tuple[str, str]], id: str) -> str:
    told = [", ".join(f"{count} × {value}" if value != "null" else f"{count} ×" for (each, value), count in state.items() if each == id) or "not there"
            for state in (before, after)]
    return f"in {effect} before: {told[0]}, after: {told[1]}"
