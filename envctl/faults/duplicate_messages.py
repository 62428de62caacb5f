"""Duplicate messages: records of a topic come twice, as from a producer that was not told that its first try had succeeded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.faults.base import World
from envctl.faults.republishing import Republishing


class DuplicateMessages(Republishing):
    """`{fault: duplicate-messages, topic: orders.placed, share: 10 %}`."""

    name: ClassVar[str] = "duplicate-messages"
    mechanism: ClassVar[str] = "records produced again right behind themselves"
    proof: ClassVar[str] = "read back: the record twice"
    way: ClassVar[str] = "duplicate"
    _again: ClassVar[str] = "came twice"

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> DuplicateMessages:
        """See `FaultKind.build`."""
        return cls(params, world)
