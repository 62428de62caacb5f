"""What the last complete `up` of an environment made; kept with the environment, because it is true only there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from envctl.stack_provider.ground import is_up

if TYPE_CHECKING:
    from envctl.model.environment import Environment
    from envctl.model.plan import Plan
    from envctl.substrates.base import Notebook

NAME = "memo.json"


@dataclass(frozen=True, slots=True)
class Memo:
    """Written when an update is complete, removed before the next one begins.

    `plan_digest` is empty while an update is under way or after one that failed.
    """

    substrate: str
    stack_directory: str
    state_root: str
    pulumi_project: str
    plan_digest: str = ""
    nodes: Mapping[str, str] | None = None  # name → digest
    variant: str = ""  # what besides the plan decides the nodes: the seed's snapshot

    def write(self, notebook: Notebook) -> None:
        """Keeps the memo with an environment that is there."""
        notebook.write(NAME, json.dumps(asdict(self)))

    def covers(self, plan_digest: str, variant: str, environment: Environment) -> bool:
        """The census: the same plan, and exactly its nodes are there, with the same digests, ready."""
        alive = {node.name: node.digest for node in environment.nodes if is_up(node)}
        return bool(plan_digest) and (plan_digest, variant) == (self.plan_digest, self.variant) and alive == self.nodes


def labels_of(plan: Plan) -> dict[str, str]:
    """What an environment bears: the plan's labels, and what `Environment` shows of its plan."""
    return {**plan.labels, "stack": plan.topology.name, "plan_digest": plan.digest, "ports": str(_publishable(plan))}


def _publishable(plan: Plan) -> int:
    """How many ports may come to be published while the environment lives, whatever of the topology is in it."""
    return sum(len(getattr(each, "ports", ())) or 1 for each in plan.topology.components.values())


def read(notebook: Notebook) -> Memo | None:
    """The memo of an environment, or None when there is none that can be read."""
    try:
        return Memo(**json.loads(notebook.read(NAME) or ""))
    except (ValueError, TypeError):
        return None
