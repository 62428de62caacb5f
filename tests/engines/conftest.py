from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from envctl.engines.base import Realisation, Site
from envctl.model.topology import AnyComponent, Topology
from envctl.substrates.embedded import Embedded

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


class ProvisionFailedError(Exception):
    """What a command beside the nodes said before it ended with an error."""


class Cell:
    """An environment of the embedded substrate in which realisations are brought up as the provider does it."""

    def __init__(self, directory: Path) -> None:
        self.realiser = Embedded.realiser(directory)
        self.reach = self.realiser.reach
        self.realiser.create_environment(directory.name, ttl_s=300, labels={})

    def up(self, realisation: Realisation) -> None:
        """All nodes at once, then the provision; raises with its output if that fails."""
        with ThreadPoolExecutor(len(realisation.nodes)) as pool:
            list(pool.map(lambda node: self.realiser.start_node(node, ready_timeout_s=60), realisation.nodes))
        if realisation.provision:
            self.beside(*self.reach.own, *realisation.provision.arguments, **realisation.provision.env)

    def beside(self, *command: str, **env: str) -> str:
        """Runs a command in the environment's own network; returns its output."""
        with tempfile.TemporaryFile() as output:
            process = self.reach.popen(None, command, env=env, stdin=subprocess.DEVNULL, stdout=output.fileno(), stderr=output.fileno())
            status = process.wait(90)
            output.seek(0)
            text = output.read().decode()
        if status:
            raise ProvisionFailedError(text)
        return text

    def python(self, text: str) -> str:
        """What a program with the test's libraries prints, in the environment's own network."""
        return self.beside(sys.executable, "-c", text).strip()


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    """One environment a module; its directory has a short name because Unix sockets ask for that."""
    with tempfile.TemporaryDirectory(prefix="envctl-") as place:
        made = Cell(Path(place, "envs", "engines"))
        try:
            yield made
        finally:
            made.realiser.end_environment()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of prepared data that the tests of a module share."""
    return tmp_path_factory.mktemp("cache")
