"""A system of two nodes that is hurt until it breaks, through the command line: what stops the run, what was noticed, how far an escalation got."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envctl.model.event import FaultEdge, Log
from envctl.model.verdict import Verdict
from envctl.record import Record
from envctl.record.verdict import load_verdict
from envctl.report.build import build

pytestmark = [pytest.mark.cell, pytest.mark.slow]


@dataclass
class Ran:
    status: int
    said: str
    record: Record
    verdict: Verdict

    def edges(self, fault: str) -> list[str]:
        return [edge.edge for window in self.record.faults if window.id == fault for edge in window.edges]

    def edge(self, fault: str, name: str) -> FaultEdge:
        found = next(window for window in self.record.faults if window.id == fault).edge(name)
        assert found is not None
        return found

    def titles(self) -> dict[str, tuple[str, str]]:
        return {finding.id: (finding.outcome, finding.title) for finding in self.verdict.findings}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ran]]:
    """Runs a scenario of `hurt/`; all on one environment."""
    root = tmp_path_factory.mktemp("hurt") / "tiny"
    shutil.copytree(Path(__file__).parent / "hurt", root)
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=root, check=True)

    def envctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "envctl", *arguments]
        return subprocess.run(argv, cwd=root, text=True, capture_output=True, timeout=240, check=False)

    def run(scenario: str) -> Ran:
        done = envctl("run", scenario)
        found = list((root / ".envctl" / "runs").glob(f"*-{scenario}"))
        assert found, done.stdout + done.stderr
        return Ran(done.returncode, done.stdout + done.stderr, Record.load(found[0]), load_verdict(found[0]))

    try:
        yield run
    finally:
        assert envctl("down").returncode == 0


@pytest.fixture(scope="module")
def stopped(run: Callable[[str], Ran]) -> Ran:
    return run("stops")


@pytest.fixture(scope="module")
def broken(run: Callable[[str], Ran], stopped: Ran) -> Ran:  # after it: this one breaks a node for good
    return run("steps")


def test_a_tripped_stop_condition_fails_the_run_and_is_named(stopped: Ran) -> None:
    assert stopped.status == 5, stopped.said
    assert stopped.titles()["run:stop"] == ("fail", "a stop condition ended the run: success_rate(work) < 50 % for 500ms")
    assert "✘ stopped: success_rate(work) < 50 % for 500ms" in stopped.said


def test_the_fault_is_healed_before_anything_else_and_nothing_more_is_started(stopped: Ran) -> None:
    stop = next(log for log in stopped.record.logs if "stop" in log.detail)
    lines = [json.loads(line) for line in (stopped.record.directory / "events.jsonl").read_text().splitlines()]
    after = [event for event in lines if event["at_ns"] > stop.at_ns and event["kind"] in ("fault", "step")]
    assert [event.get("edge") for event in after[:2]] == ["heal", "absent"]
    assert all(event["ok"] for event in after[:2])
    assert stopped.edges("node-kill") == []
    assert stopped.titles()["fault:node-kill"] == ("inconclusive", "its time never came")


def test_measures_of_the_scenario_s_own_are_read_from_where_they_are(stopped: Ran) -> None:
    before = next(step for step in stopped.record.steps if step.name == "steady" and step.edge == "end")
    seen = {answer["text"]: answer for answer in before.detail["conditions"]}
    assert all(answer["ok"] for answer in seen.values()), seen
    assert [seen[text]["value"] for text in ("value(queue) == 3", "value(files) == 1")] == [3, 1]
    assert 0 < seen["value(answer) < 400 ms"]["value"] < 0.4
    assert 0 < seen["memory(web-0) < 90 %"]["value"] < 0.9
    told = {finding.id: finding.stats for finding in stopped.verdict.findings}["steady:before"]
    assert (told["value(queue) == 3"], told["memory(web-0) < 90 %"].endswith("%")) == ("3", True)


def test_what_can_not_be_measured_while_the_system_hangs_has_no_value(stopped: Ran) -> None:
    begun, ended = stopped.edge("node-pause", "apply").at_ns, stopped.edge("node-pause", "heal").at_ns
    hung = [sample for sample in stopped.record.samples("value") if sample.attrs["name"] == "queue" and begun < sample.at_ns < ended]
    assert hung
    assert all(sample.value is None for sample in hung)
    assert any(log.message == "samples are missing" for log in stopped.record.logs)


def test_what_told_of_a_fault_first_is_recorded_and_judged(stopped: Ran) -> None:
    edge = stopped.edge("node-pause", "detect")
    assert edge.detail["by"] == "error_rate(work) > 5 % for 200ms"
    assert 0 < edge.detail["seconds"] <= 8
    outcome, title = stopped.titles()["detect:node-pause"]
    assert (outcome, title.startswith("detected in ")) == ("pass", True)
    assert f"detected in {edge.detail['seconds']:.1f} s" in stopped.said


def test_what_must_hold_while_a_fault_acts_is_judged_apart(stopped: Ran) -> None:
    assert stopped.titles()["during:node-pause"][0] == "fail"
    assert "not tolerated: success_rate(traffic) >= 80 %: it was" in stopped.titles()["during:node-pause"][1]


def test_a_step_starts_when_the_one_before_has_recovered(broken: Ran) -> None:
    first, second = broken.edge("node-kill", "recover"), broken.edge("node-kill-2", "probe")
    assert first.ok, broken.said
    assert second.at_ns > first.at_ns
    assert second.detail == {"escalation": "growing", "step": 2, "steps": 2}
    assert "step 2 of 2: web-0 (zone a), web-1 (zone b)" in broken.said


def test_an_escalation_tells_at_which_step_it_broke_and_nothing_follows(broken: Ran) -> None:
    assert broken.status == 5
    outcome, title = broken.titles()["escalation:growing"]
    assert outcome == "fail"
    assert title.startswith("it broke at step 2 of 2 (node-kill-2): the system did not recover in time")
    assert title.endswith("step 1 was the last that was survived")
    assert broken.edges("node-pause") == []
    assert broken.titles()["fault:node-pause"] == ("inconclusive", "not started: node-kill-2 was not survived, or not started itself")
    assert [type(log) for log in broken.record.logs if log.detail.get("not_started") == "node-pause"] == [Log]


def test_times_to_recover_are_judged_over_all_faults(broken: Ran) -> None:
    outcome, title = broken.titles()["slo:time_to_recover"]
    assert (outcome, title) == ("fail", "1 of 2 faults within 10 s; 1 more did not act")


def test_the_report_shows_detection_recovery_and_step_of_each_fault(stopped: Ran, broken: Ran) -> None:
    pause = build(stopped.record.directory).faults[0]
    assert pause.detect_s == stopped.edge("node-pause", "detect").detail["seconds"]
    assert pause.detected_by == "error_rate(work) > 5 % for 200ms"
    kill, again, _ = build(broken.record.directory).faults
    assert (kill.step, again.step) == ("1 of 2 of growing", "2 of 2 of growing")
    assert kill.recover_s is not None
    page: Any = (broken.record.directory / "report.html").read_text()
    assert "step 2 of 2 of growing" in page
