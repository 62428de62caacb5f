from __future__ import annotations

import json
from pathlib import Path

import pytest
from stack_bench import Bench

from envctl.errors import DeadlineError, ResourceError
from envctl.stack import diagnostics


def bundles(bench: Bench) -> list[Path]:
    return sorted((bench.root / ".envctl" / "runs").glob("*-failed"))


def test_a_failure_leaves_what_there_is_to_look_at_and_says_where(bench: Bench) -> None:
    bench.up()
    directory = bench.ground.directory(bench.plan.env_id)
    (directory / "logs").mkdir(exist_ok=True)
    (directory / "logs" / "api-0.log").write_text("out of memory\n")
    (directory / "telemetry").mkdir()
    with (directory / "telemetry" / "traces.bin").open("wb") as large:
        large.truncate(diagnostics.LARGEST + 1)
    with pytest.raises(DeadlineError) as caught, diagnostics.kept(bench.plan, bench.ground):
        raise DeadlineError("api-0 was not ready in 3 s", hint="look at its log")
    (bundle,) = bundles(bench)
    assert caught.value.hint == f"look at its log\nlogs, states and the plan are in {bundle}"
    assert (bundle / "logs" / "api-0.log").read_text() == "out of memory\n"
    assert json.loads((bundle / "error.json").read_text())["message"] == "api-0 was not ready in 3 s"
    assert json.loads((bundle / "plan.json").read_text())["format"] == "plan/v1"
    assert not (bundle / "telemetry").exists()
    status = json.loads((bundle / "status.json").read_text())
    assert {node["name"] for node in status["nodes"]} == {"api-0", "db-0", "db-1", "web-0"}


def test_an_environment_that_never_was_leaves_the_plan_and_the_error(bench: Bench) -> None:
    with pytest.raises(ResourceError), diagnostics.kept(bench.plan, bench.ground):
        raise ResourceError("no")
    (bundle,) = bundles(bench)
    assert {file.name for file in bundle.iterdir()} == {"error.json", "plan.json"}


def test_what_goes_well_leaves_nothing(bench: Bench) -> None:
    with diagnostics.kept(bench.plan, bench.ground):
        pass
    assert bundles(bench) == []
