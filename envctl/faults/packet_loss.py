"""Packet loss on a link: a share of the packets that arrive from the named peers is dropped where they arrive.

Dropping at the receiver is what a lossy network looks like to both ends; a drop at the sender surfaces there as an error.
The rule names its peers in a set whose elements time out, so the kernel heals it when nobody else does.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, lgamma, log, log1p
from typing import Any, ClassVar, Self

from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import nodes_named, ratio, slug
from envctl.model.environment import Node
from envctl.substrates.base import Completed, Process, Reach
from envctl.toolchain import find

PROBES = 1000  # per verification, over all links: the exact test needs at least a thousand packets
FEWEST_PROBES = 400  # per link, so that a link whose rule is missing can't hide behind the others
MOST_PROBES = 6000  # per link; a rarer loss than these can show is refused
CANARY_PROBES = 200
ABSENT_TRIES = 3  # a probe can be lost without us; a link that is whole shows it in one of these
ALPHA = 1e-6
PARTS = 10_000  # resolution of the rule's random draw: 0.01 %
PROBE = ("-m", "envctl.faults.udp_probe")


def probes_to_tell(loss: float) -> int:
    """How many probes it takes until "none was lost" is as improbable as ALPHA under that loss."""
    return 1 if loss >= 1 else ceil(log(ALPHA) / log1p(-loss))


def binomial_p_value(hits: int, trials: int, probability: float) -> float:
    """Two-sided exact binomial test: how likely a count at least this improbable is (method of small p-values)."""
    if trials == 0:
        return 0.0
    if probability in (0.0, 1.0):
        return 1.0 if hits == trials * probability else 0.0

    def log_mass(k: int) -> float:
        choose = lgamma(trials + 1) - lgamma(k + 1) - lgamma(trials - k + 1)
        return choose + k * log(probability) + (trials - k) * log1p(-probability)

    limit = log_mass(hits) + 1e-7  # tolerance for rounding, relative
    return min(1.0, sum(exp(mass) for k in range(trials + 1) if (mass := log_mass(k)) <= limit))


@dataclass(frozen=True, slots=True)
class _Link:
    """One receiver and the peers whose packets it loses."""

    receiver: Node
    senders: tuple[Node, ...]


class PacketLoss:
    """`{fault: packet-loss, from: orders, to: bus, loss: 20 %, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "packet-loss"
    tools: ClassVar[tuple[str, ...]] = ("nft",)
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["from", "to", "loss"],
        "additionalProperties": False,
        "properties": {
            "from": {"type": "string", "description": "component or node that sends"},
            "to": {"type": "string", "description": "component or node at which packets are lost"},
            "loss": {"type": ["string", "number"], "description": "share of packets, such as 20 %"},
            "direction": {"enum": ["forward", "reverse", "both"], "description": "default: forward"},
        },
    }
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._params = params
        self._world = world
        self._loss = ratio(params["loss"])
        if self._loss == 0 or probes_to_tell(self._loss) > MOST_PROBES:
            raise UsageError(f"a packet loss of {self._loss * 100:g} % can't be told from none with {MOST_PROBES:,} probes",
                             hint="ask for 0.3 % or more")
        self._table = f"envctl_loss_{slug(world.scratch.name)}"
        self._starts: dict[str, int] = {}  # receiver → which start of it has the rules
        self._ruled = True  # whether packets are lost by rules of ours, which count them, or by the substrate's own means

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> PacketLoss:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Both ends of the link."""
        return [(end, params[end]) for end in ("from", "to") if isinstance(params.get(end), str)]

    @cached_property
    def _links(self) -> tuple[_Link, ...]:
        senders = nodes_named(self._world, self._params["from"])
        receivers = nodes_named(self._world, self._params["to"])
        direction = self._params.get("direction", "forward")
        ends = [(senders, receivers)] if direction != "reverse" else []
        ends += [(receivers, senders)] if direction != "forward" else []
        links: dict[str, _Link] = {}
        for there, here in ends:
            for node in here:
                if others := tuple(other for other in there if other.name != node.name):  # what it tells itself crosses no network
                    links[node.name] = _Link(node, others)
        if not links:
            raise UsageError(f"there is no link between {self._params['from']} and {self._params['to']}, only one node",
                             hint="name two components, or two nodes")
        return tuple(links.values())

    def probe(self) -> Blast:
        """See `Fault.probe`: nft must be able to see each receiver's rules."""
        for link in self._links:
            done = self._nft(link.receiver, "list tables")
            if done.status:
                raise CapabilityError(
                    f"packet rules can't be set in {link.receiver.name}: {done.stderr.strip()}",
                    hint="`envctl doctor` says whether nftables works on this machine",
                )
        arrow = {"forward": "→", "reverse": "←", "both": "↔"}[self._params.get("direction", "forward")]
        summary = f"{self._params['from']} {arrow} {self._params['to']} {self._loss * 100:g} %"
        return Blast(tuple(link.receiver for link in self._links), summary)

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"nft_table": f"inet {self._table}", "nodes": [link.receiver.name for link in self._links]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A renewal only renews: a rule that somebody removed stays removed, and is then not proved.

        A receiver that was started again since may have a new network namespace; there the rules are made anew.
        """
        for link in self._links:
            node = self._world.reach.node(link.receiver.name)
            if self._starts and node.pid is None:
                continue  # it loses everything as it is; once it is back, the next renewal sets its rules
            if self._world.reach.lose(node.name, [each.name for each in link.senders], self._loss, lease_s):
                self._ruled, self._starts[node.name] = False, node.starts
                continue
            starts = node.starts
            again = self._starts.get(link.receiver.name) == starts
            done = self._nft(link.receiver, self._renewal(link, lease_s) if again else self._rules(link, lease_s))
            if done.status:
                raise ResourceError(f"packet rules were refused in {link.receiver.name}: {done.stderr.strip()}")
            self._starts[link.receiver.name] = starts

    def verify(self) -> Effect:
        """Sends probes over each link: the loss must be the one asked for (exact binomial test) and the canary unharmed."""
        measured = self._measure(max(FEWEST_PROBES, -(-PROBES // len(self._links)), probes_to_tell(self._loss)))
        lost = sum(m.lost for m in measured)
        sent = sum(m.sent for m in measured)
        counters = [self._counters(link.receiver) for link in self._links] if self._ruled else [(sent, lost)]
        seen = sum(counter[0] for counter in counters)
        dropped = sum(counter[1] for counter in counters)
        worst = min(binomial_p_value(m.lost, m.sent, self._loss) for m in measured)
        harmed = sum(m.canary_lost for m in measured)
        none_lost = any(m.lost == 0 for m in measured)  # what fits the asked rate may fit no loss at all
        agrees = not none_lost and dropped >= lost and binomial_p_value(dropped, seen, self._loss) >= ALPHA
        share = dropped / seen if seen else 0.0
        summary = f"measured {share * 100:.1f} % of {seen:,}"
        if harmed:
            summary += f"; the canary lost {harmed} of {sum(m.canary_sent for m in measured)}"
        elif worst < ALPHA or not agrees:
            summary = f"asked {self._loss * 100:g} %, probes lost {lost:,} of {sent:,}, the rule dropped {dropped:,} of {seen:,}"
        return Effect(
            worst >= ALPHA and agrees and not harmed, summary,
            {"probes_sent": sent, "probes_lost": lost, "rule_seen": seen, "rule_dropped": dropped, "asked": self._loss,
             "p_value": worst, "canary_sent": sum(m.canary_sent for m in measured), "canary_lost": harmed},
        )

    def heal(self) -> None:
        """See `Fault.heal`: `add` before `delete` makes the removal succeed whether or not the table is there."""
        for link in self._links:
            self._world.reach.unlose(link.receiver.name)
            try:
                done = self._nft(link.receiver, f"add table inet {self._table}\ndelete table inet {self._table}")
            except ResourceError:
                if self._world.reach.node(link.receiver.name).pid is None:
                    continue  # where a network namespace ends with its node, the rules have ended, too
                raise
            if done.status:
                raise ResourceError(f"packet rules could not be removed in {link.receiver.name}: {done.stderr.strip()}")
        self._starts.clear()

    def absent(self) -> Effect:
        """No rule is left, and probes over the same links all arrive.

        Probes that stay away although no rule is left say that the measurement failed, not the healing (`unmeasured`).
        """
        left = [link.receiver.name for link in self._links if self._table in self._nft(link.receiver, "list tables").stdout]
        lost = 0
        for _ in range(ABSENT_TRIES):
            lost = sum(measured.lost for measured in self._measure(CANARY_PROBES))
            if left or not lost:
                break
        summary = "gone" if not left and not lost else f"rules left in {', '.join(left) or 'no node'}, {lost} probes lost"
        return Effect(not left and not lost, summary, {"tables_left": left, "probes_lost": lost, "unmeasured": not left and lost > 0})

    def _measure(self, probes: int) -> list[_Measured]:
        """All links at once."""
        with ThreadPoolExecutor(len(self._links)) as pool:
            return list(pool.map(lambda link: _measure(self._world.reach, link, probes), self._links))

    def _nft(self, node: Node, script: str) -> Completed:
        tool = find("nft")
        return self._world.reach.run(
            node.name, [str(tool.programs["nft"]), "-f", "-"] if "\n" in script else [str(tool.programs["nft"]), *script.split()],
            where="netns", stdin=script, env=dict(tool.env),
        )

    def _rules(self, link: _Link, lease_s: float) -> str:
        table = f"inet {self._table}"
        draw = f"numgen random mod {PARTS} < {round(self._loss * PARTS)}"
        elements = ", ".join(f"{node.address} timeout {max(1, round(lease_s))}s" for node in link.senders)
        return "\n".join([
            f"add table {table}",
            f"delete table {table}",
            f"add table {table}",
            f"add set {table} peers {{ type ipv4_addr; flags timeout; }}",
            f"add counter {table} seen",
            f"add counter {table} dropped",
            f"add chain {table} arriving {{ type filter hook input priority -150; policy accept; }}",
            f'add rule {table} arriving iifname != "lo" ip saddr @peers counter name seen',
            f'add rule {table} arriving iifname != "lo" ip saddr @peers {draw} counter name dropped drop',
            f"add element {table} peers {{ {elements} }}",
        ])

    def _renewal(self, link: _Link, lease_s: float) -> str:
        """Adding an element again does not renew its timeout; deleting and adding it in one transaction does."""
        table = f"inet {self._table}"
        lines = []
        for node in link.senders:
            element = f"{node.address} timeout {max(1, round(lease_s))}s"
            lines += [f"add element {table} peers {{ {element} }}", f"delete element {table} peers {{ {node.address} }}",
                      f"add element {table} peers {{ {element} }}"]
        return "\n".join(lines)

    def _counters(self, node: Node) -> tuple[int, int]:
        """(packets from the peers, packets dropped) as the rule counted them; zeros when the rule is gone."""
        done = self._nft(node, f"--json list counters table inet {self._table}")
        if done.status:
            return 0, 0
        found = {item["counter"]["name"]: item["counter"]["packets"]
                 for item in json.loads(done.stdout)["nftables"] if "counter" in item}
        return found.get("seen", 0), found.get("dropped", 0)


@dataclass(frozen=True, slots=True)
class _Measured:
    sent: int
    lost: int
    canary_sent: int
    canary_lost: int


def _measure(reach: Reach, link: _Link, probes: int) -> _Measured:
    """Sends probes from every sender and from untargeted canaries, and counts at the receiver what arrived."""
    canaries = _canaries(reach, link)
    with Receiver(reach, link.receiver) as receiver:
        senders = [_sender(reach, node.name, receiver, probes, node.address) for node in link.senders]
        senders += [_sender(reach, name, receiver, CANARY_PROBES, address) for name, address in canaries.items()]
        for sender in senders:
            if sender.wait(30):
                raise ResourceError(f"the probes towards {link.receiver.name} could not be sent")
        arrived = receiver.counts()
    sent = probes * len(link.senders)
    return _Measured(
        sent, sent - sum(arrived.get(node.address, 0) for node in link.senders),
        CANARY_PROBES * len(canaries), sum(CANARY_PROBES - arrived.get(address, 0) for address in canaries.values()),
    )


def _canaries(reach: Reach, link: _Link) -> dict[str | None, str]:
    """Untargeted senders: one bystander node if there is one, and what is beside the nodes (telemetry, control)."""
    involved = {node.address for node in (*link.senders, link.receiver)}
    bystanders = [node for node in reach.environment().nodes if node.address not in involved and node.state == "ready"]
    return {None: reach.address} | {node.name: node.address for node in bystanders[:1]}


def _sender(reach: Reach, node: str | None, receiver: Receiver, count: int, source: str) -> Process:
    argv = [*reach.own, *PROBE, "send", receiver.node.address, receiver.port, str(count), source]
    return reach.popen(node, argv, where="netns" if node else "node")


class Receiver:
    """A probe receiver in a node's network namespace; a context manager that always ends it."""

    def __init__(self, reach: Reach, node: Node) -> None:
        self.node = node
        self._reach = reach

    def __enter__(self) -> Self:
        """Starts it and waits until it listens."""
        stdin, self._tell = os.pipe()
        listen, stdout = os.pipe()
        try:
            self._process = self._reach.popen(
                self.node.name, [*self._reach.own, *PROBE, "receive", self.node.address], where="netns", stdin=stdin, stdout=stdout)
        finally:
            os.close(stdin)
            os.close(stdout)
        self._listen = os.fdopen(listen)
        self.port = self._listen.readline().strip()
        if not self.port:
            raise ResourceError(f"no probe receiver could be started in {self.node.name}")
        return self

    def counts(self) -> dict[str, int]:
        """Tells it that all probes are sent; returns how many distinct ones arrived, by sender address."""
        os.write(self._tell, b"done\n")
        counts: dict[str, int] = json.loads(self._listen.readline() or "{}")
        return counts

    def __exit__(self, *_: object) -> None:
        """Ends it, whatever happened."""
        os.close(self._tell)
        self._listen.close()
        if self._process.poll() is None:
            self._process.signal(signal.SIGKILL)
