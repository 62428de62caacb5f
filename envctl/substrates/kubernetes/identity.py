"""What an environment's namespace and objects are called, and the labels by which they are found."""

from __future__ import annotations

import hashlib
from typing import Literal

from envctl.substrates.keeper.place import Placed

ENV, KEY, PART, NODE, COMPONENT = (f"envctl.dev/{name}" for name in ("env", "key", "part", "node", "component"))  # labels
# Likewise: of a namespace, which agents its keeper speaks to, as that says itself, and which ones the next keeper will, as its maker says.
AGENT, NEXT_AGENT = "envctl.dev/agent", "envctl.dev/next-agent"
PLACE, EXPIRES, DIGEST, SPEC = (f"envctl.dev/{name}" for name in ("place", "expires-at", "digest", "spec"))  # annotations
ZONE = "topology.kubernetes.io/zone"  # label of a machine
Part = Literal["keeper", "node", "agent", "work"]
AGENT_PORT = 7412
AGENTS = "envctl-agents"  # the namespace of the node agents
AGENT_OF = "ENVCTL_AGENT"  # which agents a keeper speaks to, and an agent is one of
MAIN = "main"  # a pod's container that is the node
_LONGEST = 63  # of the name of a namespace


def agent_of(image: str) -> str:
    """What tells the agents of one image from those of another: only a keeper of the same image is sure to understand them."""
    return hashlib.sha256(image.encode()).hexdigest()[:12]


class Identity(Placed):
    """One environment on a cluster."""

    __slots__ = ()

    @property
    def namespace(self) -> str:
        """The name of the namespace."""
        return f"{self.env_id[:_LONGEST - 9].rstrip('-')}-{self.key}"

    def labels(self, part: Part | None = None, **more: str) -> dict[str, str]:
        """What everything of this environment bears."""
        return {ENV: self.env_id, KEY: self.key, **({PART: part} if part else {}), **more}
