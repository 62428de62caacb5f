"""The Pulumi program: from realisations to resources and the order between them."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

import pulumi

from envctl.engines.base import Provision, Realisation, Site
from envctl.model.environment import NodeSpec
from envctl.model.plan import Ask, Plan
from envctl.stack.memo import labels_of
from envctl.stack_provider.encoding import spec_to_json
from envctl.stack_provider.ground import installed
from envctl.stack_provider.provider import ENVIRONMENT, INTAKE_GRPC_PORT, INTAKE_PORT, NODE, PROVISION
from envctl.substrates.base import Declarer, Substrate
from envctl.toolchain import cache_dir

READY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """Everything that becomes resources.  `realise` may still be preparing when the program starts."""

    env_id: str
    substrate: str
    ttl_s: float
    labels: Mapping[str, str]
    ready_timeout_s: float
    realise: Callable[[], Sequence[Realisation]]
    declarer: Declarer


_current: ContextVar[Deployment | None] = ContextVar("deployment", default=None)


def as_program(deployment: Deployment, stack_directory: Path) -> Callable[[], None]:
    """The stack's `__main__.py` as an inline program that deploys `deployment`."""

    def run() -> None:
        _current.set(deployment)
        runpy.run_path(str(stack_directory / "__main__.py"), run_name="__main__")

    return run


def deploy() -> None:
    """Registers the resources of the current deployment; see `envctl.stack.deploy`."""
    Graph(_current.get() or planned_in_full()).register()


class Graph:
    """Environment → nodes of a component → its provision → nodes of the components that need it."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._common = {"environment": deployment.env_id, "substrate": deployment.substrate}
        self._complete: dict[str, list[pulumi.Resource]] = {}  # component → what must be there before its dependants start

    def register(self) -> None:
        """Registers everything; the engine runs what may run at the same time at the same time."""
        pending = {each.component: each for each in self._deployment.realise()}  # first: it also waits for the cell
        environment = self._environment()
        while pending:
            free = [each for each in pending.values() if not any(need in pending for need in each.needs)]
            if not free:
                raise ValueError(f"components need each other in a circle: {', '.join(sorted(pending))}")
            for each in free:
                del pending[each.component]
                self._complete[each.component] = self._component(each, environment)

    def _environment(self) -> pulumi.Resource:
        labels = json.dumps(dict(self._deployment.labels), sort_keys=True)
        inputs = {**self._common, "ttl_s": self._deployment.ttl_s, "labels": labels}
        options = pulumi.ResourceOptions(depends_on=[*self._deployment.declarer.environment()])
        return pulumi.CustomResource(ENVIRONMENT, self._deployment.env_id, inputs, options)

    def _component(self, realisation: Realisation, environment: pulumi.Resource) -> list[pulumi.Resource]:
        before = [environment, *(each for need in realisation.needs for each in self._complete.get(need, []))]
        nodes = [self._node(spec, before, environment) for spec in realisation.nodes]
        if realisation.provision is None:
            return nodes
        return [self._provision(realisation.provision, nodes or before, environment)]

    def _node(self, spec: NodeSpec, before: list[pulumi.Resource], environment: pulumi.Resource) -> pulumi.Resource:
        inputs = {
            **self._common, "name": spec.name, "component": spec.component, "kind": spec.kind, "zone": spec.zone,
            "digest": spec.digest, "spec": spec_to_json(spec), "ready_timeout_s": self._deployment.ready_timeout_s,
        }
        # deleted_with: ending the environment ends its nodes, nobody waits for them one by one
        options = pulumi.ResourceOptions(depends_on=[*before, *self._deployment.declarer.node(spec, before)], deleted_with=environment)
        return pulumi.CustomResource(NODE, spec.name, inputs, options)

    def _provision(self, work: Provision, after: list[pulumi.Resource], environment: pulumi.Resource) -> pulumi.Resource:
        inputs = {
            **self._common, "component": work.component, "digest": work.digest, "arguments": json.dumps(work.arguments),
            "env": json.dumps(dict(work.env), sort_keys=True), "files": json.dumps([str(path) for path in work.files]), "ready_timeout_s": self._deployment.ready_timeout_s,
        }
        options = pulumi.ResourceOptions(depends_on=after, deleted_with=environment)
        return pulumi.CustomResource(PROVISION, f"{work.component}-provision", inputs, options)


def planned_in_full() -> Deployment:
    """The deployment of the whole topology beside the program, for a plain `pulumi up`; the stack's name is the environment's."""
    from envctl.engines.sources import source_digests
    from envctl.planner.project import plan_project
    from envctl.spec import find_root, load_project, load_topology

    project = load_project(find_root(Path.cwd()))
    topology = load_topology(Path.cwd() / "topology.yaml")
    plan = plan_project(project, topology, None, Ask(full=True), digests=source_digests(topology))
    plan = replace(plan, env_id=pulumi.get_stack())
    substrate = installed(plan.substrate)
    return deployment_of(plan, substrate, READY_TIMEOUT_S, lambda: realised(plan, substrate, cache_dir(), ""))


def deployment_of(plan: Plan, substrate: Substrate, ready_timeout_s: float, realise: Callable[[], Sequence[Realisation]]) -> Deployment:
    """What a plan becomes."""
    declarer = substrate.declarer(substrate.directory(plan.env_id))
    return Deployment(plan.env_id, plan.substrate, plan.ttl_s, labels_of(plan), ready_timeout_s, realise, declarer)


def realised(plan: Plan, substrate: Substrate, cache: Path, seed_key: str) -> Sequence[Realisation]:
    """What the engines make of a plan; everything that can be prepared is prepared."""
    from envctl.engines.realise import realise_all

    http, grpc = (f"http://{substrate.beside}:{port}" for port in (INTAKE_PORT, INTAKE_GRPC_PORT))
    site = Site(
        plan.topology, plan.env_id, plan.components, plan.stubbed, cache, seed_key, http, grpc, substrate.packaging,
        manifests="manifests" in substrate.powers,
    )
    return [_with_disks(each, plan.disks) for each in realise_all(plan.topology, plan.components, plan.stubbed, site)]


def _with_disks(realisation: Realisation, disks: Mapping[str, int]) -> Realisation:
    """What it is where a scenario fills the `/data` of some nodes: other nodes, with file systems of their own."""
    sizes = {spec.name: disks.get(spec.name, disks.get(spec.component, 0)) for spec in realisation.nodes}
    nodes = (replace(spec, disk_bytes=size, digest=f"{spec.digest}-{size}") if (size := sizes[spec.name]) else spec for spec in realisation.nodes)
    return replace(realisation, nodes=tuple(nodes))
