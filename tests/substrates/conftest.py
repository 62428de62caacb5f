"""Cells in a cache of the test's own, as the caller's user; every test ends with an independent look at what is left."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster.cluster import Cluster
from cluster.fixture import cluster  # noqa: F401
from cluster.plugin import kubernetes_plugin  # noqa: F401
from grounds import IMAGE, Ground, cluster_cache, cluster_settings, used  # noqa: F401
from way import Way

from envctl.model.environment import NodeSpec
from envctl.substrates.docker import Docker
from envctl.substrates.embedded import Embedded
from envctl.substrates.embedded.reach import CellReach
from envctl.substrates.embedded.realiser import CellRealiser
from envctl.substrates.kubernetes import Kubernetes
from envctl.toolchain import Tool, find


class Cells:
    def __init__(self, envs: Path) -> None:
        self.envs = envs
        self.made: list[CellRealiser] = []

    def make(self, *, ttl_s: float = 120.0, **labels: str) -> tuple[CellReach, CellRealiser]:
        env_id = f"t-{uuid.uuid4().hex[:8]}"
        realiser = Embedded.realiser(self.envs / env_id)
        self.made.append(realiser)
        realiser.create_environment(env_id, ttl_s=ttl_s, labels=labels)
        return Embedded.attach(self.envs / env_id), realiser

    @staticmethod
    def node(name: str, *command: str, **fields: object) -> NodeSpec:
        values: dict[str, object] = {"component": name.rpartition("-")[0], "kind": "service", "zone": "a", "digest": "1", **fields}
        return NodeSpec(name=name, command=command, **values)  # type: ignore[arg-type]

    @staticmethod
    def until(condition: Callable[[], object], what: str, within_s: float = 10.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
            time.sleep(0.02)


@pytest.fixture
def nft() -> Tool:
    return find("nft")  # before `cells` sets a cache of its own; its absence is an error, not a reason to skip


@pytest.fixture
def cells(nft: Tool) -> Iterator[Cells]:
    cache = Path(tempfile.mkdtemp(prefix="envctl-test-"))
    before = os.environ.get("ENVCTL_CACHE")
    os.environ["ENVCTL_CACHE"] = str(cache)
    made = Cells(cache / "envs")
    try:
        yield made
        for realiser in made.made:
            realiser.end_environment()
        assert_nothing_left(cache)
        assert list(made.envs.iterdir() if made.envs.exists() else []) == []
    finally:
        for realiser in made.made:
            realiser.end_environment()
        os.environ.pop("ENVCTL_CACHE")
        if before is not None:
            os.environ["ENVCTL_CACHE"] = before
        shutil.rmtree(cache)


@pytest.fixture
def docker_ground(docker_images: Callable[..., None], tmp_path: Path) -> Iterator[Ground]:
    docker_images(IMAGE)
    yield from used(Ground(Docker(), tmp_path / "envs", ("nft",), {}))


@pytest.fixture
def in_cluster(cluster: Cluster, cluster_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """envctl finds the test cluster, and its way of getting images there."""
    for name, value in cluster_settings(cluster, cluster_cache).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def way(in_cluster: None, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Way:  # noqa: F811
    """envctl finds the test cluster behind a way that can be cut."""
    made = Way(cluster.kubeconfig, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig))
    return made


@pytest.fixture
def kubernetes_ground(in_cluster: None) -> Iterator[Ground]:
    yield from used(Ground(Kubernetes(), Path(os.environ["ENVCTL_CACHE"]) / "envs", ("nft",), {}, user="1000"))


@pytest.fixture
def embedded_ground(nft: Tool, cells: Cells) -> Iterator[Ground]:
    yield from used(Ground(Embedded(), cells.envs, (str(nft.programs["nft"]),), dict(nft.env)))


@pytest.fixture(params=[pytest.param("embedded", marks=pytest.mark.cell), pytest.param("docker", marks=pytest.mark.docker),
                        pytest.param("kubernetes", marks=pytest.mark.kubernetes)])
def ground(request: pytest.FixtureRequest) -> Ground:
    """Each substrate in turn."""
    made: Ground = request.getfixturevalue(f"{request.param}_ground")
    return made


def traces_of(place: Path) -> list[str]:
    """Processes whose arguments, environment or mounts name the place.  It shares nothing with envctl's census."""
    text, found = str(place).encode(), []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        for part in ("cmdline", "environ", "mountinfo"):
            try:
                data = (process / part).read_bytes()
            except OSError:
                continue
            if text in data and b"pytest" not in (process / "cmdline").read_bytes():
                found.append(f"{process.name} {part}")
    return found


def assert_nothing_left(place: Path) -> None:
    Cells.until(lambda: not traces_of(place), f"no process speaks of {place}")
    assert str(place) not in Path("/proc/self/mountinfo").read_text()
    assert str(place) not in Path("/proc/net/unix").read_text()
