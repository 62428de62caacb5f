"""Packet loss on a link: a share of the packets that arrive from the named peers is dropped where they arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.links import ARROWS, Drops, Link, links_between, senders_of
from envctl.faults.probes import gone, measure
from envctl.faults.statistics import ALPHA, binomial_p_value, probes_to_tell
from envctl.faults.targets import ratio

PROBES = 1000  # per verification, over all links: the exact test needs at least a thousand packets
FEWEST_PROBES = 400  # per link, so that a link whose rule is missing can't hide behind the others
MOST_PROBES = 6000  # per link; a rarer loss than these can show is refused


class PacketLoss:
    """`{fault: packet-loss, from: orders, to: bus, loss: 20 %, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "packet-loss"
    tools: ClassVar[tuple[str, ...]] = ("nft",)
    mechanism: ClassVar[str] = "nft drops at the receiver, drawn at random"
    proof: ClassVar[str] = "loss of numbered probes, binomial test; the rule's counters"
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

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> PacketLoss:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Both ends of the link."""
        return [(end, params[end]) for end in ("from", "to") if isinstance(params.get(end), str)]

    @cached_property
    def _links(self) -> tuple[Link, ...]:
        return links_between(self._world, self._params["from"], self._params["to"], self._params.get("direction", "forward"))

    @cached_property
    def _drops(self) -> Drops:
        return Drops(self._world, self._links, self._loss, "loss")

    def probe(self) -> Blast:
        """See `Fault.probe`: nft must be able to see each receiver's rules."""
        self._drops.check()
        arrow = ARROWS[self._params.get("direction", "forward")]
        summary = f"{self._params['from']} {arrow} {self._params['to']} {self._loss * 100:g} %"
        return Blast(tuple(link.receiver for link in self._links), summary, senders_of(self._links))

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return self._drops.undo

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`."""
        self._drops.set(lease_s)

    def verify(self) -> Effect:
        """Sends probes over each link: the loss must be the one asked for (exact binomial test) and the canary unharmed."""
        each = max(FEWEST_PROBES, -(-PROBES // len(self._links)), probes_to_tell(self._loss))
        measured = measure(self._world, self._links, each)
        lost = sum(m.lost for m in measured)
        sent = sum(m.sent for m in measured)
        counters = self._drops.counters() or [(sent, lost)]
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
        """See `Fault.heal`."""
        self._drops.remove()

    def absent(self) -> Effect:
        """See `probes.gone`."""
        return gone(self._world, self._drops, self._links)
