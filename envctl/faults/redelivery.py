"""Redelivery: a consumer group goes back over messages that it has handled, as after a restored coordinator or an operator's reset.

Kafka lets nobody set the offsets of a group that has members.  So all of them are removed by the admin API, and the offsets are set in
the moment before they notice and join again: their own commits are refused from then on, and they start where the group now stands.
That is how it goes for classic and for KIP-848 groups.

The proof is the group's own log of commits in `__consumer_offsets`: our commit, which bears our note, one behind it that is past where
the group had been, and a sign that messages in between came again: a commit between the two, one of where it had been by a consumer
that had read the message before it, or a span of their processing.  A consumer that goes its own way, by seeking, leaves no such signs.
One is enough, because the members of a group go by its offsets or do not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from envctl.engines.cluster import admin
from envctl.engines.group_offsets import Place, committed, move
from envctl.engines.group_records import UNREAD, Commit, commits, end_of_records
from envctl.errors import ResourceError, UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.rebalance import consumers, describe, settled
from envctl.faults.targets import slug
from envctl.model.topology import Kafka, Service, Topology
from envctl.telemetry import raw
from envctl.telemetry.store import handled
from envctl.waiting import until

BACK = 20
RESET_S = 20.0  # how long the members may keep coming back before the offsets are set
PASS_S = 60.0  # how long the group may take to be where it was
POLL_S = 0.3


@dataclass(frozen=True, slots=True)
class Reset:
    """What was done to one partition's committed offset."""

    before: int
    to: int


class Redelivery:
    """`{fault: redelivery, group: payments, back: 20, topic: orders.placed}`: as many messages of each partition again."""

    name: ClassVar[str] = "redelivery"
    mechanism: ClassVar[str] = "the group's offsets set back in the moment after an eviction"
    proof: ClassVar[str] = "our commit in the group's log, later ones that pass it, commits or spans in between"
    tools: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["group"],
        "additionalProperties": False,
        "properties": {
            "group": {"type": "string", "description": "consumer group"},
            "back": {"type": "integer", "minimum": 1, "description": f"how many messages of each partition come again, as far as they are kept; default: {BACK}"},
            "topic": {"type": "string", "description": "only messages of this topic; default: all that the group consumes"},
        },
    }
    instantaneous = True

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._group: str = params["group"]
        self._back: int = params.get("back", BACK)
        self._topic: str | None = params.get("topic")
        self._world = world
        self._note = f"envctl redelivery {world.scratch.name}"
        self._start = 0  # in the group's records
        self._since = (0, 0)  # where the spans end that had come before, and when it was set back, Unix ns
        self._resets: Mapping[Place, Reset] = {}
        self._others: Mapping[tuple[str, str, int], int] = {}  # what other groups had committed

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Redelivery:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The group, and the topic."""
        return [(name, params[name]) for name in ("group", "topic") if isinstance(params.get(name), str)]

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:
        """See `FaultKind.unfit`: the group must consume the topic."""
        consumed = [each for one in topology.components.values() if isinstance(one, Service) for each in one.consumes]
        topics = sorted({each.topic for each in consumed if each.group == params["group"]})
        declared = {name for one in topology.components.values() if isinstance(one, Kafka) for name in one.topics}
        if not topics or params.get("topic") not in declared - set(topics):  # other names are unknown, which is told as such
            return []
        return [("topic", f"{params['group']} does not consume {params['topic']}", f"it consumes {', '.join(topics)}")]

    def probe(self) -> Blast:
        """See `Fault.probe`: the group must be stable.  What can come again it may commit later, with the traffic."""
        if not self._world.bootstrap:
            raise UsageError("messages can't be redelivered without a kafka component in the environment")
        settled(self._world.bootstrap, self._group)
        try:
            with admin(self._world.bootstrap) as client:
                self._committed_by_others(client)  # every coordinator answers
        except ResourceError as error:  # one is on the move
            raise UsageError(f"what groups have committed could not be asked: {error.message}") from error
        return Blast(consumers(self._world, self._group), f"{self._group}, {self._back} messages of each partition again")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`: what is handled again can't be taken back."""
        return {"redelivered_to": self._group}

    def apply(self, lease_s: float) -> None:  # noqa: ARG002 — nothing is held
        """See `Fault.apply`.  Once only."""
        if self._resets:
            return
        _mark(self._world, self._group)
        self._start = end_of_records(self._world.bootstrap, self._group)
        deadline = time.monotonic() + RESET_S
        with admin(self._world.bootstrap) as client:
            self._others = self._committed_by_others(client)
            if not until(lambda: self._world.stopping.is_set() or bool(self._planned(client)), RESET_S):
                raise ResourceError(f"{self._group} has committed nothing that is still kept, so nothing can come to it again",
                                    hint="let it act later, once the group has handled messages")
            start = raw.whole_size(raw.path_of(self._telemetry, "traces"))
            while not (done := self._reset(client)):
                if time.monotonic() >= deadline or self._world.stopping.is_set():
                    raise ResourceError(f"the offsets of {self._group} could not be set: its members kept coming back")
        self._resets, self._since = done, (start, time.time_ns())

    @property
    def _telemetry(self) -> Path:
        return self._world.reach.environment().directory / "telemetry"

    def _reset(self, client: Any) -> Mapping[Place, Reset]:
        """Removes all members and sets the offsets; empty when one came back in between."""
        from kafka.admin import MemberToRemove

        members = [MemberToRemove(member_id=member, reason="envctl redelivery") for member in describe(self._world.bootstrap, self._group).members]
        if members:
            client.remove_group_members(self._group, members)
        planned = self._planned(client)  # now nobody commits any more
        try:
            move(client, self._group, {key: reset.to for key, reset in planned.items()}, self._note)
        except ResourceError:
            return {}
        return planned

    def _planned(self, client: Any) -> dict[Place, Reset]:
        """Where the group goes back to from where it is; without partitions of which nothing could come again."""
        from kafka import TopicPartition
        from kafka.protocol.consumer import OffsetSpec

        found = {key: offset for key, offset in committed(client, [self._group])[self._group].items() if self._topic in (None, key[0])}
        first = client.list_partition_offsets({TopicPartition(*key): OffsetSpec.EARLIEST for key in found}) if found else {}
        wanted = {key: Reset(offset, max(first[TopicPartition(*key)].offset, offset - self._back)) for key, offset in found.items()}
        return {key: reset for key, reset in wanted.items() if reset.to < reset.before}

    def verify(self) -> Effect:
        """By its records the group was set back as far as asked and passed where it had been, with signs that messages came again; no other group's offsets fell."""
        later: dict[Place, Sequence[Commit] | None] = {}

        def passed() -> bool:
            found = commits(self._world.bootstrap, self._group, start=self._start, within_s=PASS_S)
            later.update({key: _behind(found.get(key, ()), reset, self._note) for key, reset in self._resets.items()})
            return all(_past(later[key] or (), reset) for key, reset in self._resets.items()) and bool(self._signs(later))

        shown = until(lambda: self._world.stopping.is_set() or passed(), PASS_S, poll_s=POLL_S) and bool(self._resets) and passed()
        fallen = sum(each is not None for each in later.values())
        again = sum(_past(later.get(key) or (), reset) for key, reset in self._resets.items())
        count, signs = sum(reset.before - reset.to for reset in self._resets.values()), self._signs(later)
        hit = self._fallen_beside()
        summary = f"{count} messages of {len(self._resets)} partitions again" if shown else (
            f"{fallen} of {len(self._resets)} offsets fell, {again} were passed again{'' if signs else ', and nothing shows that messages in between came again'}")
        summary += f"; {', '.join(sorted({group for group, _, _ in hit}))} went back too" if hit else ""
        told = [{"topic": key[0], "partition": key[1], "committed": reset.before, "reset": reset.to, "seen_again": key in signs,
                 "later": max((each.offset for each in later.get(key) or ()), default=0)} for key, reset in sorted(self._resets.items())]
        return Effect(shown and not hit, summary, {"messages": count, "partitions": told, "canary_sent": len(self._others), "canary_lost": len(hit)})

    def _signs(self, later: Mapping[Place, Sequence[Commit] | None]) -> set[Place]:
        """The partitions of which something tells that messages came again."""
        found = {key for key, reset in self._resets.items() if _read_again(later.get(key) or (), reset)}
        start, since_ns = self._since
        spans = handled(self._telemetry, self._group, start=start, since_ns=since_ns)
        return found | {key for key, reset in self._resets.items() for offset in range(reset.to, reset.before) if (key[0], str(key[1]), offset) in spans}

    def _committed_by_others(self, client: Any) -> dict[tuple[str, str, int], int]:
        names = [one["group_id"] for one in client.list_groups() if one["group_id"] != self._group and not _marked(self._world, one["group_id"])]
        return {(group, *key): offset for group, offsets in committed(client, names).items() for key, offset in offsets.items()}

    def _fallen_beside(self) -> list[tuple[str, str, int]]:
        now: Mapping[tuple[str, str, int], int] = {}

        def answered() -> bool:
            nonlocal now
            with suppress(ResourceError), admin(self._world.bootstrap) as client:  # a coordinator may be on the move
                now = self._committed_by_others(client)
                return True
            return False

        if not until(answered, RESET_S, poll_s=POLL_S):
            raise ResourceError("what other groups have committed could not be asked")
        return [key for key, offset in self._others.items() if now.get(key, offset) < offset]

    def heal(self) -> None:
        """See `Fault.heal`: nothing is held."""

    def absent(self) -> Effect:
        """The group is stable, and past where it had been."""
        stable = until(lambda: describe(self._world.bootstrap, self._group).state == "Stable", RESET_S, poll_s=POLL_S)
        with admin(self._world.bootstrap) as client:
            now = committed(client, [self._group])[self._group]
        behind = sum(now.get(key, 0) < reset.before for key, reset in self._resets.items())
        if not stable:
            return Effect(False, "the group is not stable")
        return Effect(not behind, f"{behind} partitions are still behind" if behind else "past where it had been", {"behind": behind})


def _behind(log: Sequence[Commit], reset: Reset, note: str) -> Sequence[Commit] | None:
    """What was committed after it was set back by us; None where it was not."""
    ours = [index for index, commit in enumerate(log) if commit.offset == reset.to and commit.note == note]
    return log[ours[-1] + 1 :] if ours else None


def _past(later: Sequence[Commit], reset: Reset) -> bool:
    return any(commit.offset >= reset.before for commit in later)


def _read_again(later: Sequence[Commit], reset: Reset) -> bool:
    """Whether a commit tells that messages came again: one in between, or one of where it had been, by a consumer that had read the message before."""
    return any(reset.to < commit.offset < reset.before or (commit.offset == reset.before and commit.epoch != UNREAD) for commit in later)


def _mark(world: World, group: str) -> None:
    (world.scratch.parent / f"redelivery-{slug(group)}").touch()


def _marked(world: World, group: str) -> bool:
    """Whether some fault of the run redelivers to a group: then it falls back on purpose."""
    return (world.scratch.parent / f"redelivery-{slug(group)}").exists()
