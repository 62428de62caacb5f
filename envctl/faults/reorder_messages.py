"""Reordered messages: an older record of a key comes once more behind a newer one, as from a producer whose late retry arrives after all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.faults.base import World
from envctl.faults.programs.republisher import Copy
from envctl.faults.republishing import Republishing


class ReorderMessages(Republishing):
    """`{fault: reorder-messages, topic: orders.placed, share: 10 %}`; records without a key have no order and are left alone."""

    name: ClassVar[str] = "reorder-messages"
    mechanism: ClassVar[str] = "records produced again behind the next one of their key"
    proof: ClassVar[str] = "read back: the older record behind the newer one"
    way: ClassVar[str] = "reorder"
    _again: ClassVar[str] = "came again behind a newer one of their key"

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> ReorderMessages:
        """See `FaultKind.build`."""
        return cls(params, world)

    def _is_proof(self, copy: Copy, found: Mapping[tuple[int, int], Any]) -> bool:
        """Also: between the two there is a newer record of the same key."""
        original, newer = found.get((copy.partition, copy.original)), found.get((copy.partition, copy.newer))
        inverted = copy.original < copy.newer < copy.copy and original is not None and newer is not None and original.key() == newer.key()
        return inverted and super()._is_proof(copy, found)
