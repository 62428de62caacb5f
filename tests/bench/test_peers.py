"""What the comparison with Docker Compose compares, and how it judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import peers
from envctl.engines.base import Site
from envctl.engines.realise import realise_all
from envctl.model.environment import NodeSpec
from envctl.spec import load_topology, unpackaged


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "stacks/peers/app").mkdir(parents=True)
    peers.write(tmp_path)
    return tmp_path


def nodes(root: Path, tmp_path: Path) -> dict[str, tuple[NodeSpec, tuple[str, ...]]]:
    topology = load_topology(root / "stacks/peers/topology.yaml")
    names = tuple(topology.components)
    made = realise_all(topology, names, (), Site(topology, "peers", names, (), tmp_path / "cache", packaging="images"))
    return {node.name: (node, each.needs) for each in made for node in each.nodes}


def test_the_compose_file_has_the_processes_that_envctl_starts_on_docker(root: Path, tmp_path: Path) -> None:
    services: dict[str, Any] = peers.as_compose(root / "stacks/peers/topology.yaml")["services"]
    wanted = nodes(root, tmp_path)
    assert services.keys() == wanted.keys()
    assert len(services) == 3 + peers.SERVICES
    for name, service in services.items():
        node, needs = wanted[name]
        assert service["image"] == node.image
        assert [word.replace("$$", "$") for word in service.get("command", ())] == list(node.command)
        assert [word.replace("$$", "$") for word in service.get("entrypoint", ())] == list(node.entrypoint or ())
        assert {key: value.replace("$$", "$") for key, value in service["environment"].items()} == node.env
        assert {need.rpartition("-")[0] for need in service["depends_on"]} == set(needs)
        assert service["healthcheck"]["test"][0] == "CMD"
    assert {each.image for each, _ in wanted.values()} == set(peers.IMAGES)


def test_every_component_runs_on_both_substrates(root: Path) -> None:
    topology = load_topology(root / "stacks/peers/topology.yaml")
    assert unpackaged(topology, topology.components, "files") == unpackaged(topology, topology.components, "images") == ()


def test_a_change_is_one_of_one_service_for_all(root: Path, tmp_path: Path) -> None:
    before, services = nodes(root, tmp_path), peers.as_compose(root / "stacks/peers/topology.yaml")["services"]
    peers.write(root, release="2")
    after, changed = nodes(root, tmp_path), peers.as_compose(root / "stacks/peers/topology.yaml")["services"]
    assert [name for name in before if before[name][0].digest != after[name][0].digest] == ["web-a-0"]
    assert [name for name in services if services[name] != changed[name]] == ["web-a-0"]


@pytest.mark.parametrize(("docker", "embedded", "met"), [(12.9, 4.9, [True, True]), (13.1, 5.1, [False, False])])
def test_medians_are_held_against_the_targets(docker: float, embedded: float, met: list[bool]) -> None:
    taken = {way: peers.Taken([value, value, 99.0], [1.0] * 3, [1.0, 1.0, 1.0], [300.0] * 3) for way, value in
             (("compose", 10.0), ("docker", docker), ("embedded", embedded))}
    figures = [each for each in peers._figures(taken) if each.what.startswith("ready") and "÷" in each.what]
    assert [each.met for each in figures] == met
