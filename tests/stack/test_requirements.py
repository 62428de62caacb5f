from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.errors import CapabilityError, Exit
from envctl.model.plan import Plan, Selection
from envctl.model.topology import Image, Kafka, Postgres, Service, Source, Topology
from envctl.stack import requirements
from envctl.substrates.docker import Docker, builder
from envctl.toolchain import machine
from envctl.toolchain.lookup import find, satisfies
from envctl.toolchain.machine import Lack

DB = Postgres(name="db", version=">=15")
API = Service(name="api", source=Source("tree", "api"), command=("python3",))
OLD = Kafka(name="bus", version="3.1")
UNUSED = Postgres(name="other", version="9")


def plan_of(*components: Postgres | Kafka | Service) -> Plan:
    topology = Topology("t", Path("/nowhere/topology.yaml"), (), {each.name: each for each in (*components, UNUSED)})
    selected = tuple(Selection(each.name, "full") for each in components)
    return Plan("t-1", Path("/nowhere"), topology, "embedded", selected, (), ("other",), 60, {}, {}, "1")


def test_what_is_here_is_enough_and_its_version_is_told() -> None:
    requirements.require(plan_of(DB, API))
    assert requirements.versions_of(plan_of(DB, API)) == {"db": find("postgres", ">=15").version}
    assert satisfies(requirements.versions_of(plan_of(DB))["db"], ">=15")


def test_everything_that_is_missing_is_told_at_once_with_the_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path))
    with pytest.raises(CapabilityError) as caught:
        requirements.require(plan_of(Postgres(name="db", version=">=99"), API, OLD))
    assert "postgres >=99 is not here" in caught.value.message
    assert "kafka 3.1 is not here" in caught.value.message
    assert "'postgres@>=99' kafka@3.1" in caught.value.hint
    assert "9 is not here" not in caught.value.message.replace(">=99", "")  # what is left out needs nothing
    assert caught.value.exit_code is Exit.NOT_MADE


def test_a_machine_that_can_hold_no_environment_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine_problems", lambda: (Lack("this kernel allows no user namespaces", "sudo sysctl"),))
    with pytest.raises(CapabilityError, match="allows no user namespaces") as caught:
        requirements.require(plan_of(DB))
    assert caught.value.hint == "sudo sysctl"


@pytest.fixture
def without_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Docker, "lacks", staticmethod(lambda *_: ()))
    monkeypatch.setenv("PATH", str(tmp_path))
    builder.buildkit.cache_clear()
    yield
    builder.buildkit.cache_clear()


def test_a_dockerfile_for_buildkit_is_refused_with_its_line_where_nothing_here_builds_it(tmp_path: Path, without_docker: None) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "Dockerfile").write_text("FROM a\nRUN --mount=type=cache,target=/x true\n")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "Dockerfile").write_text("FROM a\n")
    names = {"app": Image(context="app"), "same": Image(context="app"), "old": Image(context="old")}
    plan = plan_of(*(Service(name=name, image=image) for name, image in names.items()))
    plan = replace(plan, substrate="docker", topology=replace(plan.topology, file=tmp_path / "topology.yaml"))
    with pytest.raises(CapabilityError) as caught:
        requirements.require(plan)
    assert caught.value.message == f"{tmp_path}/app/Dockerfile:2: RUN --mount is for BuildKit, and no docker command here builds with that"
    assert "buildx" in caught.value.hint
    assert requirements._unbuildable(replace(plan, selected=(Selection("old", "full"),))) == ()
