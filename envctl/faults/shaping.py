"""What the faults that shape a link have in common: its ends, and how a share of its packets is judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

from envctl.errors import UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.links import ARROWS, Link, Rules, links_between, senders_of
from envctl.faults.probes import Measured, gone
from envctl.faults.statistics import ALPHA, binomial_p_value, probes_to_tell
from envctl.faults.targets import ratio

ENDS: Mapping[str, Any] = {
    "from": {"type": "string", "description": "component or node that sends"},
    "to": {"type": "string", "description": "component or node that receives"},
    "direction": {"enum": ["forward", "reverse", "both"], "description": "default: forward"},
}
SHARE: Mapping[str, Any] = {"type": ["string", "number"], "description": "share of packets, such as 5 %"}
PROBES = 1000  # per verification, over all links
FEWEST_PROBES = 400  # per link, so that a link whose rule is missing can't hide behind the others
MOST_PROBES = 6000  # per link; what is rarer than these can show is refused


def duration(example: str, meaning: str) -> Mapping[str, Any]:
    """The schema of a parameter that is a time."""
    return {"type": "string", "pattern": r"^\d+(\.\d+)?\s*(ms|s)$", "description": f"{meaning}, such as {example}"}


class OnLinks:
    """A fault of the links between two components or nodes, `from` and `to`, in one `direction` or both, that rules bring about."""

    name: ClassVar[str]
    tools: ClassVar[tuple[str, ...]] = ("nft",)
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._params = params
        self._world = world
        for parameter, problem in self.impossible(params):
            raise UsageError(f"{self.name}: {parameter} {problem}")

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Self:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def impossible(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:  # noqa: ARG003
        """See `FaultKind.impossible`."""
        return ()

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """Both ends of the link."""
        return [(end, params[end]) for end in ("from", "to") if isinstance(params.get(end), str)]

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Each receiver with its senders."""
        return links_between(self._world, self._params["from"], self._params["to"], self._params.get("direction", "forward"))

    @property
    def asked(self) -> str:
        """What happens to the link, for a person."""
        raise NotImplementedError

    @cached_property
    def rules(self) -> Rules:
        """The rules."""
        raise NotImplementedError

    def probe(self) -> Blast:
        """See `Fault.probe`: the rules must be possible at each of their nodes."""
        self.rules.check()
        arrow = ARROWS[self._params.get("direction", "forward")]
        return Blast(tuple(link.receiver for link in self.links), f"{self._params['from']} {arrow} {self._params['to']} {self.asked}", senders_of(self.links))

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return self.rules.undo

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`."""
        self.rules.set(lease_s)

    def heal(self) -> None:
        """See `Fault.heal`."""
        self.rules.remove()

    def absent(self) -> Effect:
        """See `probes.gone`."""
        return gone(self._world, self.rules, self.links)


class OfAShare(OnLinks):
    """A fault that hits a share of a link's packets, each by chance."""

    @property
    def asked(self) -> str:
        """Its share."""
        return f"{self.share * 100:g} %"

    @classmethod
    def impossible(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """A share that probes can show."""
        try:
            share = ratio(params["share"])
        except UsageError as error:
            return [("share", f"is refused: {error.message}")]
        if share == 0 or probes_to_tell(share) > MOST_PROBES:
            return [("share", f"of {share * 100:g} % can't be told from none with {MOST_PROBES:,} probes: ask for 0.3 % or more")]
        return ()

    @property
    def share(self) -> float:
        """Of all packets, 0 to 1."""
        return ratio(self._params["share"])

    @property
    def probes(self) -> int:
        """How many a verification sends from each sender."""
        return max(FEWEST_PROBES, -(-PROBES // len(self.links)), probes_to_tell(self.share))

    def judged(self, verb: str, measured: Sequence[Measured], hits: Sequence[tuple[int, int]], detail: Mapping[str, Any], *, fair: bool) -> Effect:
        """Whether the share of probes that were hit, (hit, sent) by link, is the one that was asked for: by the exact binomial test.

        The rules must agree: they have hit as many packets, and no other share of them.  `fair`: nothing else speaks against it.
        """
        counters = self.rules.counters() or []
        seen, hurt = (sum(counter[index] for counter in counters) for index in (0, 1))
        hit, sent = (sum(each[index] for each in hits) for index in (0, 1))
        worst = min(binomial_p_value(*each, self.share) for each in hits)
        harmed = sum(m.canary_lost + m.canary_hurt for m in measured)
        agrees = all(each[0] for each in hits) and hurt >= hit and binomial_p_value(hurt, seen, self.share) >= ALPHA
        summary = f"{verb} {hit:,} of {sent:,} probes ({hit / sent * 100:.1f} %)"
        if harmed:
            summary += f"; the canary had {harmed} of {sum(m.canary_sent for m in measured)} hurt"
        elif worst < ALPHA or not agrees:
            summary += f", asked {self.share * 100:g} %; the rules hit {hurt:,} of {seen:,}"
        return Effect(worst >= ALPHA and agrees and not harmed and fair, summary, {
            "probes_sent": sent, "probes_hit": hit, "rule_seen": seen, "rule_hit": hurt, "asked": self.share, "p_value": worst,
            "canary_sent": sum(m.canary_sent for m in measured), "canary_lost": sum(m.canary_lost for m in measured),
            "canary_hurt": sum(m.canary_hurt for m in measured), **detail})
