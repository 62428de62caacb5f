"""Bandwidth of a link: what each sender sends to the named peers, all of them together, goes at a given rate and no faster.

A class of HTB where the packets leave queues what is too fast: at most what the rate carries in 0.1 s or 128 KiB (two of the largest
segments), whichever is more; beyond that it drops, as a slow line does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from envctl.faults.base import Blast, Effect
from envctl.faults.classes import Classes
from envctl.faults.goodput import Flow, flows
from envctl.faults.shaping import ENDS, OnLinks
from envctl.spec.units import bits_per_s

LEAST_BPS, MOST_BPS = 100e3, 500e6  # what can be shown in a few seconds, and by a process on a busy machine
SLOWEST, FASTEST = 0.85, 1.1  # what the link carried, of what was asked
LEAST_S, FRAMES, FRAME_BITS = 0.5, 40, 1514 * 8  # a transfer lasts as long as so many frames need, or longer
OFFERED = 4  # times the asked rate
SPARED = 1.5  # times the asked rate: what an untargeted flow must reach at least
_LEAST_QUEUE, _QUEUE_S = 128 << 10, 0.1


class Bandwidth(OnLinks):
    """`{fault: bandwidth, from: orders, to: bus, rate: 1 Mbit/s, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "bandwidth"
    mechanism: ClassVar[str] = "a class of HTB at the senders"
    proof: ClassVar[str] = "goodput of a transfer of our own"
    tools: ClassVar[tuple[str, ...]] = ("nft", "ip")
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["from", "to", "rate"],
        "additionalProperties": False,
        "properties": {
            **ENDS,
            "rate": {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[kM]bit/s$",
                     "description": "what each sender can send to the other end, such as 1 Mbit/s: 100 kbit/s to 500 Mbit/s"},
        },
    }

    @classmethod
    def impossible(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """What can be shown."""
        if LEAST_BPS <= bits_per_s(params["rate"]) <= MOST_BPS:
            return ()
        return [("rate", f"{params['rate']} is not between 100 kbit/s and 500 Mbit/s")]

    @property
    def asked(self) -> str:
        """Its rate."""
        return str(self._params["rate"])

    @property
    def _rate(self) -> float:
        return bits_per_s(self._params["rate"])

    @cached_property
    def rules(self) -> Classes:
        """See `OnLinks.rules`."""
        return Classes(self._world, self.links, "rate", self._rate, f"bfifo limit {max(_LEAST_QUEUE, round(self._rate / 8 * _QUEUE_S))}")

    def probe(self) -> Blast:
        """See `Fault.probe`.  The blast is the senders."""
        blast = super().probe()
        return Blast(blast.peers, blast.summary, blast.nodes)

    def _flows(self) -> list[Flow]:
        seconds = max(LEAST_S, FRAMES * FRAME_BITS / self._rate)
        return flows(self._world.reach, self.links, seconds, OFFERED * self._rate, SPARED * self._rate)

    def verify(self) -> Effect:
        """Transfers in bulk from each sender: what its class carried meanwhile is the asked rate, and an untargeted flow is faster.

        Where other traffic shares the class, the transfer's goodput is a part of what was carried; the bytes of both tell which.
        """
        before = self.rules.sent()
        measured = self._flows()
        after = self.rules.sent()
        carried = {}
        for name in before:
            own = [flow for flow in measured if flow.sender == name and not flow.canary]
            goodput, payload = sum(flow.bits_per_s for flow in own), sum(flow.bytes for flow in own)
            carried[name] = goodput * (after[name][0] - before[name][0]) / payload if payload else 0.0
        slow = [flow for flow in measured if flow.canary and flow.bits_per_s < SPARED * self._rate]
        fits = all(SLOWEST <= rate / self._rate <= FASTEST for rate in carried.values())
        summary = f"carried {_list(carried.values())}, canary {_list(flow.bits_per_s for flow in measured if flow.canary)}"
        return Effect(fits and not slow, summary, {
            "asked_bps": self._rate, "carried_bps": carried, "goodput_bps": {f"{flow.sender} → {flow.receiver}": flow.bits_per_s for flow in measured},
            "queue_dropped": sum(after[name][1] - before[name][1] for name in before),
            "canary_sent": sum(flow.canary for flow in measured), "canary_lost": len(slow)})

    def absent(self) -> Effect:
        """Neither rules nor class are left, and transfers over the same links are faster than the rate."""
        left = self.rules.left()
        slow = [] if left else [flow for flow in self._flows() if not flow.canary and flow.bits_per_s < SPARED * self._rate]
        summary = f"left in {', '.join(left)}" if left else f"{len(slow)} transfers are still slow" if slow else "gone"
        return Effect(not left and not slow, summary, {"tables_left": left, "slow": len(slow), "unmeasured": not left and bool(slow)})


def _list(rates: Any) -> str:
    return ", ".join(f"{rate / 1e6:.2f}" for rate in rates) + " Mbit/s"
