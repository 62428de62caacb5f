"""Networks and volumes as resources of envctl's own provider."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pulumi

from envctl.model.environment import NodeSpec
from envctl.substrates.docker.identity import Identity


class Parts:
    """The network before the environment, a node's volumes before the node."""

    def __init__(self, directory: Path) -> None:
        self._identity = Identity.of_directory(directory)
        self._common = {"environment": self._identity.env_id, "substrate": "docker"}

    def environment(self) -> Sequence[pulumi.Resource]:
        """The network."""
        return [self._part("Network", self._identity.network, "", [])]

    def node(self, spec: NodeSpec, before: Sequence[pulumi.Resource]) -> Sequence[pulumi.Resource]:
        """Its volumes."""
        return [self._part("Volume", self._identity.volume(spec.name, index), spec.name, before) for index, _ in enumerate(spec.volumes)]

    def _part(self, kind: str, name: str, node: str, before: Sequence[pulumi.Resource]) -> pulumi.Resource:
        inputs = {**self._common, "name": name, "node": node}
        options = pulumi.ResourceOptions(depends_on=[*before], deleted_with=before[0] if before else None)
        return pulumi.CustomResource(f"envctl:docker:{kind}", name, inputs, options)
