"""What an environment's containers, networks and volumes are called, and the labels by which they are found."""

from __future__ import annotations

from typing import Any, Literal

from envctl.substrates.keeper.place import Placed

ENV, PLACE, PART, NODE, DIGEST, SPEC = (
    "envctl.dev/env", "envctl.dev/place", "envctl.dev/part", "envctl.dev/node", "envctl.dev/digest", "envctl.dev/spec",
)
Part = Literal["keeper", "node", "position", "network", "volume"]


class Identity(Placed):
    """One environment on an engine."""

    __slots__ = ()

    @property
    def network(self) -> str:
        """The name of the network."""
        return f"{self.env_id}.{self.key}"

    @property
    def keeper(self) -> str:
        """The name of the keeper's container."""
        return f"{self.env_id}.{self.key}.keeper"

    def container(self, node: str) -> str:
        """The name of a node's container."""
        return f"{self.env_id}.{self.key}.{node}"

    def position(self, node: str) -> str:
        """The name of the container from which faults act on a node."""
        return f"{self.env_id}.{self.key}.{node}.position"

    def volume(self, node: str, index: int) -> str:
        """The name of one of a node's volumes."""
        return f"{self.env_id}.{self.key}.{node}.{index}"

    def labels(self, part: Part, **more: str) -> dict[str, str]:
        """What everything of this environment bears."""
        return {ENV: self.env_id, PLACE: self.place, PART: part, **more}

    def filters(self, part: Part | None = None, node: str = "") -> dict[str, Any]:
        """What finds it again."""
        wanted = [f"{ENV}={self.env_id}", f"{PLACE}={self.place}"]
        return {"label": [*wanted, *([f"{PART}={part}"] if part else []), *([f"{NODE}={node}"] if node else [])]}
