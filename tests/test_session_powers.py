"""A scenario that needs what a substrate can't is refused while it is planned: nothing has been asked of an engine by then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envctl import plugins, session, spec
from envctl.errors import CapabilityError
from envctl.model.scenario import FaultSpec
from envctl.spec import find_root, load_project

ROOT = Path(__file__).parents[1]


def plan(monkeypatch: pytest.MonkeyPatch, substrate: str, *powers: str) -> str:
    load = spec.load_scenario
    monkeypatch.setattr(spec, "load_scenario", lambda *args, **options: replace(load(*args, **options), powers=powers))
    monkeypatch.setattr(session, "require_ground", lambda *_: None)
    asked = session.Asked(full=True, substrate=substrate)
    return session.make_plan(load_project(find_root(ROOT)), ROOT / "scenarios/checkout-under-fire.yaml", asked)[0].substrate


def test_a_missing_power_is_named_with_who_needs_it_and_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CapabilityError, match="scenario checkout-under-fire needs the power snapshots, which the substrate docker") as refusal:
        plan(monkeypatch, "docker", "snapshots")
    assert "--substrate embedded" in refusal.value.hint


def test_a_fault_may_need_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = plugins.load("envctl.faults", "node-kill")
    monkeypatch.setattr(kind, "powers", frozenset({"io-limits"}), raising=False)
    with pytest.raises(CapabilityError, match="fault node-kill needs the power io-limits") as refusal:
        plan(monkeypatch, "embedded")
    assert "no substrate" in refusal.value.hint


def test_a_slow_disk_is_refused_everywhere_and_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    load = spec.load_scenario
    fault = FaultSpec("slow", "slow-disk", 1.0, (), 1.0, {"target": "shop-db", "write": "1Mi"})
    monkeypatch.setattr(spec, "load_scenario", lambda *args, **options: replace(load(*args, **options), faults=(fault,)))
    for substrate in ("embedded", "docker", "kubernetes"):
        with pytest.raises(CapabilityError, match=f"needs the power io-limits, which the substrate {substrate} does not have") as refusal:
            plan(monkeypatch, substrate)
        assert "io.max" in refusal.value.hint


def test_who_is_filled_is_born_with_a_disk_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    load = spec.load_scenario
    project, asked = load_project(find_root(ROOT)), session.Asked(full=True, substrate="embedded")
    monkeypatch.setattr(session, "require_ground", lambda *_: None)
    faults = tuple(FaultSpec(path, "disk-full", 1.0, (), 1.0, {"target": "bus", "path": path}) for path in ("/data", "/tmp"))
    monkeypatch.setattr(spec, "load_scenario", lambda *args, **options: replace(load(*args, **options), faults=faults[1:]))
    without, _ = session.make_plan(project, ROOT / "scenarios/checkout-under-fire.yaml", asked)
    assert without.disks == {}
    monkeypatch.setattr(spec, "load_scenario", lambda *args, **options: replace(load(*args, **options), faults=faults))
    plan, _ = session.make_plan(project, ROOT / "scenarios/checkout-under-fire.yaml", asked)
    assert plan.disks == {"bus": 512 << 20}
    assert plan.digest != without.digest


@pytest.mark.parametrize(("substrate", "power"), [("embedded", "snapshots"), ("docker", "limits")])
def test_what_is_there_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch, substrate: str, power: str) -> None:
    assert plan(monkeypatch, substrate, power) == substrate
