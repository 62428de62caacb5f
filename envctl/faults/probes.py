"""What probes over a link show: sequence-numbered datagrams from its senders, and from senders that no rule names."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from envctl.errors import ResourceError
from envctl.faults.acting import bystanders, unexplained
from envctl.faults.base import Effect, World
from envctl.faults.companion import Companion
from envctl.faults.links import Link, Rules
from envctl.model.environment import Node
from envctl.substrates.base import Process, Reach

CANARY_PROBES = 200
ABSENT_TRIES = 3  # a probe can be lost without us; a link that is whole shows it in one of these
_PROBE = "envctl.faults.programs.udp_probe"


@dataclass(frozen=True, slots=True)
class Measured:
    """Probes of one link, or of several together."""

    sent: int
    lost: int
    canary_sent: int
    canary_lost: int
    again: int = 0  # arrived more than once
    late: Sequence[tuple[int, float]] = ()  # arrived after a later one: their numbers, and the seconds by which they were late
    canary_hurt: int = 0  # canary probes that arrived again or late


@dataclass(frozen=True, slots=True)
class Arrived:
    """What a receiver tells of one sender; the words are those of `Measured`."""

    distinct: int = 0
    again: int = 0
    late: Sequence[tuple[int, float]] = ()


def measure(world: World, links: Sequence[Link], probes: int) -> list[Measured]:
    """Sends `probes` from each sender of each link, over all links at once.  Raises ResourceError when they can't be sent."""
    with ThreadPoolExecutor(len(links)) as pool:
        return list(pool.map(lambda link: _measure(world, link, probes), links))


def gone(world: World, rules: Rules, links: Sequence[Link]) -> Effect:
    """No rule is left, and probes over the same links all arrive.

    Probes that stay away although no rule is left say that the measurement failed, not the healing (`unmeasured`).
    """
    left = rules.left()
    lost = 0
    for _ in range(ABSENT_TRIES):
        lost = sum(measured.lost for measured in measure(world, links, CANARY_PROBES))
        if left or not lost:
            break
    summary = "gone" if not left and not lost else f"rules left in {', '.join(left) or 'no node'}, {lost} probes lost"
    return Effect(not left and not lost, summary, {"tables_left": left, "probes_lost": lost, "unmeasured": not left and lost > 0})


def _measure(world: World, link: Link, probes: int) -> Measured:
    """Sends probes from every sender and from untargeted canaries, and counts at the receiver what arrived."""
    reach = world.reach
    link = link.now(reach)
    canaries = untargeted(world, link)
    with Receiver(reach, link.receiver) as receiver:
        senders = [_sender(reach, node.name, receiver, probes, node.address) for node in link.senders]
        senders += [_sender(reach, name, receiver, CANARY_PROBES, address) for name, address in canaries.items()]
        for sender in senders:
            if sender.wait(30):
                raise ResourceError(f"the probes towards {link.receiver.name} could not be sent")
        arrived = receiver.arrived()
    aimed = [arrived.get(node.address, Arrived()) for node in link.senders]
    free = {None, *unexplained(world, filter(None, canaries))}  # another fault may have begun meanwhile
    spared = [arrived.get(address, Arrived()) for name, address in canaries.items() if name in free]
    return Measured(
        probes * len(aimed), sum(probes - each.distinct for each in aimed),
        CANARY_PROBES * len(spared), sum(CANARY_PROBES - each.distinct for each in spared),
        sum(each.again for each in aimed), [late for each in aimed for late in each.late],
        sum(each.again + len(each.late) for each in spared),
    )


def untargeted(world: World, link: Link) -> dict[str | None, str]:
    """Senders that no rule names: one bystander node if there is one, and what is beside the nodes (telemetry, control)."""
    return {None: world.reach.address} | {node.name: node.address for node in bystanders(world, (*link.senders, link.receiver), most=1)}


def _sender(reach: Reach, node: str | None, receiver: Receiver, count: int, source: str) -> Process:
    argv = [*reach.own, "-m", _PROBE, "send", receiver.node.address, receiver.port, str(count), source]
    return reach.popen(node, argv, where="netns" if node else "node")


class Receiver(Companion):
    """A probe receiver in a node's network namespace."""

    def __init__(self, reach: Reach, node: Node) -> None:
        super().__init__(reach, node.name, _PROBE, "receive", node.address)
        self.node, self.port = node, self.line()
        if not self.port:
            self.end()
            raise ResourceError(f"no probe receiver could be started in {node.name}")

    def arrived(self) -> dict[str, Arrived]:
        """Tells it that all probes are sent; returns what arrived, by sender address."""
        return {source: Arrived(**told) for source, told in self.ask("done").items()}
