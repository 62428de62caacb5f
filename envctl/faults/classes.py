"""Rules at the senders that lead what goes to the peers through a class of HTB, which limits or delays it.

The class alone does nothing: the rules classify, and when their peers time out everything goes by the class again.  So the kernel ends
the fault when nobody else does; what is left then is an idle queueing discipline, until the fault is healed.
"""

from __future__ import annotations

import json
import re
import threading
import zlib
from collections.abc import Sequence
from typing import ClassVar

from envctl.errors import CapabilityError, ResourceError
from envctl.faults.base import World
from envctl.faults.links import Link, Rules
from envctl.faults.targets import all_of, at_each
from envctl.model.environment import Node
from envctl.substrates.base import Completed, Reach
from envctl.toolchain import find

_ROOT = "e5c1:"  # the handle of our root
_QDISCS = "envctl.faults.programs.qdiscs"
_PLAIN = ("noqueue", "pfifo_fast", "fq_codel", "fq", "mq", "pfifo")  # what an interface has by itself
_NO_RATE = 100e9  # bits per second
_NETEM_PACKETS = 100_000  # its own limit of 1,000 would turn the delay of a bulk transfer into loss
_lock = threading.Lock()  # the root is shared by all faults at a node


def disciplines(reach: Reach, node: Node, *kinds: str) -> dict[str, bool]:
    """Which of them the kernel has, asked in a node's network.  Raises CapabilityError when it can't be asked."""
    done = reach.run(node.name, [*reach.own, "-m", _QDISCS, *kinds], where="netns")
    if done.status:
        raise CapabilityError(f"queueing disciplines can't be set in {node.name}: {done.stderr.strip().rpartition(chr(10))[2]}",
                              hint="`envctl doctor` says what this machine can")
    found: dict[str, bool] = json.loads(done.stdout)
    return found


def turned(links: Sequence[Link]) -> tuple[Link, ...]:
    """For each sender the receivers to which it sends, in the shape of links: the rules are where `receiver` is."""
    nodes: dict[str, tuple[Node, list[Node]]] = {}
    for link in links:
        for sender in link.senders:
            nodes.setdefault(sender.name, (sender, []))[1].append(link.receiver)
    return tuple(Link(node, tuple(peers)) for node, peers in nodes.values())


class Classes(Rules):
    """One class at each sender, with a rate (bits per second) and a leaf (a queueing discipline in the language of tc)."""

    hook: ClassVar[str] = "postrouting"
    match: ClassVar[str] = 'oifname != "lo" ip daddr @peers'

    def __init__(self, world: World, links: Sequence[Link], kind: str, rate: float, leaf: str) -> None:
        super().__init__(world, turned(links), 1.0, kind)
        self._rate, self._leaf = rate, leaf
        self._class = f"{_ROOT}{1 + zlib.crc32(self._table.encode()) % 0xFFFE:x}"  # tc has no names: a number that the name gives

    def fate(self, _link: Link) -> str:
        """Into the class, by the priority that HTB looks at first."""
        return f'meta priority set "{self._class}"'

    def check(self) -> None:
        """Raises CapabilityError where there can be no class."""
        super().check()
        for link in self._links:
            node = link.receiver
            if not disciplines(self._world.reach, node, "htb")["htb"]:
                raise CapabilityError(f"the kernel of {node.name} has no HTB", hint="sudo modprobe sch_htb (CONFIG_NET_SCH_HTB)")
            root = re.search(r"^qdisc (\S+) (\S+) root", self._must(node, f"qdisc show dev {self._device(link)}"), re.MULTILINE)
            if root and root[1] not in _PLAIN and root[2] != _ROOT:
                raise CapabilityError(f"{node.name} already has a queueing discipline of somebody else's ({root[1]})",
                                      hint="its traffic is shaped by other means; shape it there")

    def begin(self, link: Link, lease_s: float) -> None:
        """Makes the class, then the rules that lead to it."""
        node, device, burst = link.receiver, self._device(link), max(1600, round(self._rate / 8 / 1000))
        with _lock:
            if _ROOT not in self._must(node, f"qdisc show dev {device}"):
                self._must(node, f"qdisc add dev {device} root handle {_ROOT} htb default 0")
            self._must(node, f"class replace dev {device} parent {_ROOT} classid {self._class} htb rate {self._rate:.0f}bit"
                             f" burst {burst} cburst {burst} quantum 1514")
            self._must(node, f"qdisc replace dev {device} parent {self._class} {self._leaf}")
        super().begin(link, lease_s)

    def remove(self) -> None:
        """Takes the rules away, then the class, and our root after the last one."""
        all_of([("", super().remove), ("", lambda: at_each(self._links, self._dismantle_if_there))])

    def _dismantle_if_there(self, link: Link) -> None:
        if self._world.reach.node(link.receiver.name).pid is not None:
            with _lock:
                self._dismantle(link.receiver)

    def _dismantle(self, node: Node) -> None:
        for device in re.findall(rf"^qdisc htb {_ROOT} dev (\S+) root", self._must(node, "qdisc show"), re.MULTILINE):
            here = re.findall(rf"^class htb ({_ROOT}\S+)", self._must(node, f"class show dev {device}"), re.MULTILINE)
            if here == [self._class] or not here:
                self._must(node, f"qdisc del dev {device} root")
            elif self._class in here:
                self._must(node, f"class del dev {device} classid {self._class}")

    def left(self) -> list[str]:
        """The senders that still have rules or the class."""
        ruled = super().left()
        return [link.receiver.name for link in self._links if link.receiver.name in ruled or self._told(link)]

    def sent(self) -> dict[str, tuple[int, int]]:
        """(bytes with headers that went through the class, packets that its queue dropped) at each sender."""
        return {link.receiver.name: self._counted_by_class(link) for link in self._links}

    def _counted_by_class(self, link: Link) -> tuple[int, int]:
        found = re.search(r"Sent (\d+) bytes \d+ pkt \(dropped (\d+)", self._told(link))
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def _told(self, link: Link) -> str:
        """What tc tells of the class; nothing when it is not there."""
        done = self._tc(link.receiver, f"-s class show dev {self._device(link)}")
        return next((part for part in re.split(r"\n(?=class )", done.stdout) if part.startswith(f"class htb {self._class} ")), "")

    def _device(self, link: Link) -> str:
        """The interface by which the peers are reached."""
        tool, node = find("ip"), link.receiver
        argv = [str(tool.programs["ip"]), "-o", "route", "get", str(link.senders[0].address)]
        done = self._world.reach.run(node.name, argv, where="netns", env=dict(tool.env))
        if not (found := re.search(r"\bdev (\S+)", done.stdout)):
            raise ResourceError(f"{node.name} has no way to {link.senders[0].name}: {done.stderr.strip()}")
        return found[1]

    def _must(self, node: Node, line: str) -> str:
        done = self._tc(node, line)
        if done.status:
            raise ResourceError(f"`tc {line}` failed in {node.name}: {done.stderr.strip()}")
        return done.stdout

    def _tc(self, node: Node, line: str) -> Completed:
        tool = find("ip")
        return self._world.reach.run(node.name, [str(tool.programs["tc"]), *line.split()], where="netns", env=dict(tool.env))


class Netem(Classes):
    """Classes whose leaf is the kernel's netem, for what it delays; their rate is none."""

    def __init__(self, world: World, links: Sequence[Link], kind: str, delay_s: float, jitter_s: float) -> None:
        jitter = f" {jitter_s * 1e6:.0f}us" if jitter_s else ""
        super().__init__(world, links, kind, _NO_RATE, f"netem limit {_NETEM_PACKETS} delay {delay_s * 1e6:.0f}us{jitter}")

    def counts(self) -> dict[str, int]:
        """What its queue dropped, and at how many senders the class is gone."""
        there = [self._told(link) for link in self._links]
        return {"dropped": sum(dropped for _, dropped in self.sent().values()), "missed": 0, "gone": there.count("")}
