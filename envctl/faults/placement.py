"""Where partitions are and who leads them, moved for a while and put back as it was found.

What was found is in a file for as long as it is wanted otherwise.  Whoever holds the fault renews that file; a process of its own
(`placement_guard`), started before anything is moved, puts everything back once nobody does.  So healing needs nothing but the file.
"""

from __future__ import annotations

import json
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from envctl.engines.cluster import Partition, Partitions, admin, cluster, partitions
from envctl.engines.kafka import replication
from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import slug
from envctl.model.topology import Kafka, Topology
from envctl.waiting import until

SETTLE_S = 30.0  # how long replicas may take to be moved and in sync, and leaders to be elected
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a partition is to be."""

    leader: int  # one of the replicas
    replicas: tuple[int, ...]


Placement = Mapping[tuple[str, int], Place]


def settle(client: Any, wanted: Placement, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Brings partitions to their places, and does something `meanwhile`, again and again; idempotent.

    Kafka elects only the first replica on request, so each leader goes first until it leads; the order that is wanted follows.
    Raises ResourceError when Kafka refuses, or it takes over SETTLE_S seconds.
    """
    first = {key: (place.leader, *(one for one in place.replicas if one != place.leader)) for key, place in wanted.items()}
    _assign(client, first, wanted, meanwhile)
    deadline = time.monotonic() + SETTLE_S
    while waiting := _led_otherwise(partitions(client, {topic for topic, _ in wanted}), wanted):
        if time.monotonic() >= deadline:
            raise ResourceError(f"brokers did not become leaders of {_named(waiting)} in {SETTLE_S:.0f} s", hint="are they all running?")
        meanwhile()
        time.sleep(POLL_S)
        client.elect_leaders(0, _by_topic(waiting), raise_errors=False)  # of those that are in sync by now
    _assign(client, {key: place.replicas for key, place in wanted.items()}, wanted, meanwhile)


def _led_otherwise(now: Partitions, wanted: Placement) -> list[tuple[str, int]]:
    return [key for key, place in wanted.items() if now[key].leader != place.leader]


def _assign(client: Any, orders: Mapping[tuple[str, int], tuple[int, ...]], wanted: Placement, meanwhile: Callable[[], None]) -> None:
    """Gives partitions these replicas in this order, except those that are where they are wanted already."""
    from kafka import TopicPartition

    now = partitions(client, {topic for topic, _ in orders})
    changed = {
        TopicPartition(*key): list(order) for key, order in orders.items()
        if now[key].replicas != order and (now[key].leader, now[key].replicas) != (wanted[key].leader, wanted[key].replicas)
    }
    if not changed:
        return
    refused = {key: error for key, error in client.alter_partition_reassignments(changed).items() if error is not None}
    if refused:
        raise ResourceError(f"Kafka refused to move {_named(refused)}: {next(iter(refused.values())).__name__}")

    def over() -> bool:
        meanwhile()
        return not client.list_partition_reassignments(list(changed))

    if not until(over, SETTLE_S, poll_s=POLL_S):
        raise ResourceError(f"replicas of {_named(changed)} were not in sync after {SETTLE_S:.0f} s")


def _by_topic(keys: Sequence[tuple[str, int]]) -> dict[str, list[int]]:
    return {topic: [number for name, number in keys if name == topic] for topic, _ in keys}


def _named(keys: Any) -> str:
    return ", ".join(f"{topic}/{number}" for topic, number in sorted(keys))


class Held:
    """The file that says what was found, and for how long it is wanted otherwise; `renewed` differs after each renewal."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any] | None:
        """What it says; None when nothing is held."""
        try:
            found: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found

    def renew(self, found: Placement, lease_s: float) -> None:
        """Writes it as a whole."""
        half = self.path.with_suffix(".half")
        text = {"found": written(found), "lease_s": lease_s, "renewed": time.monotonic_ns()}
        with half.open("w", encoding="utf-8") as file:
            file.write(json.dumps(text))
            file.flush()
            os.fsync(file.fileno())
        half.replace(self.path)

    def restore(self, bootstrap: str) -> None:
        """Puts everything back, then forgets it.  Idempotent."""
        said = self.read()
        if said is not None:
            with admin(bootstrap) as client:
                settle(client, {(topic, number): Place(leader, tuple(replicas)) for topic, number, leader, replicas in said["found"]})
            self.path.unlink(missing_ok=True)


def written(placement: Placement) -> list[Any]:
    """For JSON: topic, partition, leader, replicas of each."""
    return [[topic, number, place.leader, list(place.replicas)] for (topic, number), place in sorted(placement.items())]


class Moved:
    """A fault that has partitions of one topic elsewhere while it is held.  A subclass says where."""

    tools: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["topic"],
        "additionalProperties": False,
        "properties": {
            "topic": {"type": "string", "description": "topic"},
            "partitions": {"oneOf": [{"const": "all"}, {"type": "integer", "minimum": 1}], "description": "`all`, or how many; default: all"},
        },
    }
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._topic: str = params["topic"]
        wanted: int | Literal["all"] = params.get("partitions", "all")
        self._count = None if wanted == "all" else wanted
        self._world = world
        self._held = Held(_held_file(world, self._topic))
        self._before: dict[tuple[str, int], Partition] = {}  # what was found of those to be moved
        self._others: Partitions = {}  # and of other topics
        self._wanted: Placement = {}

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The topic."""
        return [("topic", params["topic"])] if isinstance(params.get("topic"), str) else []

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:
        """See `FaultKind.unfit`: there must be another broker to go to, and as many partitions as are to be moved."""
        kafka = next((one for one in topology.components.values() if isinstance(one, Kafka) and params["topic"] in one.topics), None)
        if kafka is None:
            return []
        topic, count = kafka.topics[params["topic"]], params.get("partitions", "all")
        found = []
        if isinstance(count, int) and count > topic.partitions:
            found.append(("partitions", f"{count} partitions can't be moved, {topic.name} has {topic.partitions}", f"allowed: 1 to {topic.partitions}"))
        if not cls._can_move(kafka.brokers, replication(kafka, topic)):
            found.append(("topic", f"{topic.name} has {replication(kafka, topic)} replicas on {kafka.brokers} brokers and can't be moved",
                          "give it more of them"))
        return found

    @staticmethod
    @abstractmethod
    def _can_move(brokers: int, replicas: int) -> bool:
        """Whether there is anywhere to go."""

    @abstractmethod
    def _elsewhere(self, partition: Partition, number: int, alive: frozenset[int]) -> Place:
        """Where the partition of that number goes; not to its leader of now."""

    def probe(self) -> Blast:
        """See `Fault.probe`: all partitions must be whole, and moved by nobody else."""
        if not self._world.bootstrap:
            raise UsageError("partitions can't be moved without a kafka component in the environment")
        if self._held.read() is not None:
            raise UsageError(f"{self._topic} is moved already by another fault", hint="let the faults follow each other")
        with admin(self._world.bootstrap) as client:
            self._look(client)
            wanted, names = self._elsewheres(client), cluster(client).names
        touched = {names.get(one) for key, place in wanted.items() for one in (place.leader, self._before[key].leader, *set(place.replicas) ^ set(self._before[key].replicas))}
        nodes = tuple(node for node in self._world.reach.environment().nodes if node.name in touched)
        return Blast(nodes, f"{self._topic}, {len(wanted)} partition{'s' if len(wanted) > 1 else ''}")

    def _look(self, client: Any) -> None:
        """What is found before anything is moved."""
        found = partitions(client)
        mine = sorted(key for key in found if key[0] == self._topic)
        if not mine:
            raise UsageError(f"there is no topic {self._topic}")
        if self._count is not None and self._count > len(mine):
            raise UsageError(f"asked to move {self._count} of {len(mine)} partitions of {self._topic}")
        chosen = mine if self._count is None else copy(self._world.rng).sample(mine, self._count)
        if torn := [key for key in chosen if not found[key].whole]:
            raise UsageError(f"{_named(torn)} has no leader or replicas out of sync", hint="let what hurt it heal first")
        self._before = {key: found[key] for key in sorted(chosen)}
        self._others = {key: one for key, one in found.items() if key[0] != self._topic and not self._is_busy(key[0])}

    def _elsewheres(self, client: Any) -> Placement:
        alive = cluster(client).alive
        if any(not self._can_move(len(alive), len(one.replicas)) for one in self._before.values()):
            raise CapabilityError(f"{self._topic} has no other broker to go to", hint="give it more replicas, or the component more brokers")
        return {key: self._elsewhere(one, key[1], alive) for key, one in self._before.items()}

    @property
    def _found(self) -> Placement:
        return {key: Place(one.leader, one.replicas) for key, one in self._before.items()}

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"placement": written(self._found), "held": str(self._held.path)}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  The guard is there first; a renewal moves nothing that has been moved."""
        again = self._held.read() is not None
        if not self._before:
            with admin(self._world.bootstrap) as client:
                self._look(client)
        self._held.renew(self._found, lease_s)
        if again:
            return
        self._world.reach.popen(None, [*self._world.reach.own, "-m", "envctl.faults.programs.placement_guard", self._world.bootstrap, str(self._held.path)])
        with admin(self._world.bootstrap) as client:
            self._wanted = self._wanted or self._elsewheres(client)
            settle(client, self._wanted, lambda: self._held.renew(self._found, lease_s))

    def verify(self) -> Effect:
        """Each partition has a leader of a later epoch where it was to be, and is whole again; no other topic's replicas have been moved."""
        with admin(self._world.bootstrap) as client:
            until(lambda: all(one.whole for one in self._now(client).values()), SETTLE_S, poll_s=POLL_S)
            now, alive = partitions(client), self._now(client)
        moved = [key for key, one in alive.items() if self._is_moved(key, one)]
        torn = [key for key, one in alive.items() if not one.whole]
        others = [key for key in self._others if key in now and not self._is_busy(key[0])]
        hit = [key for key in others if now[key].replicas != self._others[key].replicas]
        summary = f"{len(moved)} of {len(self._before)} partitions moved"
        if moved:
            summary += f", leader epoch {_span(self._before.values())} → {_span(alive.values())}"
        summary += f"; {_named(torn)} not in sync" if torn else ""
        summary += f"; so were {_named(hit)}" if hit else ""
        return Effect(bool(moved) and len(moved) == len(self._before) and not torn and not hit, summary,
                      {"partitions": self._told(alive), "canary_sent": len(others), "canary_lost": len(hit)})

    def _is_busy(self, topic: str) -> bool:
        """Whether a topic is moved by some fault now."""
        return _held_file(self._world, topic).exists()

    def _now(self, client: Any) -> dict[tuple[str, int], Partition]:
        found = partitions(client, [self._topic])
        return {key: found[key] for key in self._before}

    def _is_moved(self, key: tuple[str, int], now: Partition) -> bool:
        before, wanted = self._before[key], self._wanted.get(key)
        return wanted is not None and now.leader != before.leader and now.epoch > before.epoch and now.replicas == wanted.replicas

    def _told(self, now: Mapping[tuple[str, int], Partition]) -> list[dict[str, Any]]:
        return [{"partition": key[1], "leader": [self._before[key].leader, one.leader], "epoch": [self._before[key].epoch, one.epoch],
                 "replicas": [self._before[key].replicas, one.replicas], "isr": one.isr} for key, one in now.items()]

    def heal(self) -> None:
        """See `Fault.heal`."""
        self._held.restore(self._world.bootstrap)

    def absent(self) -> Effect:
        """Nothing is held, and every partition that was moved is as it was found: led by the same, with the same replicas in the same order, whole."""
        if self._held.read() is not None:
            return Effect(shown=False, summary="still moved")
        with admin(self._world.bootstrap) as client:
            back = until(lambda: not self._away(client), SETTLE_S, poll_s=POLL_S)
            away = [] if back else self._away(client)
        return Effect(back, f"{_named(away)} is not as it was" if away else "as it was", {"away": [number for _, number in away]})

    def _away(self, client: Any) -> list[tuple[str, int]]:
        found = self._found
        return [key for key, one in self._now(client).items() if not one.whole or Place(one.leader, one.replicas) != found[key]]


def _held_file(world: World, topic: str) -> Path:
    """One for all faults of the run, so that none takes for found what another has moved."""
    return world.scratch.parent / f"placement-{slug(topic)}.json"


def _span(found: Any) -> str:
    epochs = sorted({one.epoch for one in found})
    return f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]}–{epochs[-1]}"
