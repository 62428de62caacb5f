from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from disk_ground import DiskGround, DiskWorld

from envctl.engines.base import Provision, Realisation
from envctl.model.environment import NodeSpec
from envctl.model.plan import Plan
from envctl.model.topology import Topology
from envctl.stack.operations import Up, bring_up
from envctl.stack.state import State


def node(name: str, digest: str = "1", **env: str) -> NodeSpec:
    component = name.rpartition("-")[0]
    return NodeSpec(name, component, "service", "a", ("sleep", "600"), digest, env=env, ports={"http": 8080})


def system(api: str = "1", **env: str) -> list[Realisation]:
    touch = Provision("db", ("-c", "print('provisioned')"), "p1")
    return [
        Realisation("api", ("db",), (node("api-0", api, **env),)),
        Realisation("db", (), (node("db-0"), node("db-1")), touch),
        Realisation("web", ("api", "elsewhere"), (node("web-0", **env),)),
    ]


@dataclass
class Bench:
    """A project with a stack, a cache of its own, and the disk substrate."""

    root: Path
    plan: Plan
    ground: DiskGround

    @property
    def state(self) -> State:
        return State(self.root / ".envctl" / "state", "shop", self.plan.env_id)

    @property
    def world(self) -> DiskWorld:
        return self.ground.realiser(self.ground.directory(self.plan.env_id))

    def kill(self, node: str) -> None:
        """Kills a node and waits until it is dead."""
        self.world._kill(self.world.node(node).pid or 0)

    def up(self, realisations: Sequence[Realisation] | None = None, digest: str = "plan-1", **options: object) -> Up:
        wanted = system() if realisations is None else realisations
        return bring_up(replace(self.plan, digest=digest), substrates=self.ground, realise=lambda: wanted, **options)


def plan_of(project: Path) -> Plan:
    topology = Topology("shop", project / "stacks" / "shop" / "topology.yaml", ("a",), {})
    return Plan("shop-main-1", project, topology, "embedded", (), (), (), 600.0, {"envctl.dev/env": "shop-main-1"}, {}, "plan-1")


def make_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    cache = tmp_path / "cache"
    cache.mkdir()
    tools = Path(os.environ.get("ENVCTL_CACHE", Path.home() / ".cache" / "envctl")) / "tools"
    (cache / "tools").symlink_to(tools)
    monkeypatch.setenv("ENVCTL_CACHE", str(cache))
    stack = tmp_path / "stacks" / "shop"
    stack.mkdir(parents=True)
    (stack / "Pulumi.yaml").write_text("name: shop\nruntime: python\n")
    (stack / "__main__.py").write_text("from envctl.stack import deploy\n\ndeploy()\n")
    made = Bench(tmp_path, plan_of(tmp_path), DiskGround(cache))
    yield made
    for found in made.ground.environments():
        made.ground.realiser(found.directory).end_environment()
