"""Reordering on a link: a share of the packets that arrive from the named peers is held back, so that later ones overtake them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import median
from typing import Any, ClassVar

from envctl.faults.base import Effect
from envctl.faults.held import Held
from envctl.faults.probes import measure
from envctl.faults.programs.udp_probe import PER_SECOND
from envctl.faults.shaping import ENDS, SHARE, OfAShare, duration
from envctl.faults.targets import ratio
from envctl.spec.units import duration_s

LEAST_S, MOST_S = 0.005, 0.15  # probes go every 0.5 ms, and are waited for until 0.2 s after the last one
MOST_SHARE = 0.5  # of more, those that keep their place would be the odd ones
EARLY_S, LATE_S, SLACK = 0.002, 0.01, 0.25  # by how much the typical lateness may be less or more than asked: the time, or that share of it


class Reorder(OfAShare):
    """`{fault: reorder, from: orders, to: bus, share: 5 %, by: 20ms, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "reorder"
    mechanism: ClassVar[str] = "a queue of netfilter and a process that holds packets"
    proof: ClassVar[str] = "numbered probes that arrive late, binomial test"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["from", "to", "share", "by"],
        "additionalProperties": False,
        "properties": {
            **ENDS,
            "share": {**SHARE, "description": "share of packets that others overtake, such as 5 %; at most 50 %"},
            "by": duration("20ms", "how long such a packet is held back: 5 to 150 ms"),
        },
    }

    @classmethod
    def impossible(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """What can be shown."""
        if found := super().impossible(params):
            return found
        wrong = []
        if ratio(params["share"]) > MOST_SHARE:
            wrong.append(("share", f"of {params['share']} is too much: at most {MOST_SHARE * 100:g} % can be overtaken by the others"))
        if not LEAST_S <= duration_s(params["by"]) <= MOST_S:
            wrong.append(("by", f"{params['by']} is not between {LEAST_S * 1000:g} and {MOST_S * 1000:g} ms"))
        return wrong

    @property
    def asked(self) -> str:
        """Its share and its time."""
        return f"{super().asked} late by {self._params['by']}"

    @property
    def _by_s(self) -> float:
        return duration_s(self._params["by"])

    @cached_property
    def rules(self) -> Held:
        """See `OnLinks.rules`."""
        return Held(self._world, self.links, self.share, "late", "hold", (self._by_s, 0.0))

    def verify(self) -> Effect:
        """Sends numbered probes over each link: the asked share arrives after later ones, late by about the asked time, and none is lost.

        The last probes, which none could overtake in that time, don't count.
        """
        tail = round(3 * self._by_s * PER_SECOND)
        each = self.probes
        measured = measure(self._world, self.links, each + tail)
        late = [[by for number, by in m.late if number < each] for m in measured]
        hits = [(len(found), m.sent * each // (each + tail)) for found, m in zip(late, measured, strict=True)]
        typical = median(by for found in late for by in found) if any(late) else 0.0
        lost, counts = sum(m.lost for m in measured), self.rules.counts()
        off = typical - self._by_s
        fits = -max(EARLY_S, SLACK * self._by_s) <= off <= max(LATE_S, SLACK * self._by_s)
        effect = self.judged("delayed past later ones", measured, hits, {"probes_lost": lost, "late_by_ms": typical * 1000, **counts},
                             fair=fits and not lost and not any(counts[each] for each in ("missed", "dropped", "gone")))
        return Effect(effect.shown, f"{effect.summary}, by {typical * 1000:.1f} ms", effect.detail)
