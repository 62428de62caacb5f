"""Consumer-group rebalance, in two modes.

`churn`: a transient member that processes nothing joins and leaves again, so partitions are revoked and move.
`evict`: members are removed by the admin API; each loses its partitions, notices, and joins again.
The proof is that the cause was ours (the transient member was given an assignment; the coordinator acknowledged the evictions)
and that the group's generation (classic groups) or epoch (KIP-848 groups) rose, read from the group's own records in
`__consumer_offsets`: either alone may be another's doing, or nothing.  "The assignment differs" would not do, because a
cooperative group can end as it began.  Classic members come back from an eviction under a new id, KIP-848 members under their own.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from envctl.engines.cluster import admin
from envctl.engines.group_records import generation, members
from envctl.errors import CapabilityError, UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.model.environment import Node
from envctl.substrates.base import Process
from envctl.waiting import until

SETTLE_S = 20.0  # how long a group may take to be stable again
STABLE = "Stable"
NOWHERE = "NoCoordinator"  # ours: a group whose coordinator is on the move, or not chosen yet, can't be asked
ON_THE_MOVE = (NOWHERE, "PreparingRebalance", "CompletingRebalance", "Assigning", "Reconciling")
KNOWN_ASSIGNORS = ("range", "roundrobin", "cooperative-sticky")


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group as its coordinator describes it."""

    state: str
    assignor: str  # empty in a KIP-848 group, whose coordinator assigns
    members: tuple[str, ...]  # member ids
    topics: tuple[str, ...]


class Rebalance:
    """`{fault: rebalance, group: payments, mode: churn|evict, members: 1}`."""

    name: ClassVar[str] = "rebalance"
    tools: ClassVar[tuple[str, ...]] = ()
    mechanism: ClassVar[str] = "a transient member, or eviction by the admin API"
    proof: ClassVar[str] = "the group's generation in its own records"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["group"],
        "additionalProperties": False,
        "properties": {
            "group": {"type": "string", "description": "consumer group"},
            "mode": {"enum": ["churn", "evict"], "description": "default: churn"},
            "members": {"type": "integer", "minimum": 1, "description": "evict: how many members; default: all"},
        },
    }
    instantaneous = True

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._group_name: str = params["group"]
        self._mode: str = params.get("mode", "churn")
        self._count: int | None = params.get("members")
        self._world = world
        self._member: Process | None = None
        self._before = 0
        self._evicted: tuple[str, ...] = ()
        self._acknowledged: tuple[str, ...] = ()
        self._told = world.scratch / "member.txt"  # what the transient member says of itself
        self._renamed = True

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Rebalance:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The group."""
        return [("group", params["group"])] if isinstance(params.get("group"), str) else []

    def probe(self) -> Blast:
        """See `Fault.probe`: the group must be stable, with an assignor that a transient member can speak."""
        if not self._world.bootstrap:
            raise UsageError("a rebalance needs a kafka component in the environment")
        group = settled(self._world.bootstrap, self._group_name)
        if self._mode == "churn" and group.assignor and group.assignor not in KNOWN_ASSIGNORS:
            raise CapabilityError(f"group {self._group_name!r} uses the assignor {group.assignor!r}, which can't be joined from outside",
                                  hint=f"use mode: evict, or one of {', '.join(KNOWN_ASSIGNORS)}")
        if self._count is not None and self._count > len(group.members):
            raise UsageError(f"asked to evict {self._count} of {len(group.members)} members of {self._group_name!r}")
        return Blast(consumers(self._world, self._group_name), f"{self._group_name}, {self._mode}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`: a member ends by itself, an eviction has nothing to undo."""
        return {"transient_member_of": self._group_name} if self._mode == "churn" else {}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  The transient member has its own clock and leaves when the lease is over."""
        if self._member is not None or self._evicted:
            return
        group = settled(self._world.bootstrap, self._group_name)  # again: a member may have come back since the probe, and a group on the move tells no topics
        self._before = self._generation()
        self._renamed = bool(group.assignor)
        if self._mode == "evict":
            chosen = sorted(group.members)
            self._evicted = tuple(self._world.rng.sample(chosen, self._count or len(chosen)))
            self._acknowledged = evict(self._world.bootstrap, self._group_name, self._evicted)
            return
        with self._told.open("wb") as told:
            self._member = self._world.reach.popen(None, [
                *self._world.reach.own, "-m", "envctl.faults.programs.transient_member", self._world.bootstrap, self._group_name,
                group.assignor, str(lease_s), *group.topics], stdout=told)

    def verify(self) -> Effect:
        """Our own doing is known to have happened, the generation rose, and the group is stable again; the evicted are gone from it."""
        moved = until(lambda: self._failed() or (self._acted() and self._generation() > self._before), SETTLE_S, poll_s=0.2)
        stable = until(self._stable, SETTLE_S, poll_s=0.2)
        acted = (moved and not self._failed()) or self._acted()  # by now the member may have left, and not have ended yet
        after = self._generation()
        stayed = set(self._evicted) & set(describe(self._world.bootstrap, self._group_name).members) if self._renamed else set()
        summary = f"generation {self._before} → {after}"
        if not acted:
            summary += f", but {self._undone()}"
        if stayed:
            summary += f", {len(stayed)} evicted members are still there"
        return Effect(acted and after > self._before and not stayed, summary if stable else f"{summary}, not stable",
                      {"before": self._before, "after": after, "member": self._joined_as(), "evicted": list(self._evicted),
                       "acknowledged": list(self._acknowledged)})

    def _acted(self) -> bool:
        """Whether it was us: the member had an assignment, and is in the group or has left in order; or every eviction was acknowledged."""
        if self._mode == "evict":
            return bool(self._evicted) and set(self._evicted) == set(self._acknowledged)
        if self._member is None or not (name := self._joined_as()):
            return False
        status = self._member.poll()
        return status == 0 if status is not None else name in describe(self._world.bootstrap, self._group_name).members

    def _undone(self) -> str:
        if self._mode == "evict":
            return f"{len(self._acknowledged)} of {len(self._evicted)} evictions acknowledged"
        return "our member did not join" + (f": it ended with {self._member.poll()}" if self._member and self._failed() else "")

    def _failed(self) -> bool:
        """Whether the transient member has ended otherwise than in order, so that there is nothing to wait for."""
        return self._member is not None and bool(self._member.poll())

    def _joined_as(self) -> str:
        """The transient member's id, by its own word that it was given an assignment; empty as long as it wasn't."""
        words = self._told.read_text(encoding="utf-8").split() if self._told.exists() else []
        return words[0] if len(words) == 2 else ""

    def heal(self) -> None:
        """See `Fault.heal`: the transient member leaves in an orderly way."""
        if self._member is not None and self._member.poll() is None:
            self._member.signal(signal.SIGTERM)
            self._member.wait(10)

    def absent(self) -> Effect:
        """No transient member is left, and the group is stable."""
        gone = self._member is None or self._member.poll() is not None
        stable = until(self._stable, SETTLE_S, poll_s=0.2)
        after = self._generation()
        return Effect(gone and stable, f"generation {self._before} → {after}, stable" if stable else "the group is not stable",
                      {"generation": after})

    def _generation(self) -> int:
        return generation(self._world.bootstrap, self._group_name, within_s=SETTLE_S)

    def _stable(self) -> bool:
        group = describe(self._world.bootstrap, self._group_name)
        return group.state == STABLE and bool(group.members)


def settled(bootstrap: str, name: str) -> Group:
    """The group once it is stable; a group on the move (a member that was killed comes back) is waited for.  Raises UsageError."""
    group = describe(bootstrap, name)
    deadline = time.monotonic() + SETTLE_S
    while group.state in ON_THE_MOVE and time.monotonic() < deadline:
        time.sleep(0.1)
        group = describe(bootstrap, name)
    if not group.members or group.state != STABLE:
        raise UsageError(f"consumer group {name!r} is not stable, so no rebalance could be told from its own",
                         hint=f"its state is {group.state}, it has {len(group.members)} members")
    return group


def consumers(world: World, group: str) -> tuple[Node, ...]:
    """The nodes whose component is in the group, as the topology has it."""
    components = world.topology.components.values()
    names = {c.name for c in components if any(s.group == group for s in getattr(c, "consumes", ()))}
    return tuple(node for node in world.reach.environment().nodes if node.component in names)


def describe(bootstrap: str, group: str) -> Group:
    """The group as its coordinator sees it now.

    The client can describe classic groups only; of a KIP-848 group it lists the state, and the group's records have the rest.
    """
    from kafka.errors import CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError

    with admin(bootstrap) as client:
        try:
            found = client.describe_groups([group])[group]
        except (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError):
            return Group(NOWHERE, "", (), ())
        newer = None if found["members"] else _listed(client, group)
    if newer is not None and newer.get("group_type") == "consumer":
        joined = members(bootstrap, group, within_s=SETTLE_S)
        return Group(newer["group_state"], "", tuple(joined), tuple(sorted(set().union(*joined.values()))))
    if newer is not None and newer.get("group_type", "classic") != "classic":
        raise CapabilityError(f"{group!r} is a group of type {newer['group_type']!r}, which can't be rebalanced")
    topics = {topic for member in found["members"] for topic in (member["member_metadata"] or {}).get("topics", ())}
    ids = tuple(member["member_id"] for member in found["members"])
    return Group(found["group_state"], found["protocol_data"], ids, tuple(sorted(topics)))


def _listed(client: Any, group: str) -> Any:
    """The group as its coordinator lists it; None where no broker that answers does."""
    from kafka.errors import KafkaError

    for broker in client.describe_cluster()["brokers"]:
        with suppress(KafkaError):  # another broker may be away
            for one in client.list_groups(broker_ids=[broker["broker_id"]]):
                if one["group_id"] == group:
                    return one
    return None


def evict(bootstrap: str, group: str, members: Sequence[str]) -> tuple[str, ...]:
    """Removes members by id through the admin API; returns those whose removal the coordinator acknowledged.  One that is alive joins again."""
    from kafka.admin import MemberToRemove
    from kafka.errors import NoError

    with admin(bootstrap) as client:
        answers = client.remove_group_members(group, [MemberToRemove(member_id=member, reason="envctl rebalance") for member in members])
    return tuple(member for member, answer in answers.items() if answer is NoError)
