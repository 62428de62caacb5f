"""linearizable, serializable, strict-serializable, session: what clients were told of objects could have been so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from envctl.checks.evidence import finding
from envctl.checks.replayed import EXPRESSION, OPERATIONS, asks, at_once, history_of, nothing_written, placed, wrong
from envctl.consistency import PROPERTIES
from envctl.model.history import History
from envctl.model.verdict import Finding
from envctl.record import Record

BUDGET = 1_000_000  # states of one object: about ten seconds


def _schema(name: str, **more: Any) -> Mapping[str, Any]:
    properties = {"model": {"enum": list(PROPERTIES[name].models)}, "operations": OPERATIONS, "budget": {"type": "integer", "minimum": 1}}
    return {"type": "object", "required": ["operations"], "additionalProperties": False, "properties": properties | more}


class Consistent:
    """`NAME: {model: register, operations: {get: {f: read, key: request.id, value: response.value}, put: {…}}}`.

    The replayed operations that are named make a history of objects (docs/history-format.md), which `envctl check` would judge in the same
    way.  An object that takes more than `budget` states to be told is inconclusive, and so are answers that do not fit the model.
    """

    name: ClassVar[str]
    schema: ClassVar[Mapping[str, Any]]

    @classmethod
    def model(cls, params: Mapping[str, Any]) -> str:
        """What the objects are; the first model of the property where none is named."""
        return str(params.get("model", next(iter(PROPERTIES[cls.name].models))))

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The operations."""
        return tuple(("operation", name) for name in params["operations"])

    @classmethod
    def wrong(cls, params: Mapping[str, Any]) -> Iterator[tuple[Sequence[str], str]]:
        """Operations that the model does not have."""
        return wrong(params, cls.model(params))

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """What was answered can't change any more; nothing to wait for."""
        del params
        return 0.0

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """What the property says of the history; inconclusive where nothing was read, or an answer does not fit."""
        operations, model = history_of(record, params), cls.model(params)
        if why := cls.unfit(operations, model, record):
            return finding(id, cls.name, "inconclusive", why, stats={"operations": len(operations), "model": model})
        (found,) = PROPERTIES[cls.name].judge(History(operations), model, params.get("budget", BUDGET))
        return replace(found, id=id, evidence=tuple(placed(record, each) for each in found.evidence))

    @classmethod
    def unfit(cls, operations: Sequence[Any], model: str, record: Record) -> str:
        """Why the operations can't be judged; empty where they can."""
        del record
        if not asks(operations):
            return "nothing was read, so every order of what was written is right"
        fits = PROPERTIES[cls.name].models[model]
        misfits = [(each, why[2]) for each in operations if (why := fits(each))]
        misfits += [(each, "what it writes is not in its request") for each in operations if nothing_written(each)]
        if not misfits:
            return ""
        return f"{len(misfits):,} of {len(operations):,} operations don't fit, such as {misfits[0][0].where}: {misfits[0][1]}"


class Linearizable(Consistent):
    """Each operation took effect at one instant between its start and its answer."""

    name: ClassVar[str] = "linearizable"
    schema: ClassVar[Mapping[str, Any]] = _schema(name)


class Serializable(Consistent):
    """The transactions have a serial order that explains all they read."""

    name: ClassVar[str] = "serializable"
    schema: ClassVar[Mapping[str, Any]] = _schema(name)


class StrictSerializable(Consistent):
    """They have one that agrees with time."""

    name: ClassVar[str] = "strict-serializable"
    schema: ClassVar[Mapping[str, Any]] = _schema(name)


class Session(Consistent):
    """Each process sees its own past.  A process is the client that replays a key, or what `process` names."""

    name: ClassVar[str] = "session"
    schema: ClassVar[Mapping[str, Any]] = _schema(name, process={**EXPRESSION, "description": "whose session an operation belongs to"})

    @classmethod
    def unfit(cls, operations: Sequence[Any], model: str, record: Record) -> str:
        """Besides, a session does one operation at a time."""
        if each := at_once(operations, record):
            return f"{each.where} began before its session {each.process} had an answer; `in_order_by` keeps the order of a key"
        return super().unfit(operations, model, record)
