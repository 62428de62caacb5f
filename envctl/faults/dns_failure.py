"""DNS failure: names can't be looked up in a node, though everything that they stand for is there.

Packet rules in the node's own network hurt what it says to resolvers, whichever these are; a set whose elements time out is the
lease.  What a process has cached, and its own hosts file, still answer, as they do when a resolver fails.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from envctl.errors import CapabilityError, DeadlineError, ResourceError
from envctl.faults.acting import bystanders
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import PICK, TARGET, AtNodes, at_each, placed, slug
from envctl.model.environment import Node
from envctl.substrates.base import Completed
from envctl.toolchain import find
from envctl.waiting import until

ANSWER_S = 3.0  # a look-up that has said nothing by then has failed: those that work take milliseconds
BESIDE_S = 20.0  # of one by an interpreter that has to start first
READY_S, ABSENT_S = 30.0, 15.0
_BESIDE = "import socket, sys; socket.gethostbyname(sys.argv[1])"
_CHAINS = {  # before an engine leads a query elsewhere; after it has given the answer its address back
    "fail": ("hook output priority -150", "th dport 53", "reject"),
    "hang": ("hook input priority 200", "th sport 53", "drop"),
}


class DnsFailure(AtNodes):
    """`{fault: dns-failure, target: orders, pick: 1, lookups: fail|hang}`, where `target` is a component or a node."""

    name: ClassVar[str] = "dns-failure"
    mechanism: ClassVar[str] = "nft rules on what the node says to resolvers"
    proof: ClassVar[str] = "look-ups in the node"
    tools: ClassVar[tuple[str, ...]] = ("nft",)
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {
            "target": TARGET,
            "pick": PICK,
            "lookups": {"enum": ["fail", "hang"], "description": "whether they fail at once, or after their time-out; default: fail"},
        },
    }

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._table = f"envctl_dns_{slug(world.scratch.name)}"
        self._starts: dict[str, int] = {}  # target → which start of it has the rules

    def probe(self) -> Blast:
        """See `Fault.probe`: rules can be set in every target, and a look-up there can be watched."""
        for node in self._targets:
            if (done := self._nft(node, "list tables")).status:
                raise CapabilityError(f"packet rules can't be set in {node.name}: {done.stderr.strip()}",
                                      hint="`envctl doctor` says whether nftables works on this machine")
            try:
                self._world.reach.run(node.name, ["getent", "hosts", "localhost"])
            except ResourceError as error:
                raise CapabilityError(f"look-ups in {node.name} can't be watched: {error.message}",
                                      hint="its image needs `getent`, which comes with every C library for Linux") from error
        return Blast(self._targets, f"no names in {placed(self._targets)}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"nft_table": f"inet {self._table}", "nodes": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A renewal only renews; where a target was started again since, the rules are made anew."""
        acts = bool(self._starts)
        at_each(self._targets, lambda target: self._set(self._world.reach.node(target.name), lease_s, acts))

    def _set(self, node: Node, lease_s: float, acts: bool) -> None:
        if acts and node.pid is None:
            return  # it asks nobody as it is
        again = self._starts.get(node.name) == node.starts
        done = self._nft(node, _renewal(self._table, lease_s) if again else _rules(self._table, self._lookups, lease_s))
        if done.status:
            raise ResourceError(f"packet rules were refused in {node.name}: {done.stderr.strip()}")
        self._starts[node.name] = node.starts

    @property
    def _lookups(self) -> str:
        return str(self._params.get("lookups", "fail"))

    def verify(self) -> Effect:
        """A look-up fails in each target and each rule has counted it; in another node, and beside the nodes, it succeeds."""
        before = [self._counted(node) for node in self._targets]
        spared = bystanders(self._world, self._targets, most=1)
        with ThreadPoolExecutor(len(self._targets) + 2) as pool:
            beside = pool.submit(self._answered_beside)
            answered = list(pool.map(self._answered, (*self._targets, *spared)))
        ours, others = answered[: len(self._targets)], [*answered[len(self._targets) :], beside.result()]
        counted = [self._counted(node) for node in self._targets]
        idle = sum(now <= then for then, now in zip(before, counted, strict=True))
        summary = f"{ours.count(False)} of {len(ours)} look-ups failed" + (f"; {idle} rules counted nothing" if idle else "")
        detail = {"lookups": self._lookups, "failed": ours.count(False), "rules_idle": idle, "packets": sum(counted),
                  "canary_sent": len(others), "canary_lost": others.count(False)}
        return Effect(not any(ours) and not idle and all(others), summary, detail)

    def heal(self) -> None:
        """See `Fault.heal`: `add` before `delete` makes the removal succeed whether or not the table is there."""
        at_each(self._targets, self._remove)
        self._starts.clear()

    def _remove(self, node: Node) -> None:
        try:
            done = self._nft(node, f"add table inet {self._table}\ndelete table inet {self._table}")
        except ResourceError:
            if self._world.reach.node(node.name).pid is None:
                return  # where a network namespace ends with its node, the rules have ended, too
            raise
        if done.status:
            raise ResourceError(f"packet rules could not be removed in {node.name}: {done.stderr.strip()}")

    def absent(self) -> Effect:
        """No rule is left, and a look-up succeeds in each target."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, READY_S)
        left = [node.name for node in self._targets if self._table in self._nft(node, "list tables").stdout]
        answers = not left and until(lambda: all(map(self._answered, self._targets)), ABSENT_S)
        summary = f"rules left in {', '.join(left)}" if left else "names are found" if answers else "look-ups still fail"
        return Effect(answers, summary, {"tables_left": left, "unmeasured": not left and not answers})

    def _asked(self, asker: str) -> str:
        """A name that only a resolver knows there: that of a node that is up, best one that is not hurt; else the asker's component."""
        there = [node for node in self._world.reach.environment().nodes if node.name != asker and node.state == "ready"]
        names = {node.name for node in self._targets}
        best = sorted(there, key=lambda node: node.name in names)
        return best[0].name if best else self._world.reach.node(asker).component

    def _answered(self, node: Node) -> bool:
        """Whether a look-up in a node succeeds.  Raises ResourceError when the node is down."""
        try:
            return self._world.reach.run(node.name, ["getent", "ahostsv4", self._asked(node.name)], timeout_s=ANSWER_S).status == 0
        except DeadlineError:
            return False

    def _answered_beside(self) -> bool:
        reach = self._world.reach
        return reach.popen(None, [*reach.own, "-c", _BESIDE, self._asked("")]).wait(BESIDE_S) == 0

    def _counted(self, node: Node) -> int:
        """Packets that the rule has stopped; 0 where there is none."""
        done = self._nft(node, f"--json list counters table inet {self._table}")
        found = json.loads(done.stdout)["nftables"] if done.status == 0 else []
        return sum(item["counter"]["packets"] for item in found if "counter" in item)

    def _nft(self, node: Node, script: str) -> Completed:
        tool = find("nft")
        argv = [str(tool.programs["nft"]), *(["-f", "-"] if "\n" in script else script.split())]
        return self._world.reach.run(node.name, argv, where="netns", stdin=script, env=dict(tool.env))


def _elements(lease_s: float) -> str:
    return ", ".join(f"{protocol} timeout {max(1, round(lease_s))}s" for protocol in ("tcp", "udp"))


def _rules(table: str, lookups: str, lease_s: float) -> str:
    hook, match, verdict = _CHAINS[lookups]
    return "\n".join([
        f"add table inet {table}",
        f"delete table inet {table}",
        f"add table inet {table}",
        f"add set inet {table} protocols {{ type inet_proto; flags timeout; }}",
        f"add counter inet {table} stopped",
        f"add chain inet {table} queries {{ type filter {hook}; policy accept; }}",
        f"add rule inet {table} queries meta l4proto @protocols {match} counter name stopped {verdict}",
        f"add element inet {table} protocols {{ {_elements(lease_s)} }}",
    ])


def _renewal(table: str, lease_s: float) -> str:
    """Adding an element again does not renew its timeout; deleting and adding it in one transaction does."""
    add = f"add element inet {table} protocols {{ {_elements(lease_s)} }}"
    return "\n".join([add, f"delete element inet {table} protocols {{ tcp, udp }}", add])
