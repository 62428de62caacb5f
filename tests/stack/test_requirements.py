from __future__ import annotations

from pathlib import Path

import pytest

from envctl.errors import CapabilityError, Exit
from envctl.model.plan import Plan, Selection
from envctl.model.topology import Kafka, Postgres, Service, Source, Topology
from envctl.stack import requirements
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
