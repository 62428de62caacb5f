"""What a cluster's metadata says of brokers that are hurt: before, meanwhile and afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

from envctl.engines.cluster import Partitions, admin, cluster, controller, partitions
from envctl.errors import ResourceError, UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import AtNodes
from envctl.model.environment import Node
from envctl.model.topology import Kafka, Topology
from envctl.spec.names import owner_of
from envctl.waiting import until

FENCED_S = 25.0  # how long it may take that a dead broker is fenced (its session, 6 s) and its partitions have other leaders
WHOLE_S = 60.0  # how long it may take that all replicas are in sync again
ANSWER_S = 3.0  # of a broker that is asked; another one is asked next
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class View:
    """The cluster as its metadata has it at one moment."""

    ids: Mapping[str, int]  # node → broker id
    alive: frozenset[str]  # nodes whose broker is not fenced
    controller: int | None  # broker id of the active controller; None where nobody was asked
    controller_epoch: int | None
    partitions: Partitions

    def misses(self, broker: int) -> bool:
        """Whether a broker has replicas that are not in sync, as after its death for longer than it is fenced."""
        return any(broker in one.replicas and broker not in one.isr for one in self.partitions.values())

    @property
    def torn(self) -> tuple[str, ...]:
        """Partitions without a leader or with replicas that are not in sync."""
        return tuple(f"{topic}/{number}" for (topic, number), one in sorted(self.partitions.items()) if not one.whole)


def look(bootstrap: str, *, quorum: bool = True) -> View:
    """Asks any broker of those.  Raises ResourceError when none answers.

    `quorum`: who controls is asked, too; to a controller that stands still a broker passes that question on, and waits for half a minute.
    """
    with admin(bootstrap, answer_s=ANSWER_S) as client:
        found, (active, epoch) = cluster(client), controller(client) if quorum else (None, None)
        ids = {name: number for number, name in found.names.items()}
        return View(ids, frozenset(name for name, number in ids.items() if number in found.alive), active, epoch, partitions(client))


def wrong_target(params: Mapping[str, Any], topology: Topology, *, minority: bool) -> list[tuple[str, str, str]]:
    """(parameter, message, hint) where a target is no Kafka, or (`minority`) where so many brokers at once leave none to ask."""
    owner = owner_of(topology, params["target"])
    if owner is None:
        return []
    if not isinstance(owner, Kafka):
        return [("target", f"{owner.name} is no kafka component", "node-kill is for all kinds")]
    count, most = 1 if params["target"] != owner.name else params.get("pick", owner.brokers), (owner.brokers - 1) // 2
    if minority and count > most:
        hint = f"pick at most {most}" if most else "node-kill does it, without asking Kafka"
        return [("target", f"{count} of {owner.brokers} brokers leave no majority that could tell of it", hint)]
    return []


class Watch:
    """The metadata from before a fault on, of some brokers and by the others."""

    def __init__(self, world: World, targets: Sequence[Node], *, quorum: bool = True) -> None:
        """Raises UsageError where the cluster is not whole: then it could not be told what the fault did.

        `quorum`: who controls meanwhile is asked, not concluded: what was the controller and has been fenced was so by another one.
        """
        self._world, self._quorum = world, quorum
        if not world.bootstrap:
            raise UsageError("there are no brokers without a kafka component in the environment")
        self._names = tuple(node.name for node in targets)
        try:
            self.before = look(world.bootstrap)
        except ResourceError as error:
            raise UsageError(f"no broker tells of the cluster: {error.message}") from error
        if strangers := [name for name in self._names if name not in self.before.alive]:
            raise UsageError(f"not among the cluster's brokers: {', '.join(strangers)}")
        if self.before.torn:
            raise UsageError(f"partitions are not in sync: {', '.join(self.before.torn[:3])}", hint="let what hurt them heal first")
        self._starts = {node.name: node.starts for node in bystanders(world, targets, ready=False)}
        self._beside = ",".join(each for each in world.bootstrap.split(",") if each.partition(":")[0] not in self._names) or world.bootstrap
        self._seen_away: set[str] = set()

    def now(self) -> View | None:
        """The metadata as a broker that is no target has it; None when none answers."""
        with suppress(ResourceError):
            found = look(self._beside, quorum=self._quorum)
            self._seen_away |= {name for name in self._names if name not in found.alive or found.misses(self.before.ids[name])}
            return found
        return None

    def gone(self) -> Effect:
        """Every target is fenced: it is no broker of the cluster now and leads nothing, and if it was the controller another one is."""
        view: View | None = None

        def away() -> bool:
            nonlocal view
            view = self.now()
            return view is not None and not view.alive & set(self._names) and not self._led(view)

        shown = until(away, FENCED_S, poll_s=POLL_S)
        return self._effect(view, shown, "fenced" if shown else "still a broker of the cluster")

    def passed(self) -> Effect:
        """Since before the fault every partition that a target led has had another leader or none, as its epoch tells; so has the quorum.

        Where they led nothing, each has been seen fenced, or with replicas out of sync.
        """
        view: View | None = None

        def through() -> bool:
            nonlocal view
            view = self.now()
            return view is not None and not self._unmoved(view) and (bool(self._mine()) or self._seen_away == set(self._names))

        shown = until(through, FENCED_S, poll_s=POLL_S)
        unseen = "its partitions kept their leader epochs" if self._mine() else "leading nothing, it was never seen to be away"
        seen = f"{len(self._mine())} partitions led anew" if self._mine() else "seen to be away, leading nothing"
        return self._effect(view, shown, seen if shown else unseen)

    def _effect(self, view: View | None, shown: bool, summary: str) -> Effect:
        """With the controller's move, and all other nodes as canary: none of them was restarted, no other broker fenced."""
        asked = view is not None and view.controller is not None
        moved = view is not None and asked and (view.controller, view.controller_epoch) != (self.before.controller, self.before.controller_epoch)
        must = self.before.controller in {self.before.ids[name] for name in self._names}
        fenced = set(self.before.ids) - view.alive if view else set[str]()
        hit = [name for name, starts in self._starts.items() if name in fenced or self._world.reach.node(name).starts != starts]
        hit = unexplained(self._world, hit)
        if view and moved:
            summary += f", controller {self.before.controller} → {view.controller} (epoch {view.controller_epoch})"
        elif must and asked:
            summary += ", but the controller did not move"
        elif must and shown:
            summary += ", by another controller"
        summary += f"; {', '.join(hit)} too" if hit else ""
        return Effect(shown and not hit and (moved or not must or not asked), summary, {
            "controller": [self.before.controller, view.controller if view else None],
            "controller_epoch": [self.before.controller_epoch, view.controller_epoch if view else None],
            "alive": sorted(view.alive) if view else [], "led": len(self._mine()), "seen_away": sorted(self._seen_away),
            **canary(self._world, tuple(self._starts), hit)})

    def _mine(self) -> list[tuple[str, int]]:
        return [key for key, one in self.before.partitions.items() if one.leader in self._target_ids()]

    def _led(self, view: View) -> list[tuple[str, int]]:
        return [key for key, one in view.partitions.items() if one.leader in self._target_ids()]

    def _unmoved(self, view: View) -> list[tuple[str, int]]:
        return [key for key in self._mine() if key in view.partitions and view.partitions[key].epoch <= self.before.partitions[key].epoch]

    def _target_ids(self) -> set[int]:
        return {self.before.ids[name] for name in self._names}


class OfBrokers(AtNodes):
    """A fault of brokers, whose cluster is watched from its probe on."""

    minority: ClassVar[bool] = True  # so many at once, and no more, as leave others to ask
    quorum: ClassVar[bool] = True  # see Watch
    _watch: Watch | None = None

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:
        """See `FaultKind.unfit`."""
        return wrong_target(params, topology, minority=cls.minority)

    def _watched(self, blast: Blast) -> Blast:
        """What was probed, with the cluster, which must be whole."""
        self._watch = Watch(self._world, blast.nodes, quorum=self.quorum)
        return blast


def whole(world: World, nodes: Sequence[Node]) -> Effect:
    """These brokers are in the cluster again, and all replicas of all partitions are in sync."""
    last = "no broker tells of the cluster"

    def back() -> bool:
        nonlocal last
        try:
            view = look(world.bootstrap)
        except ResourceError:
            return False
        away = [node.name for node in nodes if node.name not in view.alive]
        last = f"{', '.join(away)} is not in the cluster" if away else f"not in sync: {', '.join(view.torn[:3])}" if view.torn else ""
        return not last

    done = until(lambda: world.stopping.is_set() or back(), WHOLE_S, poll_s=POLL_S) and (not world.stopping.is_set() or back())
    return Effect(done, "in the cluster again, all replicas in sync" if done else last)


def both(first: Effect, second: Effect) -> Effect:
    """Two proofs of one fault as one."""
    return Effect(first.shown and second.shown, f"{first.summary}; {second.summary}", {**first.detail, **second.detail})
