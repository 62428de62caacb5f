"""Latency on a link: what arrives from the named peers arrives later, by a fixed time or one that varies.

With `jitter` each packet's time is drawn on its own, evenly between `delay - jitter` and `delay + jitter`; a packet may then overtake
another, as with netem.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from statistics import median, quantiles
from typing import Any, ClassVar

from envctl.faults.base import Effect
from envctl.faults.classes import Netem, disciplines
from envctl.faults.held import Held
from envctl.faults.rtt import Trips, round_trips
from envctl.faults.shaping import ENDS, OnLinks, duration
from envctl.spec.units import duration_s

PROBES = 100  # from each sender of each link
LEAST_S, MOST_S = 0.005, 3.0
SLACK_S, SLACK = 0.01, 0.2  # by how much the median may be more than asked, the larger of the two: a busy machine lets packets go later
EARLY_S = 0.001  # by how much it may be less
ABSENT_TRIES = 3


class Latency(OnLinks):
    """`{fault: latency, from: orders, to: bus, delay: 50ms, jitter: 10ms, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "latency"
    mechanism: ClassVar[str] = "a queue of netfilter and a process that holds packets; netem where the kernel has it"
    proof: ClassVar[str] = "round trips of probes against those before"
    tools: ClassVar[tuple[str, ...]] = ("nft", "ip")
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["from", "to", "delay"],
        "additionalProperties": False,
        "properties": {
            **ENDS,
            "delay": duration("50ms", "how much later packets arrive: 5 ms to 3 s"),
            "jitter": duration("10ms", "by how much that varies, up and down; default: not at all"),
        },
    }

    @classmethod
    def impossible(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """What can be shown, and what is possible."""
        delay_s, wrong = duration_s(params["delay"]), []
        if not LEAST_S <= delay_s <= MOST_S:
            wrong.append(("delay", f"{params['delay']} is not between {LEAST_S * 1000:g} ms and {MOST_S:g} s"))
        if duration_s(params.get("jitter", "0ms")) > delay_s:
            wrong.append(("jitter", f"{params['jitter']} is more than the delay of {params['delay']}"))
        return wrong

    @property
    def asked(self) -> str:
        """Its time."""
        return " ± ".join(self._params[each] for each in ("delay", "jitter") if each in self._params)

    @property
    def _delay_s(self) -> float:
        return duration_s(self._params["delay"])

    @property
    def _jitter_s(self) -> float:
        return duration_s(self._params.get("jitter", "0ms"))

    @cached_property
    def rules(self) -> Held | Netem:
        """See `OnLinks.rules`: by the kernel's netem where it has it, otherwise by a process of ours."""
        if disciplines(self._world.reach, self.links[0].receiver, "netem")["netem"]:
            return Netem(self._world, self.links, "delay", self._delay_s, self._jitter_s)
        return Held(self._world, self.links, 1.0, "delay", "hold", (self._delay_s, self._jitter_s))

    def verify(self) -> Effect:
        """Times round trips over each link: their median is the asked one, none is faster than possible, and they vary as asked."""
        trips = round_trips(self._world, self.links, PROBES)
        counts = self.rules.counts()
        fit = all(self._fits(each) for each in trips)
        lost, canaries = sum(each.lost for each in trips), {name: took for each in trips for name, took in each.canaries.items()}
        canary_lost = sum(took.count(None) for took in canaries.values())
        medians = {name: median([each for each in took if each is not None] or [0.0]) for name, took in canaries.items()}
        canary_s = max(medians.values())  # each flow by itself: many quick ones would hide a slow one
        slowed = [name for name, middle in medians.items() if middle > self._delay_s / 2]
        shown = [median(each.took or [0.0]) * 1000 for each in trips]
        summary = f"median round trip {', '.join(sorted({f'{ms:.1f}' for ms in shown}))} ms, canary {canary_s * 1000:.1f} ms"
        wrong = lost or counts["missed"] or counts["dropped"] or counts["gone"]
        if slowed:
            summary += f" ({', '.join(slowed)})"
        if wrong:
            summary += (f"; {lost} probes lost, {counts['missed']} packets passed by the queue, {counts['dropped']} dropped,"
                        f" nobody who delays at {counts['gone']} nodes")
        return Effect(fit and not wrong and not slowed and not canary_lost, summary, {
            "mechanism": "netem" if isinstance(self.rules, Netem) else "a queue of netfilter and a process that holds packets",
            "asked_ms": self._delay_s * 1000, "jitter_ms": self._jitter_s * 1000, "median_ms": shown,
            "p99_ms": [quantiles(each.took, n=100)[-1] * 1000 for each in trips if len(each.took) > 1],
            "probes_sent": sum(len(each.took) + each.lost for each in trips), "probes_lost": lost,
            "canary_sent": sum(map(len, canaries.values())), "canary_lost": canary_lost, "canaries_slowed": slowed, "canary_median_ms": canary_s * 1000, **counts})

    def _fits(self, trips: Trips) -> bool:
        """Whether the trips of one link are delayed as asked: at each end that is a receiver of the fault."""
        if len(trips.took) < 2:
            return False
        asked = trips.ways * self._delay_s
        drawn = trips.ways * self._jitter_s / 2  # the median of 100 even draws is nearer than that
        fits = -EARLY_S - drawn <= median(trips.took) - asked <= max(SLACK_S, SLACK * asked) + drawn
        tenths = quantiles(trips.took, n=10)
        varies = tenths[-1] - tenths[0] >= 0.8 * self._jitter_s  # of even draws: 1.6 times, and more over two ways
        return fits and varies and min(trips.took) >= asked - trips.ways * self._jitter_s - EARLY_S

    def absent(self) -> Effect:
        """No rule is left, and round trips over the same links are quick again."""
        left, slowest = self.rules.left(), 0.0
        for _ in range(ABSENT_TRIES):
            trips = round_trips(self._world, self.links, PROBES // 2)
            slowest = max(median(each.took or [float("inf")]) for each in trips)
            if left or slowest < self._delay_s / 2:
                break
        slow = slowest >= self._delay_s / 2
        summary = f"gone, median round trip {slowest * 1000:.1f} ms" if not left and not slow else f"rules left in {', '.join(left) or 'no node'}, median {slowest * 1000:.1f} ms"
        return Effect(not left and not slow, summary, {"tables_left": left, "median_ms": slowest * 1000, "unmeasured": not left and slow})
