"""The contract of every check: a pure function from a run's record to a finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from envctl.model.verdict import Finding
from envctl.record import Record


class Check(Protocol):
    """A plug-in of the entry-point group `envctl.checks`: a class with this shape.

    A check never looks beyond the record.  Where the record can't answer (no samples, telemetry lost, a stream that could
    not be read) it is `inconclusive` and says why.  A check that raises is reported as inconclusive with its traceback.
    """

    name: ClassVar[str]
    schema: ClassVar[Mapping[str, Any]]  # JSON Schema of its parameters in a scenario

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """The finding under `id`."""

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """(kind, name) pairs of what the parameters name.

        A kind is "stream", "group", "component", "topic" (that a stream observes), "operation", "fault" (its id),
        "subscription" ("GROUP of TOPIC") or "observation" (a stream that is none of operations).
        """

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """How long after the traffic this check's condition may take to come true (its `within`); 0 when it can't change."""


class Particular(Protocol):
    """What a check may have beside, where its schema can't say all that is wrong with its parameters."""

    @classmethod
    def wrong(cls, params: Mapping[str, Any]) -> Iterable[tuple[Sequence[str], str]]:
        """(place, why) of each problem in parameters that fit the schema; the place leads from the parameters to what is wrong."""


@dataclass(frozen=True, slots=True)
class Redelivery:
    """All that a consumer group has had of a topic since the run began is to be delivered to it again."""

    group: str
    topic: str
    effects: tuple[str, ...]  # streams that are read before and after
    within_s: float  # for the group to catch up again

    @staticmethod
    def reading(effect: str, check: str, when: str) -> str:
        """The name under which a reading of an effect is in the record: beside the stream, which others judge."""
        return f"{effect}@{check}.{when}"


class Acting(Protocol):
    """What a check may have beside, where its evidence must be brought about when all else of a run is over."""

    @classmethod
    def redelivers(cls, params: Mapping[str, Any]) -> Redelivery:
        """What is delivered again; the step `redeliver` of the record, with `check`, tells how that went."""
