"""What entries of a timeline stand for."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.model.scenario import FaultSpec
from envctl.spec import load_scenario, load_topology

SYSTEM = Path(__file__).parent / "system"
KILL = "{fault: node-kill, target: worker, pick: 1}"
Faults = Callable[..., tuple[FaultSpec, ...]]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    shutil.copytree(SYSTEM, tmp_path / "tiny")
    file = tmp_path / "tiny/scenarios/rush.yaml"
    before, _, rest = file.read_text().partition("faults:\n")
    after = "limits:" + rest.partition("limits:")[2]

    def make(*entries: str, rng_seed: int | None = None) -> tuple[FaultSpec, ...]:
        file.write_text("\n".join((before + "faults:", *(f"  - {entry}" for entry in entries), after)))
        return load_scenario(file, load_topology(tmp_path / "tiny/stacks/tiny/topology.yaml"), rng_seed=rng_seed).faults

    return make


def told(faults: tuple[FaultSpec, ...]) -> list[tuple[str, float | None, tuple[str, ...]]]:
    return [(fault.id, fault.at_s, fault.after) for fault in faults]


def test_a_sequence_goes_on_when_the_one_before_has_recovered(faults: Faults) -> None:
    loss = "{for: 2s, fault: packet-loss, from: web, to: bus, loss: 20 %}"
    assert told(faults(f"{{at: 5s, sequence: [{KILL}, {loss}, {KILL}]}}")) == [
        ("node-kill", 5.0, ()), ("packet-loss", None, ("node-kill",)), ("node-kill-2", None, ("packet-loss",)),
    ]


def test_what_is_parallel_starts_together_and_is_over_when_all_of_it_is(faults: Faults) -> None:
    loss = "{for: 2s, fault: packet-loss, from: web, to: bus, loss: 20 %}"
    assert told(faults(f"{{at: 5s, id: both, parallel: [{KILL}, {loss}]}}", "{on: healed(both), fault: node-kill, target: worker-0}")) == [
        ("node-kill", 5.0, ()), ("packet-loss", 5.0, ()), ("node-kill-2", None, ("node-kill", "packet-loss")),
    ]


def test_what_is_repeated_follows_itself_and_is_over_after_the_last_time(faults: Faults) -> None:
    assert told(faults("{at: 5s, repeat: 3, fault: node-kill, target: worker, pick: 1}", "{on: healed(node-kill), fault: node-kill, target: worker-0}")) == [
        ("node-kill", 5.0, ()), ("node-kill-2", None, ("node-kill",)), ("node-kill-3", None, ("node-kill-2",)), ("node-kill-4", None, ("node-kill-3",)),
    ]


def test_they_can_be_nested(faults: Faults) -> None:
    loss = "{for: 2s, fault: packet-loss, from: web, to: bus, loss: 20 %}"
    assert told(faults(f"{{at: 5s, repeat: 2, sequence: [{{parallel: [{KILL}, {loss}]}}, {{fault: node-kill, target: worker-0}}]}}")) == [
        ("node-kill", 5.0, ()), ("packet-loss", 5.0, ()), ("node-kill-2", None, ("node-kill", "packet-loss")),
        ("node-kill-3", None, ("node-kill-2",)), ("packet-loss-2", None, ("node-kill-2",)), ("node-kill-4", None, ("node-kill-3", "packet-loss-2")),
    ]


def test_a_nemesis_draws_by_weight_and_the_same_for_the_same_seed(faults: Faults) -> None:
    drawn = "{weight: 3, fault: node-kill, target: worker-0}, {fault: rebalance, group: workers, mode: churn}"
    entry = f"{{at: 5s, nemesis: {{faults: 400, of: [{drawn}]}}}}"
    first = faults(entry, rng_seed=1)
    assert first == faults(entry, rng_seed=1)
    assert [fault.fault for fault in first] != [fault.fault for fault in faults(entry, rng_seed=2)]
    assert 0.65 < Counter(fault.fault for fault in first)["node-kill"] / 400 < 0.85
    assert all(fault.after == (before.id,) for before, fault in itertools.pairwise(first))
    assert "weight" not in first[0].params


def test_an_escalation_is_a_sequence_whose_faults_know_their_step(faults: Faults) -> None:
    loss = "{for: 2s, fault: packet-loss, from: web, to: bus, loss: 20 %}"
    made = faults(f"{{at: 5s, id: wider, escalate: [{KILL}, {{parallel: [{loss}, {{fault: rebalance, group: workers, mode: churn}}]}}]}}",
                  "{on: healed(wider), fault: node-kill, target: worker-0}")
    assert told(made) == [("node-kill", 5.0, ()), ("packet-loss", None, ("node-kill",)), ("rebalance", None, ("node-kill",)),
                          ("node-kill-2", None, ("packet-loss", "rebalance"))]
    assert [(fault.escalation, fault.step, fault.steps) for fault in made] == [("wider", 1, 2), ("wider", 2, 2), ("wider", 2, 2), ("", 0, 0)]


def test_a_fault_may_have_its_own_tolerance_detection_and_deadline(faults: Faults) -> None:
    (fault,) = faults("{at: 5s, fault: node-kill, target: worker-0, during: [lag(workers) < 9], detect: {within: 3s, by: [lag(workers) > 2 for 1s]}, recover: {within: 9s}}")
    assert [condition.text for condition in fault.during] == ["lag(workers) < 9"]
    assert fault.detect is not None
    assert (fault.detect.within_s, fault.detect.by[0].hold_s, fault.recover_within_s) == (3, 1, 9)
    assert fault.params == {"target": "worker-0"}


@pytest.mark.parametrize("shape", [
    "fault: latency, delay: 50ms", "fault: latency, delay: 0.2 s, jitter: 50 ms, direction: both", "fault: bandwidth, rate: 1.5 Mbit/s",
    "fault: bandwidth, rate: 500 kbit/s, direction: reverse", "fault: duplicate, share: 5 %", "fault: reorder, share: 0.1, by: 20ms", "fault: corrupt, share: 0.5 %",
])
def test_links_can_be_shaped(faults: Faults, shape: str) -> None:
    (fault,) = faults(f"{{at: 1s, for: 5s, from: web, to: bus, {shape}}}")
    assert fault.for_s == 5.0
