"""The file of a schedule is a scenario that says the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envctl.model.scenario import FaultSpec, Scenario
from envctl.shrink.schedule import Origin, keeping, open_origin, written
from envctl.spec import load_scenario, load_topology

ROOT = Path(__file__).parents[2]
SEEDS = ROOT / "seeds"
COMPOSED = """
faults:
  - at: 4s
    id: storm
    nemesis:
      faults: 4
      of:
        - {weight: 3, for: 2s, fault: partition, isolate: bus, pick: 1, during: [lag(payments) < 900], recover: {within: 9s},
           detect: {within: 4s, by: [lag(payments) > 5 for 1s]}}
        - {fault: node-kill, target: payments, pick: 1}
        - parallel:
            - {for: 3s, fault: packet-loss, from: orders, to: bus, loss: 20 %}
            - {for: 1s, fault: node-pause, target: notifications}
  - on: healed(storm)
    repeat: 2
    sequence:
      - {fault: node-kill, target: orders}
      - {fault: rebalance, group: payments, mode: churn}
"""


def the_shop() -> object:
    return load_topology(ROOT / "stacks/shop/topology.yaml")


@pytest.fixture(params=["checkout-under-fire", "bus-parted", "composed"])
def scenario(request: pytest.FixtureRequest, tmp_path: Path) -> Scenario:
    file = ROOT / "scenarios" / f"{request.param}.yaml"
    if request.param == "composed":
        text = (ROOT / "scenarios/checkout-under-fire.yaml").read_text().replace("checkout-under-fire", "composed")
        before, rest = text.split("faults:\n", 1)
        file = tmp_path / "composed.yaml"
        (tmp_path / "traffic").symlink_to(ROOT / "scenarios/traffic")
        file.write_text(before.replace("for: 30s", "for: 60s") + COMPOSED + "limits:" + rest.split("limits:", 1)[1])
    return load_scenario(file, the_shop(), seeds=SEEDS)


def again(origin: Origin, schedule: object, tmp_path: Path) -> Scenario:
    file = written(origin, schedule, tmp_path / "out", "smaller", ["Shrunk from a run."])
    assert file.read_text().startswith("# Shrunk from a run.\n")
    return load_scenario(file, the_shop(), seeds=SEEDS)


def plain(fault: FaultSpec) -> FaultSpec:
    detect = replace(fault.detect, by=tuple(replace(each, line=0) for each in fault.detect.by)) if fault.detect else None
    return replace(fault, line=0, place=(), during=tuple(replace(each, line=0) for each in fault.during), detect=detect)


def test_what_is_written_whole_is_the_same_scenario(scenario: Scenario, tmp_path: Path) -> None:
    origin = open_origin(scenario)
    found = again(origin, origin.whole, tmp_path)
    assert [plain(fault) for fault in found.faults] == [plain(fault) for fault in origin.whole.faults]
    assert [fault.id for fault in found.faults] == [fault.id for fault in scenario.faults]
    assert (found.checks and [c.params for c in found.checks]) == [c.params for c in scenario.checks]
    assert {name: replace(stream, line=0) for name, stream in found.streams.items()} == {n: replace(s, line=0) for n, s in scenario.streams.items()}
    assert [(c.text, c.threshold) for c in (*found.steady, *found.stop)] == [(c.text, c.threshold) for c in (*scenario.steady, *scenario.stop)]
    assert (found.traffic.rate_per_s, found.traffic.duration_s, found.seed) == (50.0, scenario.traffic.duration_s, "shop-small")
    assert (found.limits, found.slo.latency_s, found.rng_seed, found.takes) == (scenario.limits, scenario.slo.latency_s, scenario.rng_seed, scenario.takes)
    assert found.traffic.file.read_text() == scenario.traffic.file.read_text()


def test_every_fault_can_be_left_alone(scenario: Scenario, tmp_path: Path) -> None:
    origin = open_origin(scenario)
    for fault in origin.whole.faults:
        found = again(origin, replace(origin.whole, faults=keeping(origin.whole.faults, [fault])), tmp_path)
        assert [each.id for each in found.faults] == [fault.id]
        assert not found.faults[0].after


def test_a_schedule_without_faults_and_seed_has_neither_field(scenario: Scenario, tmp_path: Path) -> None:
    origin = open_origin(scenario)
    smallest = replace(origin.whole, faults=(), seed="", for_s=3.5, rate_per_s=2.0, operations=("browse", "place_order"))
    found = again(origin, smallest, tmp_path)
    assert (found.faults, found.seed, found.traffic.duration_s, found.traffic.rate_per_s) == ((), "", 3.5, 2.0)
    assert set(open_origin(found).kinds) == {"browse", "place_order"}


def test_the_same_schedule_has_the_same_key_and_another_has_another(scenario: Scenario) -> None:
    whole = open_origin(scenario).whole
    assert whole.key == open_origin(scenario).whole.key
    fewer = replace(whole, faults=whole.faults[1:])
    assert len({whole.key, fewer.key, replace(whole, for_s=1.0).key, replace(whole, seed="").key, replace(whole, operations=("a",)).key}) == 5
