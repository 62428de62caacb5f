from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.engines.base import Site
from envctl.model.topology import AnyComponent, Topology

MakeSite = Callable[..., Site]


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    directory = tmp_path / "stack"
    directory.mkdir()
    return directory


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def site(stack: Path, cache: Path) -> MakeSite:
    """A site in which all given components are selected, except those that are stubbed."""

    def make(*components: AnyComponent, stubbed: tuple[str, ...] = (), **changes: object) -> Site:
        topology = Topology("test", stack / "topology.yaml", ("a", "b", "c"), {one.name: one for one in components})
        selected = tuple(one.name for one in components if one.name not in stubbed)
        return Site(**{"topology": topology, "env_id": "env", "selected": selected, "stubbed": stubbed, "cache": cache, **changes})

    return make
