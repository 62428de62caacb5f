"""Corruption on a link: in a share of the packets that arrive from the named peers one bit of the payload is wrong.

Their checksums stay as they were, so that UDP and TCP find them wrong at the receiver and drop them, as they do with what a bad cable
or netem does; applications see loss and retransmissions, never wrong data.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

from envctl.faults.base import Effect
from envctl.faults.held import Held
from envctl.faults.probes import measure
from envctl.faults.shaping import ENDS, SHARE, OfAShare


class Corrupt(OfAShare):
    """`{fault: corrupt, from: orders, to: bus, share: 5 %, direction: forward|reverse|both}`."""

    name: ClassVar[str] = "corrupt"
    mechanism: ClassVar[str] = "a queue of netfilter and a process that inverts a bit"
    proof: ClassVar[str] = "probes with a wrong checksum, binomial test"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["from", "to", "share"],
        "additionalProperties": False,
        "properties": {**ENDS, "share": {**SHARE, "description": "share of packets with a wrong bit, such as 5 %"}},
    }

    @cached_property
    def rules(self) -> Held:
        """See `OnLinks.rules`."""
        return Held(self._world, self.links, self.share, "bits", "corrupt")

    def verify(self) -> Effect:
        """Sends numbered probes over each link: the asked share is lost, and the receivers' kernels have found as many wrong checksums."""
        before = self._wrong()
        measured = measure(self._world, self.links, self.probes)
        found, lost = self._wrong() - before, sum(m.lost for m in measured)
        counts = self.rules.counts()
        detail = {"probes_lost": lost, "wrong_checksums": found, **counts}
        # Of the 12 bytes after a probe's IP header 2 are its length, which is wrong before any checksum is looked at
        effect = self.judged("lost", measured, [(m.lost, m.sent) for m in measured], detail,
                             fair=found >= lost / 3 and not any(counts[each] for each in ("missed", "dropped", "gone")))
        return Effect(effect.shown, f"{effect.summary}, {found:,} wrong checksums", effect.detail)

    def _wrong(self) -> int:
        """Datagrams and segments that the receivers dropped because of their checksums."""
        return sum(checksum_errors(self._world.reach.run(link.receiver.name, ["cat", "/proc/net/snmp"], where="netns").stdout)
                   for link in self.links)


def checksum_errors(snmp: str) -> int:
    """The sum of InCsumErrors of UDP and TCP in a `/proc/net/snmp`."""
    rows = [line.split() for line in snmp.splitlines() if line.startswith(("Udp:", "Tcp:"))]
    return sum(int(values[names.index("InCsumErrors")]) for names, values in zip(rows[::2], rows[1::2], strict=True))
