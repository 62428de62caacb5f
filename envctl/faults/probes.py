"""What probes over a link show: sequence-numbered datagrams from its senders, and from senders that no rule names."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

from envctl.errors import ResourceError
from envctl.faults.base import Effect
from envctl.faults.links import Drops, Link
from envctl.model.environment import Node
from envctl.substrates.base import Process, Reach

CANARY_PROBES = 200
ABSENT_TRIES = 3  # a probe can be lost without us; a link that is whole shows it in one of these
_PROBE = ("-m", "envctl.faults.udp_probe")


@dataclass(frozen=True, slots=True)
class Measured:
    """Probes of one link, or of several together."""

    sent: int
    lost: int
    canary_sent: int
    canary_lost: int


def measure(reach: Reach, links: Sequence[Link], probes: int) -> list[Measured]:
    """Sends `probes` from each sender of each link, over all links at once.  Raises ResourceError when they can't be sent."""
    with ThreadPoolExecutor(len(links)) as pool:
        return list(pool.map(lambda link: _measure(reach, link, probes), links))


def gone(reach: Reach, drops: Drops, links: Sequence[Link]) -> Effect:
    """No rule is left, and probes over the same links all arrive.

    Probes that stay away although no rule is left say that the measurement failed, not the healing (`unmeasured`).
    """
    left = drops.left()
    lost = 0
    for _ in range(ABSENT_TRIES):
        lost = sum(measured.lost for measured in measure(reach, links, CANARY_PROBES))
        if left or not lost:
            break
    summary = "gone" if not left and not lost else f"rules left in {', '.join(left) or 'no node'}, {lost} probes lost"
    return Effect(not left and not lost, summary, {"tables_left": left, "probes_lost": lost, "unmeasured": not left and lost > 0})


def _measure(reach: Reach, link: Link, probes: int) -> Measured:
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
    return Measured(
        sent, sent - sum(arrived.get(node.address, 0) for node in link.senders),
        CANARY_PROBES * len(canaries), sum(CANARY_PROBES - arrived.get(address, 0) for address in canaries.values()),
    )


def _canaries(reach: Reach, link: Link) -> dict[str | None, str]:
    """Untargeted senders: one bystander node if there is one, and what is beside the nodes (telemetry, control)."""
    involved = {node.address for node in (*link.senders, link.receiver)}
    bystanders = [node for node in reach.environment().nodes if node.address not in involved and node.state == "ready"]
    return {None: reach.address} | {node.name: node.address for node in bystanders[:1]}


def _sender(reach: Reach, node: str | None, receiver: Receiver, count: int, source: str) -> Process:
    argv = [*reach.own, *_PROBE, "send", receiver.node.address, receiver.port, str(count), source]
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
                self.node.name, [*self._reach.own, *_PROBE, "receive", self.node.address], where="netns", stdin=stdin, stdout=stdout)
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
