"""Slow disk: a node's reads and writes take longer, as on a disk that is shared with too much else.

Only the kernel can slow them down: by `io.max` of control groups of version 2, in a group that whoever runs the nodes may set it for.  No
substrate gives that yet: the embedded one has no control groups, Docker changes such a limit only for containers that are made
anew, Kubernetes has none.  So it is refused before anything starts; a fault that slowed down something else would be no slow disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from envctl.errors import CapabilityError
from envctl.faults.base import Fault, World
from envctl.substrates.base import Power


class SlowDisk:
    """`{fault: slow-disk, target: shop-db, pick: 1, write: 1Mi}`: bytes a second that each node may write, or `read`."""

    name: ClassVar[str] = "slow-disk"
    mechanism: ClassVar[str] = "`io.max` of control groups of version 2"
    proof: ClassVar[str] = "none: refused where no substrate can do it"
    tools: ClassVar[tuple[str, ...]] = ()
    powers: ClassVar[frozenset[Power]] = frozenset({"io-limits"})
    missing: ClassVar[str] = "a disk is slowed down by `io.max` of control groups of version 2, which no substrate can set for a node while it runs"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "anyOf": [{"required": ["read"]}, {"required": ["write"]}],
        "description": "it needs `read` or `write`",
        "properties": {
            "target": {"type": "string", "description": "component or node"},
            "pick": {"type": "integer", "minimum": 1, "description": "how many of the target's nodes; default: all"},
            "read": {"type": "string", "pattern": r"^\d+\s*(Ki|Mi|Gi)$", "description": "that it may read in a second, as 1Mi"},
            "write": {"type": "string", "pattern": r"^\d+\s*(Ki|Mi|Gi)$", "description": "that it may write in a second, as 1Mi"},
        },
    }

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Fault:  # noqa: ARG003
        """Refuses: see above.  Raises CapabilityError."""
        raise CapabilityError("slow-disk needs the power io-limits, which no substrate has", hint=cls.missing)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The target."""
        return [("target", params["target"])] if isinstance(params.get("target"), str) else []
