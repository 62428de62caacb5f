"""Duplicates on a link: a share of the packets that arrive from the named peers arrives twice.

The kernel makes the copies at the receiver, by nft's `dup` towards the receiver's own address; a copy arrives right after its original.
It comes by the loopback interface, so that rules for what arrives from outside hit it no second time, and a program that listens on one
interface only does not get it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import CapabilityError
from envctl.faults.base import Effect
from envctl.faults.links import Link, Rules
from envctl.faults.probes import measure
from envctl.faults.shaping import ENDS, SHARE, OfAShare


class Copies(Rules):
    """Rules that have a share of what comes from the peers arrive twice."""

    family: ClassVar[str] = "ip"  # `dup` at the input hook is one of this family

    def fate(self, link: Link) -> str:
        """Copied to where it goes anyway."""
        return f'dup to {link.receiver.address} device "lo"'

    def check(self) -> None:
        """Raises CapabilityError where the kernel can't copy packets."""
        super().check()
        for link in self._links:
            done = self._nft(link.receiver, self._rules(link, 1), "--check")
            if done.status:
                raise CapabilityError(f"packets can't be copied in {link.receiver.name}: {done.stderr.strip()}",
                                      hint="sudo modprobe nft_dup_ipv4 (CONFIG_NFT_DUP_IPV4)")


class Duplicate(OfAShare):
    """`{fault: duplicate, from: orders, to: bus, share: 5 %, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "duplicate"
    mechanism: ClassVar[str] = "nft's `dup` at the receiver"
    proof: ClassVar[str] = "numbered probes that arrive twice, binomial test"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["from", "to", "share"],
        "additionalProperties": False,
        "properties": {**ENDS, "share": {**SHARE, "description": "share of packets that arrive twice, such as 5 %"}},
    }

    @cached_property
    def rules(self) -> Copies:
        """See `OnLinks.rules`."""
        return Copies(self._world, self.links, self.share, "dup")

    def verify(self) -> Effect:
        """Sends numbered probes over each link: the asked share arrives twice, and none is lost."""
        measured = measure(self._world, self.links, self.probes)
        lost = sum(m.lost for m in measured)
        return self.judged("duplicated", measured, [(m.again, m.sent) for m in measured], {"probes_lost": lost}, fair=not lost)
