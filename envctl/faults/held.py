"""Rules that send what comes from the peers to a queue, and the process beside them that holds or alters it.

The process ends with its own lease, and the rules' peers with theirs; where it is killed, the rules let everything pass.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from envctl.errors import CapabilityError, ResourceError
from envctl.faults.base import World
from envctl.faults.companion import Companion
from envctl.faults.links import Link, Rules

_HOLDER = "envctl.faults.programs.queue_holder"
_CHAIN = "held"


class Held(Rules):
    """Rules at each receiver that lead a share of what comes from the peers through a queue.

    `mode` and `times` are those of `queue_holder`.
    """

    family: ClassVar[str] = "ip"  # the target NFQUEUE is one of iptables, which knows no family for both
    chains: ClassVar[tuple[str, ...]] = (_CHAIN,)

    def __init__(self, world: World, links: Sequence[Link], share: float, kind: str, mode: str, times: Sequence[float] = ()) -> None:
        super().__init__(world, links, share, kind)
        self._order = (mode, tuple(f"{time:g}" for time in times))
        self._holders: dict[str, Companion] = {}
        self._lock = threading.Lock()  # leases are renewed while effects are measured

    def fate(self, _link: Link) -> str:
        """To the chain with the rule for the queue, which the holder adds: until then, and without it, on."""
        return f"goto {_CHAIN}"

    def check(self) -> None:
        """Raises CapabilityError where packets can't be queued."""
        super().check()
        reach = self._world.reach
        for link in self._links:
            done = reach.run(link.receiver.name, [*reach.own, "-m", _HOLDER, "try"], where="netns")
            if done.status or done.stdout.strip() == "None":
                said = done.stderr.strip().rpartition("\n")[2] or "the kernel has neither nft's `queue` (CONFIG_NFT_QUEUE) nor xt_NFQUEUE with nft_compat"
                raise CapabilityError(f"packets can't be queued in {link.receiver.name}: {said}",
                                      hint="sudo modprobe -a nfnetlink_queue nft_queue (or xt_NFQUEUE nft_compat); `envctl doctor` says whether it works")

    def begin(self, link: Link, lease_s: float) -> None:
        """Makes the rules, then starts the holder, which completes them."""
        super().begin(link, lease_s)
        self._let_go(link.receiver.name)
        mode, times = self._order
        holder = Companion(self._world.reach, link.receiver.name, _HOLDER, mode, self._table, _CHAIN, f"{lease_s:g}", *times)
        if not holder.line().startswith("queue "):
            holder.end()
            raise ResourceError(f"no process could hold packets in {link.receiver.name}")
        with self._lock:
            self._holders[link.receiver.name] = holder

    def renew(self, link: Link, lease_s: float) -> None:
        """Renews both; a holder that has ended stays away."""
        with self._lock:
            self._holders[link.receiver.name].tell(f"lease {lease_s:g}")
        super().renew(link, lease_s)

    def remove(self) -> None:
        """Takes the rules away first: what is held then goes on."""
        try:
            super().remove()
        finally:
            for name in list(self._holders):
                self._let_go(name)

    def _let_go(self, name: str) -> None:
        with self._lock:
            if holder := self._holders.pop(name, None):
                holder.end()

    def counts(self) -> dict[str, int]:
        """What the holders count, over all receivers (see `Holder.counts`), and how many of them are gone."""
        total = {"read": 0, "missed": 0, "dropped": 0, "held_most": 0, "gone": 0}
        for link in self._links:
            told = {"gone": 1}
            with suppress(ResourceError, KeyError), self._lock:
                told = self._holders[link.receiver.name].ask("tell")
            for name, value in told.items():
                total[name] += value
        return total
