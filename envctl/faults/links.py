"""Links between nodes, and rules at their receiving ends that drop what comes from the peers they name.

Dropping at the receiver is what a lossy network looks like to both ends; a drop at the sender surfaces there as an error.
The rules name their peers in a set whose elements time out, so the kernel heals them when nobody else does.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Literal

from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults.base import World
from envctl.faults.targets import AT_ONCE, at_each, nodes_named, slug
from envctl.model.environment import Node
from envctl.substrates.base import Completed, Reach
from envctl.toolchain import find

Direction = Literal["forward", "reverse", "both"]
ARROWS = {"forward": "→", "reverse": "←", "both": "↔"}
_RULES = 2  # that each table has: one that counts what comes from the peers, one that hurts it
_PARTS = 10_000  # resolution of the rules' random draw: 0.01 %


@dataclass(frozen=True, slots=True)
class Link:
    """One receiver and the peers from which its packets are hurt."""

    receiver: Node
    senders: tuple[Node, ...]

    @property
    def name(self) -> str:
        """Of its receiver."""
        return self.receiver.name

    def now(self, reach: Reach) -> Link:
        """The same nodes with the addresses that they have now: a node that was started again may have another one."""
        return Link(reach.node(self.receiver.name), tuple(reach.node(each.name) for each in self.senders))


def links_between(world: World, one: str, other: str, direction: Direction) -> tuple[Link, ...]:
    """The links from the nodes called `one` to those called `other`, or back, or both.  Raises UsageError when there is none."""
    found = links(nodes_named(world, one), nodes_named(world, other), direction)
    if not found:
        raise UsageError(f"there is no link between {one} and {other}, only one node", hint="name two components, or two nodes")
    return found


def links(senders: Sequence[Node], receivers: Sequence[Node], direction: Direction) -> tuple[Link, ...]:
    """One link a receiver.  What a node tells itself crosses no network."""
    ends = [(senders, receivers)] if direction != "reverse" else []
    ends += [(receivers, senders)] if direction != "forward" else []
    peers: dict[str, tuple[Node, dict[str, Node]]] = {}
    for there, here in ends:
        for node in here:
            peers.setdefault(node.name, (node, {}))[1].update({other.name: other for other in there if other.name != node.name})
    return tuple(Link(node, tuple(others.values())) for node, others in peers.values() if others)


def senders_of(links: Sequence[Link]) -> tuple[Node, ...]:
    """Each of them once."""
    return tuple({sender.name: sender for link in links for sender in link.senders}.values())


class Rules:
    """A table of ours at the receiver of each link, whose rules do something to what comes from its peers and count it, until their lease ends."""

    family: ClassVar[str] = "inet"
    hook: ClassVar[str] = "input"
    match: ClassVar[str] = 'iifname != "lo" ip saddr @peers'
    chains: ClassVar[tuple[str, ...]] = ()  # further chains, empty at first, to which a fate may lead
    hurt: ClassVar[str] = "hurt"  # what the counter of packets to which something was done is called

    def __init__(self, world: World, links: Sequence[Link], share: float, kind: str) -> None:
        self._world, self._links, self._share = world, links, share
        self._table = f"envctl_{kind}_{slug(world.scratch.name)}"
        self._starts: dict[str, int] = {}  # receiver → which start of it has the rules
        self._ruled = True  # whether it is done by rules of ours, which count it, or by the substrate's own means

    def fate(self, link: Link) -> str:
        """What the rules do to a packet that was drawn, in the language of nft."""
        raise NotImplementedError

    def elsewhere(self, _link: Link, _lease_s: float) -> bool:
        """Whether the substrate's own means do it, in the place of rules."""
        return False

    def check(self) -> None:
        """Raises CapabilityError when a receiver's rules can't be seen."""
        for link in self._links:
            done = self._nft(link.receiver, "list tables")
            if done.status:
                raise CapabilityError(
                    f"packet rules can't be set in {link.receiver.name}: {done.stderr.strip()}",
                    hint="`envctl doctor` says whether nftables works on this machine",
                )

    @property
    def undo(self) -> dict[str, object]:
        """What takes the rules away, for the journal."""
        return {"nft_table": f"{self.family} {self._table}", "nodes": [link.receiver.name for link in self._links]}

    def set(self, lease_s: float) -> None:
        """Makes the rules, or renews them.  A renewal only renews: a rule that somebody removed stays removed, and is then not proved.

        A receiver that was started again since may have a new network namespace; there the rules are made anew.
        """
        again = bool(self._starts)
        at_each(self._links, lambda link: self._set(link.now(self._world.reach), lease_s, again), at_once=True)

    def _set(self, link: Link, lease_s: float, again: bool) -> None:
        node = link.receiver
        if again and node.pid is None:
            return  # it loses everything as it is; once it is back, the next renewal sets its rules
        if self.elsewhere(link, lease_s):
            self._ruled = False
        elif self._starts.get(node.name) == node.starts:
            self.renew(link, lease_s)
        else:
            self.begin(link, lease_s)
        self._starts[node.name] = node.starts

    def begin(self, link: Link, lease_s: float) -> None:
        """Makes the rules of one link."""
        self._change(link, self._rules(link, lease_s))

    def renew(self, link: Link, lease_s: float) -> None:
        """Renews them."""
        self._change(link, self._renewal(link, lease_s))

    def _change(self, link: Link, script: str) -> None:
        done = self._nft(link.receiver, script)
        if done.status:
            raise ResourceError(f"packet rules were refused in {link.receiver.name}: {done.stderr.strip()}")

    def remove(self) -> None:
        """Takes them away, idempotently: `add` before `delete` makes the removal succeed whether or not the table is there."""
        at_each(self._links, self._remove)
        self._starts.clear()

    def _remove(self, link: Link) -> None:
        table = f"{self.family} {self._table}"
        self._world.reach.unlose(link.receiver.name)
        try:
            done = self._nft(link.receiver, f"add table {table}\ndelete table {table}")
        except ResourceError:
            if self._world.reach.node(link.receiver.name).pid is None:
                return  # where a network namespace ends with its node, the rules have ended, too
            raise
        if done.status:
            raise ResourceError(f"packet rules could not be removed in {link.receiver.name}: {done.stderr.strip()}")

    def left(self) -> list[str]:
        """The receivers that still have rules."""
        return [link.receiver.name for link in self._links if self._table in self._nft(link.receiver, "list tables").stdout]

    def acting(self) -> list[str]:
        """The receivers whose rules are whole and still name every peer: of whom they name none any more, the lease has run out."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            acts = pool.map(lambda link: self._acts(link.now(self._world.reach)), self._links)
            return [link.receiver.name for link, whole in zip(self._links, acts, strict=True) if whole]

    def _acts(self, link: Link) -> bool:
        done = self._nft(link.receiver, f"--json list table {self.family} {self._table}")
        found = json.loads(done.stdout)["nftables"] if done.status == 0 else []
        peers = {each["elem"]["val"] for item in found for each in item.get("set", {}).get("elem", ())}
        rules = sum(item.get("rule", {}).get("chain") == "arriving" for item in found)
        return rules == _RULES and peers >= {node.address for node in link.senders}

    def counters(self) -> list[tuple[int, int]] | None:
        """(packets from the peers, packets hurt) at each receiver; None where the substrate's own means hurt them."""
        return [self._counted(link.receiver) for link in self._links] if self._ruled else None

    def _counted(self, node: Node) -> tuple[int, int]:
        """(packets from the peers, packets hurt) as the rule counted them; zeros when the rule is gone."""
        done = self._nft(node, f"--json list counters table {self.family} {self._table}")
        if done.status:
            return 0, 0
        found = {item["counter"]["name"]: item["counter"]["packets"]
                 for item in json.loads(done.stdout)["nftables"] if "counter" in item}
        return found.get("seen", 0), found.get(self.hurt, 0)

    def _nft(self, node: Node, script: str, *options: str) -> Completed:
        tool = find("nft")
        return self._world.reach.run(
            node.name, [str(tool.programs["nft"]), *options, *(["-f", "-"] if "\n" in script else script.split())],
            where="netns", stdin=script, env=dict(tool.env),
        )

    def _rules(self, link: Link, lease_s: float) -> str:
        table = f"{self.family} {self._table}"
        draw = f"numgen random mod {_PARTS} < {round(self._share * _PARTS)} " if self._share < 1 else ""
        elements = ", ".join(f"{node.address} timeout {max(1, round(lease_s))}s" for node in link.senders)
        return "\n".join([
            f"add table {table}",
            f"delete table {table}",
            f"add table {table}",
            f"add set {table} peers {{ type ipv4_addr; flags timeout; }}",
            f"add counter {table} seen",
            f"add counter {table} {self.hurt}",
            *(f"add chain {table} {chain}" for chain in self.chains),
            f"add chain {table} arriving {{ type filter hook {self.hook} priority -150; policy accept; }}",
            f"add rule {table} arriving {self.match} counter name seen",
            f"add rule {table} arriving {self.match} {draw}counter name {self.hurt} {self.fate(link)}",
            f"add element {table} peers {{ {elements} }}",
        ])

    def _renewal(self, link: Link, lease_s: float) -> str:
        """Adding an element again does not renew its timeout; deleting and adding it in one transaction does."""
        table = f"{self.family} {self._table}"
        lines = []
        for node in link.senders:
            element = f"{node.address} timeout {max(1, round(lease_s))}s"
            lines += [f"add element {table} peers {{ {element} }}", f"delete element {table} peers {{ {node.address} }}",
                      f"add element {table} peers {{ {element} }}"]
        return "\n".join(lines)


class Drops(Rules):
    """Rules that drop a share of what comes from the peers."""

    hurt: ClassVar[str] = "dropped"

    def fate(self, _link: Link) -> str:
        """Gone."""
        return "drop"

    def elsewhere(self, link: Link, lease_s: float) -> bool:
        """See `Reach.lose`."""
        return self._world.reach.lose(link.receiver.name, [each.name for each in link.senders], self._share, lease_s)
