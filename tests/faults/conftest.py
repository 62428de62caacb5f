"""A small cell whose nodes do nothing but live, and faults built against it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from held import NODES, world_of

from envctl.faults.base import World
from envctl.model.environment import NodeSpec
from envctl.substrates.base import Reach
from envctl.substrates.embedded import Embedded


@pytest.fixture(scope="module")
def realiser() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="envctl-") as place:
        made = Embedded.realiser(Path(place, "envs", "faults"))
        try:
            made.create_environment("faults", ttl_s=300, labels={})
            for name, zone in NODES.items():
                made.start_node(
                    NodeSpec(name=name, component=name.rpartition("-")[0], kind="service", zone=zone, command=("sleep", "600"),
                             digest="1", disk_bytes=4 << 20 if name == "server-0" else 0), ready_timeout_s=20)
            yield made
        finally:
            made.end_environment()


@pytest.fixture
def reach(realiser: Any) -> Reach:
    found: Reach = realiser.reach
    return found


@pytest.fixture
def world(reach: Reach, tmp_path: Path) -> Callable[..., World]:
    def make(id: str = "fault", seed: int = 1) -> World:
        return world_of(reach, tmp_path / id, seed)

    return make
