"""Nodes that are containers: what engines share, and the user's own images."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from envctl.engines.content import digest, tree_digest
from envctl.engines.sources import context_id
from envctl.model.environment import ImageBuild, NodeSpec
from envctl.model.topology import Image, Topology

OWN_IMAGE = "envctl"  # in the place of a reference: the image in which envctl itself runs on that substrate


def tag_of(version: str, *, parts: int) -> str:
    """The tag of the oldest release that a version asks for: ">=15" is 15, and "4.1" with three parts 4.1.0."""
    numbers = (re.findall(r"\d+", version) + ["0"] * parts)[:parts]
    return ".".join(numbers)


def user_of(reference: str, *, debian: str, alpine: str) -> str:
    """User and group of an official image's programs, as numbers: where nothing may be root, a name is not enough."""
    return alpine if "alpine" in reference.rpartition(":")[2] else debian


def build_of(topology: Topology, image: Image) -> ImageBuild | None:
    """How an image is made that is not named."""
    if not image.context:
        return None
    return ImageBuild(
        topology.directory / image.context, image.inputs, image.dockerfile or "Dockerfile", image.target, dict(image.args), context_id(topology, image),
    )


def files_of(topology: Topology, image: Image) -> dict[str, Path]:
    """Path in the container → what is shown there."""
    return {target: topology.directory / path for target, path in image.files.items()}


def sealed_container(spec: NodeSpec, *, data: str = "") -> NodeSpec:
    """The spec with its digest: all of it, with what it is built from and what is copied into it by content.

    `data` is the id of what its volumes start from.
    """
    files = {target: tree_digest(path) for target, path in spec.files.items()}
    build = spec.build and spec.build.digest
    bare = replace(spec, files={}, build=None, digest="", env={})
    return replace(spec, digest=digest("container", bare, _sorted(spec.env), files, build, data))


def _sorted(values: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(values.items())

