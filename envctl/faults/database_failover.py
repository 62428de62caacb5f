"""Database failover: the primary of PostgreSQL is fenced, a standby is promoted, and the old primary comes back as its standby.

Fencing comes first: the old primary's data are told who takes its place, and it is killed and held down before anybody else may
write.  A commit is acknowledged only when it is on a standby's disk too, so nothing that was acknowledged is lost; the price is that
writes wait from the death of the old primary until a standby follows the new one (with one standby: until the old primary is back).

A node asks its peers at each start what it is to be (`engines.postgres_start`): whoever starts the old primary again, its
healing or the end of its hold's lease, it rewinds its data, or copies the new primary's, and follows.  What its data were told it can't
forget: where the new primary can't be reached, or whoever was to promote it was killed before, it does not start as a primary either.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from envctl.engines.postgres_start import SUCCEEDED, asked, succeeded_by
from envctl.errors import EnvctlError, ResourceError, UsageError
from envctl.faults.acting import held_by_others
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import at_each, nodes_named, placed
from envctl.model.environment import Node
from envctl.model.topology import Postgres, Topology
from envctl.spec.names import nodes_of
from envctl.waiting import until

KILLED = 128 + signal.SIGKILL
FENCE_S = 5.0  # how long the old primary may take to be dead
PROMOTE_S = 30.0  # how long the standby may take to be primary
REJOIN_S = 60.0  # how long it may take to follow the new one
RELEASED_S = 3.0  # how long a node that is released may take to begin its start
NEEDED = "let `target` be a component of kind postgres with `standbys: 1`"
OPENED = "database system is ready to accept connections"  # what a server says when it takes writes; a standby's says "read-only"

_ROLE = """select json_build_object(
  'primary', not pg_is_in_recovery(), 'timeline', (select timeline_id from pg_control_checkpoint()),
  'received', (select received_tli from pg_stat_wal_receiver where status = 'streaming'),
  'standbys', array(select application_name from pg_stat_replication
                    where state = 'streaming' and sync_state in ('sync', 'quorum') order by flush_lsn desc, application_name))"""


@dataclass(frozen=True, slots=True)
class Role:
    """What a server says of itself."""

    primary: bool
    timeline: int  # of its newest checkpoint
    received: int | None  # of what it streams from its primary
    standbys: tuple[str, ...]  # that stream from it and are waited for by commits, the one with most of its log first


class DatabaseFailover:
    """`{for: 4s, fault: database-failover, target: shop-db}`, where `target` is a component with standbys."""

    name: ClassVar[str] = "database-failover"
    mechanism: ClassVar[str] = "SIGKILL to the primary, held down; `pg_promote`"
    proof: ClassVar[str] = "who is in recovery, timelines, that the old primary is dead"
    claims: ClassVar[frozenset[str]] = frozenset({"processes"})
    tools: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "additionalProperties": False,
        "required": ["target"],
        "properties": {"target": {"type": "string", "description": "a component of kind postgres with standbys"}},
    }
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._world = world
        self._target = str(params["target"])
        self._old: Node | None = None  # the primary when the fault was probed
        self._new: Node | None = None  # the standby that is to take its place
        self._timeline = 0  # of the old primary
        self._others: tuple[str, ...] = ()  # the nodes that are neither, and lived then
        self._opened: int | None = None  # how often the old primary had been open for writes when it was fenced
        self._fenced = False  # whether we have told the old primary's data who takes its place
        self._begun = 0.0  # when it was killed, on the monotonic clock
        self._promoted_s: float | None = None  # from the kill until the new one took writes

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> DatabaseFailover:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The target."""
        return [("target", params["target"])] if isinstance(params.get("target"), str) else []

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:
        """See `FaultKind.unfit`: a database with a standby is needed."""
        target = str(params["target"])
        known = target in topology.components or target in nodes_of(topology)  # another name is told as such
        return [("target", why, NEEDED)] if known and (why := _unfit(target, topology)) else []

    def probe(self) -> Blast:
        """See `Fault.probe`: there is one primary, and a standby that commits wait for.  Looks anew each time it is asked."""
        if why := _unfit(self._target, self._world.topology):
            raise UsageError(why, hint=NEEDED)
        nodes = {node.name: node for node in nodes_named(self._world, self._target)}
        roles = {name: role for name in nodes if (role := self._role(name))}
        primaries = [name for name, role in roles.items() if role.primary]
        standbys = [name for each in primaries for name in roles[each].standbys if name in nodes]
        if len(primaries) != 1 or not standbys:
            raise UsageError(f"{self._target} has {len(primaries)} primaries and {len(standbys)} standbys that follow: it can't fail over",
                             hint="let the fault start when the one before it has recovered")
        self._old, self._new = nodes[primaries[0]], nodes[standbys[0]]
        self._timeline = roles[primaries[0]].timeline
        ends = (self._old.name, self._new.name)
        self._others = tuple(node.name for node in self._world.reach.environment().nodes if node.name not in ends and node.pid is not None)
        return Blast((self._old,), f"{placed([self._old])} → {placed([self._new])}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"release": [node.name for node in nodes_named(self._world, self._target)]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A renewal only renews the hold: nobody is fenced or promoted twice."""
        old, new = self._ends()
        self._world.reach.hold(old.name, lease_s)
        if self._opened is None:
            with self._kept_down(old, lease_s):
                self._opened = self._times_open(old)
                self._fence(old, new)
                self._promote(old, new)

    @contextmanager
    def _kept_down(self, old: Node, lease_s: float) -> Iterator[None]:
        """Renews the hold meanwhile, whatever is waited for."""
        over = threading.Event()

        def renew() -> None:
            while not over.wait(lease_s / 4):
                with suppress(EnvctlError):  # another one follows
                    self._world.reach.hold(old.name, lease_s)

        renewer = threading.Thread(target=renew, name="hold", daemon=True)
        renewer.start()
        try:
            yield
        finally:
            over.set()
            renewer.join()
        self._world.reach.hold(old.name, lease_s)

    def _ends(self) -> tuple[Node, Node]:
        if self._old is None or self._new is None:
            self.probe()
        assert self._old
        assert self._new
        return self._old, self._new

    def _fence(self, old: Node, new: Node) -> None:
        """Tells the old primary's data who takes its place, and kills it; returns when it is known to be dead."""
        self._begun = time.monotonic()
        if self._now(old).pid is not None:
            if self._world.reach.run(old.name, succeeded_by(new.name)).status:
                raise ResourceError(f"{old.name} could not be told that {new.name} takes its place, so nobody is promoted")
            self._fenced = True
            self._world.reach.signal(old.name, signal.SIGKILL)
        if not until(lambda: self._now(old).pid is None, FENCE_S):
            raise ResourceError(f"{old.name} could not be fenced, so nobody is promoted")

    def _promote(self, old: Node, new: Node) -> None:
        """Promotes the standby; where the old primary was down already, only another fault may."""

        def promoted() -> bool:
            role = self._role(new.name)
            return role is not None and role.primary

        if self._now(old).pid is not None:
            raise ResourceError(f"{old.name} was started again, so nobody is promoted")
        if self._fenced:
            self._ask(new.name, "select pg_promote(false)")
        if not until(promoted, PROMOTE_S):
            raise ResourceError(f"{new.name} was not promoted" + ("" if self._fenced else f": {old.name} was down before it could be told of it"))
        self._promoted_s = time.monotonic() - self._begun
        self._ask(new.name, "checkpoint")  # whose timeline the control file then names

    def verify(self) -> Effect:
        """The old primary is dead and does not answer, the new one takes writes on a new timeline, and no other node has ended."""
        old, new = self._ends()
        now, role = self._now(old), self._role(new.name)
        fenced = now.pid is None and now.exit_status == KILLED and not self._answers(new, old)
        promoted = role is not None and role.primary and role.timeline > self._timeline
        nodes = {node.name: node for node in self._world.reach.environment().nodes}
        hit = [name for name in self._others if name not in nodes or nodes[name].pid is None]
        summary = "; ".join([f"{old.name} {'fenced' if fenced else 'still answers, or was not killed'}", self._told(new, role, promoted)])
        detail = {"nodes": [{"node": old.name, "zone": old.zone, "exit_status": now.exit_status, "starts": now.starts, "started_at": now.started_at}],
                  "promoted": new.name, "timeline_before": self._timeline, "timeline": role.timeline if role else None,
                  "promoted_s": self._promoted_s, "canary_sent": len(self._others), "canary_lost": len(hit)}
        return Effect(fenced and promoted and not hit, summary + (f"; down too: {', '.join(hit)}" if hit else ""), detail)

    def _told(self, new: Node, role: Role | None, promoted: bool) -> str:
        if role is None or not promoted:
            return f"{new.name} not promoted"
        took = "" if self._promoted_s is None else f" after {self._promoted_s:.1f} s"
        return f"{new.name} primary{took}, timeline {self._timeline} → {role.timeline}"

    def _answers(self, new: Node, old: Node) -> bool:
        """Whether the old primary's server can be reached from the new one's node."""
        return self._world.reach.run(new.name, asked("select 1", old.name)).status == 0

    def heal(self) -> None:
        """See `Fault.heal`: whoever of the component's nodes is held, but by another fault, may start; what it is then, it finds out itself."""
        theirs = held_by_others(self._world)
        at_each([node for node in nodes_named(self._world, self._target) if node.name not in theirs], lambda node: self._world.reach.release(node.name))

    def absent(self) -> Effect:
        """There is one primary, every standby follows its timeline and is waited for, and the old primary has not been open for writes since."""
        nodes = nodes_named(self._world, self._target)
        if not until(lambda: not self._held(nodes), RELEASED_S):
            return Effect(shown=False, summary=f"{', '.join(self._held(nodes))} is still held down")
        begun = time.monotonic()
        whole = until(lambda: self._whole(nodes), REJOIN_S, poll_s=0.5)
        roles = {node.name: self._role(node.name) for node in nodes}
        told = {name: asdict(role) if role else None for name, role in roles.items()}
        opened = self._times_open(self._old) - self._opened if self._old and self._opened is not None else 0
        primary = ", ".join(name for name, role in roles.items() if role and role.primary) or "nobody"
        summary = f"{primary} is primary, {len(nodes) - 1} follow" if whole else f"{primary} is primary, and not all others follow"
        if opened > 0 and self._old:
            summary += f"; {self._old.name} has been open for writes {opened} times since it was fenced"
        return Effect(whole and opened <= 0, summary, {"roles": told, "rejoined_s": time.monotonic() - begun, "old_primary_opened": max(opened, 0)})

    def _whole(self, nodes: Sequence[Node]) -> bool:
        roles = {node.name: self._role(node.name) for node in nodes}
        primaries = [(name, role) for name, role in roles.items() if role and role.primary]
        if len(primaries) != 1:
            return False
        name, primary = primaries[0]
        others = [role for other, role in roles.items() if other != name]
        follow = all(role and role.received == primary.timeline for role in others)
        return follow and set(primary.standbys) == set(roles) - {name} and not self._to_be_succeeded(name)

    def _to_be_succeeded(self, node: str) -> bool:
        """Whether a failover from it was begun: it is ended soon, whatever became of who began it."""
        try:
            return self._world.reach.run(node, SUCCEEDED).status == 0
        except EnvctlError:  # it has ended meanwhile
            return True

    def _held(self, nodes: Sequence[Node]) -> list[str]:
        return [node.name for node in nodes if self._now(node).state == "held"]

    def _times_open(self, node: Node) -> int:
        return sum(OPENED in line for line in self._world.reach.log(node.name))

    def _role(self, node: str) -> Role | None:
        """None where no server answers."""
        text = self._ask(node, _ROLE)
        if not text:
            return None
        found = json.loads(text)
        return Role(found["primary"], found["timeline"], found["received"], tuple(found["standbys"]))

    def _ask(self, node: str, query: str) -> str:
        try:
            done = self._world.reach.run(node, asked(query))
        except EnvctlError:  # it has no process
            return ""
        return done.stdout.strip() if done.status == 0 else ""

    def _now(self, node: Node) -> Node:
        return self._world.reach.node(node.name)


def _unfit(target: str, topology: Topology) -> str:
    """Why it can't fail over; empty where it can."""
    component = topology.components.get(target)
    if not isinstance(component, Postgres):
        return f"{target} is {f'a {component.kind}' if component else 'a node'}, a component of kind postgres is needed here"
    if component.standbys > 1:
        return f"{target} has {component.standbys} standbys, and which of them has all that was acknowledged is not asked yet"
    return "" if component.standbys else f"{target} has no standby that could be promoted"
