"""The objects of an environment as resources of Pulumi's provider for Kubernetes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path

import pulumi
from pulumi_kubernetes import Provider

from envctl.model.environment import NodeSpec
from envctl.substrates.kubernetes import clusters
from envctl.substrates.kubernetes.api import api
from envctl.substrates.kubernetes.chaos_mesh import is_asked_for
from envctl.substrates.kubernetes.identity import DIGEST, Identity
from envctl.substrates.kubernetes.image import image_of, own_image
from envctl.substrates.kubernetes.nodes import node_objects
from envctl.substrates.kubernetes.objects import WORKLOADS, Object, environment_objects
from envctl.substrates.kubernetes.realiser import quota, storage
from envctl.substrates.kubernetes.ways import ways_in

_MODULES = {
    "v1": "core.v1", "apps/v1": "apps.v1", "batch/v1": "batch.v1", "networking.k8s.io/v1": "networking.v1",
    "rbac.authorization.k8s.io/v1": "rbac.v1",
}


class Objects:
    """Registers them below a component of envctl's, by which they are known as the environment's own."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._identity = directory, Identity.of_directory(directory)
        self._known: dict[str, pulumi.Resource] = {}  # what several nodes have, such as the name of their component
        self._environment: list[pulumi.Resource] = []

    @cached_property
    def _options(self) -> pulumi.ResourceOptions:
        whole = pulumi.ComponentResource("envctl:kubernetes:Objects", self._identity.env_id)
        inside = pulumi.ResourceOptions(parent=whole)
        # The empty environment is made while the engine starts; what it finds there is its own.
        provider = Provider(
            "cluster", context=clusters.context_of(self._directory), upsert_existing_objects=True, enable_patch_force=True,
            enable_config_map_mutable=True, enable_secret_mutable=True, opts=inside,
        )
        return pulumi.ResourceOptions(parent=whole, provider=provider)

    def environment(self) -> Sequence[pulumi.Resource]:
        """The namespace, and all that is in it before there are nodes."""
        context = clusters.context_of(self._directory)
        cluster = api(context)
        kept = storage(cluster, self._identity.namespace)
        things = environment_objects(self._identity, self._directory, own_image(context), quota(), kept, is_asked_for(), ways_in(cluster))
        namespace, *others = things
        first = self._resource(namespace, [])
        self._environment = [first, *(self._resource(thing, [first]) for thing in others)]
        return self._environment

    def node(self, spec: NodeSpec, before: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """The node's objects.  Its image is made and brought to the cluster meanwhile."""
        image = asyncio.ensure_future(asyncio.to_thread(image_of, spec, clusters.context_of(self._directory)))
        *others, workload = node_objects(self._identity, spec, image)
        named = [self._resource(thing, before) for thing in others]
        return [*named, self._resource(workload, [*before, *named])]

    def _resource(self, thing: Object, before: Sequence[pulumi.Resource]) -> pulumi.Resource:
        kind, name = thing["kind"], thing["metadata"]["name"]
        key = f"{kind}-{name}".lower()
        if key not in self._known:
            make = getattr(import_module(f"pulumi_kubernetes.{_MODULES[thing['apiVersion']]}"), kind)
            mine = pulumi.ResourceOptions(depends_on=[*before], delete_before_replace=True, deleted_with=self._environment[0] if self._environment else None)
            if kind in WORKLOADS:
                mine.replace_on_changes = [f'metadata.annotations["{DIGEST}"]']  # a node that differs is another node
            if kind == "PersistentVolumeClaim":
                mine.ignore_changes = ["spec"]  # it can't change, and need not
            fields = {_snake(field): value for field, value in thing.items() if field not in ("apiVersion", "kind")}
            self._known[key] = make(key, opts=pulumi.ResourceOptions.merge(self._options, mine), **fields)
        return self._known[key]


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()
