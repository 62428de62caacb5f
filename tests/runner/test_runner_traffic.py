"""What the runner tells the replay driver."""

from __future__ import annotations

import time
from pathlib import Path

from envctl.model.environment import Environment
from envctl.model.scenario import Scenario, Traffic
from envctl.record import RunManifest
from envctl.runner.traffic import Driver
from envctl.waiting import until

PROTO = 'syntax = "proto3"; package p; service S { rpc Do(A) returns (A); } message A {}'


def test_the_driver_gets_the_contracts_that_the_run_keeps_and_says_why_it_can_not_begin(tmp_path: Path) -> None:
    (tmp_path / "inputs" / "contracts").mkdir(parents=True)
    (tmp_path / "inputs" / "contracts" / "s.proto").write_text(PROTO)
    (tmp_path / "inputs" / "traffic.jsonl").write_text('{"op": "do", "grpc": "p.S/Do", "body": {}}\n')
    scenario = Scenario("s", tmp_path / "inputs" / "scenario.yaml", Traffic(tmp_path / "inputs" / "traffic.jsonl", "nobody", None, None))
    environment = Environment(id="e", stack="t", substrate="embedded", directory=tmp_path, plan_digest="", nodes=(), endpoints={}, expires_at=0)
    manifest = RunManifest(id="r", scenario="s", stack="t", env_id="e", commit="", branch="", rng_seed=1, started_at=0.0,
                           clock_ns=time.monotonic_ns(), epoch_ns=time.time_ns())
    driver = Driver(tmp_path, scenario, environment, manifest, bootstrap="", operated=print, said=print)
    assert until(lambda: bool(driver.failure), 60)
    assert driver.failure == "the driver ended with status 2"  # nobody has no grpc port
    assert driver.planned == 1
    driver.stop()
    assert str(tmp_path / "inputs" / "contracts" / "s.proto") in (tmp_path / "replay.json").read_text()
