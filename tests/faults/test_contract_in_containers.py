"""The contract of held faults where nodes are containers, on a Docker engine and in a cluster: one walk a fault."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from cluster.cluster import Cluster
from cluster.fixture import cluster  # noqa: F401
from grounds import IMAGE, Ground, cluster_cache, cluster_settings, used  # noqa: F401
from held import HELD, NODES, TARGETS, make, world_of

from envctl import plugins
from envctl.errors import ResourceError
from envctl.substrates.base import Reach, Substrate
from envctl.substrates.docker import Docker
from envctl.substrates.kubernetes import Kubernetes
from envctl.waiting import until

OFTEN = ("packet-loss", "node-pause", "dns-failure", "cpu-pressure", "memory-pressure")  # one of each mechanism that substrates have a part in
EVERY = [case for case in HELD if "," not in case and "one way" not in case]  # of each kind one: what varies is the same code on every substrate
CASES = EVERY if os.environ.get("ENVCTL_FAULTS_EVERY") else OFTEN
NFT = "nft"  # as it is called beside the nodes


def populated(ground: Ground) -> Iterator[Reach]:
    """An environment of nodes that do nothing but live."""
    for made in used(ground):
        reach, realiser = made.make(ttl_s=600)
        for name, zone in NODES.items():
            realiser.start_node(made.node(name, "sleep", "600", zone=zone), ready_timeout_s=60)
        yield reach


@pytest.fixture(scope="module")
def in_docker(docker_images: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reach]:
    docker_images(IMAGE)
    yield from populated(Ground(Docker(), tmp_path_factory.mktemp("docker") / "envs", (NFT,), {}))


@pytest.fixture(scope="module")
def in_kubernetes(cluster: Cluster, cluster_cache: Path) -> Iterator[Reach]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patched:
        for name, value in cluster_settings(cluster, cluster_cache).items():
            patched.setenv(name, value)
        yield from populated(Ground(Kubernetes(), Path(os.environ["ENVCTL_CACHE"]) / "envs", (NFT,), {}, user="1000"))


@pytest.fixture(params=[pytest.param((Docker, "in_docker"), marks=pytest.mark.docker, id="docker"),
                        pytest.param((Kubernetes, "in_kubernetes"), marks=pytest.mark.kubernetes, id="kubernetes")])
def place(request: pytest.FixtureRequest) -> tuple[type[Substrate], Reach]:
    substrate, fixture = request.param
    return substrate, request.getfixturevalue(fixture)


@pytest.fixture
def tools_beside_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults find the tools of the containers beside the nodes, where they run in a real run, and not those of this machine."""
    for case in HELD:
        plugins.load("envctl.faults", kind(case))
    for name, module in list(sys.modules.items()):
        if name.startswith("envctl.faults.") and hasattr(module, "find"):
            monkeypatch.setattr(module, "find", lambda _: SimpleNamespace(programs=ByName(), env={}))


def rules(reach: Reach) -> dict[str, list[str]]:
    """The tables of ours; an engine has its own beside them, which change with each start."""
    said = {node.name: reach.run(node.name, [NFT, "list", "tables"], where="netns") for node in reach.environment().nodes}
    return {name: [line for line in done.stdout.splitlines() if "envctl" in line] for name, done in said.items()}


class ByName(dict[str, str]):
    """Every program is called by its name there."""

    def __missing__(self, name: str) -> str:
        return name


def kind(case: str) -> str:
    return case.partition(",")[0].partition(" ")[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("tools_beside_the_nodes")
def test_it_is_healed_whatever_happens_meanwhile(case: str, place: tuple[type[Substrate], Reach], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    substrate, reach = place
    needed = getattr(plugins.load("envctl.faults", kind(case)), "powers", frozenset())
    if not needed <= substrate.powers:
        return  # whoever asks for it here is refused before anything starts
    before = rules(reach)
    assert not any(before.values())
    first, second = make(case, world_of(reach, tmp_path / "first")), make(case, world_of(reach, tmp_path / "second"))
    assert first.probe().nodes == second.probe().nodes != ()
    request.addfinalizer(first.heal)
    request.addfinalizer(second.heal)
    assert rules(reach) == before, "to look writes nothing"
    assert not first.verify().shown, "it has not been applied yet"
    first.apply(60)
    effect = first.verify()
    assert effect.shown, effect
    assert effect.detail["canary_sent"] > 0
    assert effect.detail["canary_lost"] == 0
    target = TARGETS.get(case, "server-0")
    starts = reach.node(target).starts
    with suppress(ResourceError):  # a fault may have ended it just now
        reach.signal(target, signal.SIGKILL)
    assert until(lambda: reach.node(target).starts > starts, 60)
    first.apply(60)
    assert first.verify().shown, "its target was started again meanwhile"
    second.apply(60)
    first.heal()
    second.apply(2)
    assert until(lambda: not second.verify().shown, 60), "nobody renews its lease any more"
    second.heal()
    assert first.absent().shown
    assert second.absent().shown
    assert rules(reach) == before
