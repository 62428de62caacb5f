"""Shrinking a run: what counts as failing, the budget, the file that comes of it, and what the run's report says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from envctl import shrinking
from envctl.cli.main import main
from envctl.errors import CancelledError, LeakError, UsageError
from envctl.model.scenario import Scenario
from envctl.model.verdict import Finding, Verdict
from envctl.record import RunManifest
from envctl.record.verdict import save_verdict
from envctl.session import Asked, Interrupts, Outcome
from envctl.shrinking import Budget, Shrunk, shrink
from envctl.spec import load_project, load_scenario, load_topology

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cell  # its tools are looked for, though nothing is started
NEMESIS = """faults:
  - at: 3s
    nemesis:
      faults: 3
      of:
        - {for: 3s, fault: packet-loss, from: hello, to: hello-db, loss: 10 %}
        - {fault: node-kill, target: hello-db}
"""


class Quiet:
    def step(self, _: str) -> nullcontext[SimpleNamespace]:
        return nullcontext(SimpleNamespace(update=lambda _: None, note=lambda _: None, done=lambda *_, **__: None))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(ROOT / "stacks/hello", tmp_path / "stacks/hello")
    (tmp_path / "scenarios/traffic").mkdir(parents=True)
    shutil.copy(ROOT / "scenarios/traffic/hello.jsonl", tmp_path / "scenarios/traffic")
    before, rest = (ROOT / "scenarios/hello.yaml").read_text().split("faults:\n", 1)
    (tmp_path / "scenarios/hello.yaml").write_text(before.replace("for: 15s", "for: 40s") + NEMESIS + "limits:" + rest.split("limits:", 1)[1])
    (tmp_path / "envctl.yaml").write_text("envctl: project/v1\nstack: stacks/hello\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def failed(root: Path) -> Path:
    """A run of it that failed with two findings."""
    run = root / ".envctl/runs/2026-01-01T000000.000Z-hello"
    (run / "inputs").mkdir(parents=True)
    shutil.copy(root / "scenarios/hello.yaml", run / "inputs/scenario.yaml")
    shutil.copy(root / "scenarios/traffic/hello.jsonl", run / "inputs/traffic.jsonl")
    shutil.copy(root / "stacks/hello/topology.yaml", run / "inputs/topology.yaml")
    RunManifest(id=run.name, scenario="hello", stack="hello", env_id="e", commit="", branch="main", rng_seed=7, started_at=0.0, clock_ns=0, epoch_ns=0).save(run)
    save_verdict(run, a_verdict("no-loss", "slo:p95"))
    return run


def a_verdict(*failing: str) -> Verdict:
    return Verdict("fail" if failing else "pass", tuple(Finding(id, id, "fail", "it is so") for id in failing))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[..., list[Scenario]]:
    """Answers runs by a rule; gives the scenarios that were run."""

    def by(rule: Callable[[Scenario, int], Verdict | Exception], **outcome: object) -> list[Scenario]:
        seen: list[Scenario] = []

        def ci(project: object, file: Path, asked: Asked, *_: object) -> Outcome:
            assert not asked.keep
            seen.append(load_scenario(file, load_topology(root / "stacks/hello/topology.yaml"), seeds=root / "seeds", rng_seed=asked.rng_seed))
            answer = rule(seen[-1], len(seen))
            if isinstance(answer, Exception):
                raise answer
            return Outcome(answer, **{"directory": root, **outcome})

        monkeypatch.setattr(shrinking.session, "ci", ci)
        return seen

    return by


def kills(scenario: Scenario, _: int = 0) -> Verdict:
    """Notes are lost whenever the database is killed; what else fails depends on the network."""
    names = {fault.fault for fault in scenario.faults}
    return a_verdict(*(["no-loss"] if "node-kill" in names else []), *(["slo:p95"] if "packet-loss" in names else []))


def shrunk(root: Path, run: Path, **more: object) -> Shrunk | None:
    return shrink(load_project(root), run, Asked(full=True), Quiet(), Interrupts(), **more)


def test_what_is_left_is_a_scenario_that_says_where_it_comes_from(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    runs = tried(kills)
    found = shrunk(root, failed)
    assert found is not None
    assert (found.file, found.finding, found.failed, found.tries, found.ended) == (root / "scenarios/hello-shrunk.yaml", "no-loss", 3, 3, "")
    text = found.file.read_text()
    assert text.startswith(f"# Shrunk by envctl from the run {failed.name} (scenario hello, rng seed 7).\n# no-loss failed in 3 of 3 tries of this one.\n")
    left = load_scenario(found.file, load_topology(root / "stacks/hello/topology.yaml"), seeds=root / "seeds")
    assert [fault.fault for fault in left.faults] == ["node-kill"]
    assert (left.traffic.duration_s, left.traffic.rate_per_s, left.rng_seed) == (4.0, 1.0, 7)
    assert found.runs == len(runs) <= 40
    assert all(each.rng_seed == 7 for each in runs)


def test_a_check_is_the_same_by_what_it_asks_whatever_its_number(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    text = (failed / "inputs/scenario.yaml").read_text()
    lost, killed = (f"  - degraded-mode: {{while: {id}, operation: traffic, expect: {{success_rate: '>= 99 %'}}}}\n" for id in ("lost", "killed"))
    faults = "faults:\n  - {id: lost, at: 3s, for: 3s, fault: packet-loss, from: hello, to: hello-db, loss: 10 %}\n  - {id: killed, at: 10s, fault: node-kill, target: hello-db}\n"
    before, rest = text.split(NEMESIS)
    assert "checks:\n" in rest
    (failed / "inputs/scenario.yaml").write_text(before + faults + rest.replace("checks:\n", f"checks:\n{lost}{killed}"))
    save_verdict(failed, a_verdict("degraded-mode-2"))

    def degrades(scenario: Scenario, _: int) -> Verdict:
        return a_verdict(*(check.id for check in scenario.checks if check.check == "degraded-mode" and check.params["while"] == "killed"))

    tried(degrades)
    found = shrunk(root, failed)
    assert found is not None
    left = load_scenario(found.file, load_topology(root / "stacks/hello/topology.yaml"), seeds=root / "seeds")
    assert [fault.id for fault in left.faults] == ["killed"]
    assert found.finding == "degraded-mode"


def test_the_report_of_the_run_shows_the_reproduction(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    tried(kills)
    shrunk(root, failed)
    told = json.loads((failed / "report.json").read_text())
    assert "\nenvctl run scenarios/hello-shrunk.yaml  # shrunk: node-kill at 2 s; traffic for 4 s at 1/s: write; no seed; no-loss failed in 3 of 3 tries" in told["reproduce"].replace("write, read", "write")
    assert "hello-shrunk.yaml" in (failed / "report.html").read_text()
    assert "hello-shrunk.yaml" in (failed / "report.md").read_text()
    assert (failed / "shrunk.yaml").read_text() == (root / "scenarios/hello-shrunk.yaml").read_text()


def test_another_failure_is_not_the_same_one(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    tried(kills)
    found = shrunk(root, failed, finding="slo:p95", output=root / "scenarios/slow.yaml")
    assert found is not None
    assert [fault.fault for fault in found.schedule.faults] == ["packet-loss"]
    assert found.file == root / "scenarios/slow.yaml"


def test_a_failure_that_does_not_come_again_is_not_shrunk(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    runs = tried(lambda *_: a_verdict("slo:p95"))
    assert shrunk(root, failed, budget=Budget(of=3)) is None
    assert len(runs) == 3
    assert not (root / "scenarios/hello-shrunk.yaml").exists()


def test_a_failure_that_comes_every_other_time_needs_as_many_as_asked_for(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    runs = tried(lambda scenario, number: kills(scenario) if number % 2 else a_verdict())
    found = shrunk(root, failed, budget=Budget(runs=400, least=2, of=4))
    assert found is not None
    assert [fault.fault for fault in found.schedule.faults] == ["node-kill"]
    assert 2 <= found.failed < found.tries
    assert len(runs) == found.runs


def test_the_search_ends_with_its_budget_and_what_was_found_stands(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    runs = tried(kills)
    found = shrunk(root, failed, budget=Budget(runs=3))
    assert found is not None
    assert "budget" in found.ended
    assert "a smaller one" in "\n".join(found.lines())
    assert len(runs) <= 3 + 3  # and tries of the result


def test_what_can_not_be_brought_up_does_not_fail_so(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    tried(lambda scenario, number: kills(scenario) if number == 1 else UsageError("refused"))
    found = shrunk(root, failed, budget=Budget(runs=10))
    assert found is not None
    assert found.schedule == found.whole


def test_ctrl_c_ends_the_search_with_what_was_found(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    tried(lambda scenario, number: kills(scenario) if number < 4 else CancelledError("cancelled"))
    found = shrunk(root, failed)
    assert found is not None
    assert found.ended == "it was cancelled"
    tried(lambda *_: CancelledError("cancelled"))
    with pytest.raises(CancelledError):
        shrunk(root, failed)


def test_what_is_left_behind_ends_it(root: Path, failed: Path, tried: Callable[..., list[Scenario]]) -> None:
    runs = tried(kills, left=LeakError("1 left behind"))
    with pytest.raises(LeakError):
        shrunk(root, failed)
    assert len(runs) == 1


@pytest.mark.parametrize(("finding", "verdict"), [("no-duplicates", a_verdict("no-loss")), ("", a_verdict())])
def test_only_what_failed_can_be_shrunk(root: Path, failed: Path, tried: Callable[..., list[Scenario]], finding: str, verdict: Verdict) -> None:
    runs = tried(kills)
    save_verdict(failed, verdict)
    with pytest.raises(UsageError, match="has no failure"):
        shrunk(root, failed, finding=finding)
    assert not runs


def test_a_waived_failure_counts_as_none() -> None:
    [finding] = a_verdict("no-loss").findings
    assert not shrinking.failures(Verdict("pass", (replace(finding, waived="ann"),)))


def called(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_run_is_named_by_its_id(root: Path, failed: Path, tried: Callable[..., list[Scenario]], capsys: pytest.CaptureFixture[str]) -> None:
    tried(kills)
    assert called("shrink", failed.name) == 0
    said = capsys.readouterr().out
    assert said.startswith("SHRUNK  scenarios/hello-shrunk.yaml\n")
    assert said.endswith("        reproduce: envctl run scenarios/hello-shrunk.yaml\n")


def test_a_scenario_is_run_first_and_shrunk_when_it_fails(
    root: Path, failed: Path, tried: Callable[..., list[Scenario]], capsys: pytest.CaptureFixture[str],
) -> None:
    runs = tried(kills, directory=failed)
    assert called("shrink", "hello", "--rng-seed", "7", "--finding", "no-loss") == 0
    assert runs[0].name == "hello"
    assert {each.name for each in runs[1:]} == {"hello-shrunk"}
    assert "SHRUNK" in capsys.readouterr().out


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("inconclusive", 7)])
def test_a_scenario_that_does_not_fail_is_not_shrunk(root: Path, failed: Path, tried: Callable[..., list[Scenario]], verdict: str, code: int) -> None:
    runs = tried(lambda *_: Verdict(verdict, ()), directory=failed)  # type: ignore[arg-type]
    assert called("shrink", "hello") == code
    assert len(runs) == 1


def test_a_failure_that_does_not_come_again_is_said(root: Path, failed: Path, tried: Callable[..., list[Scenario]], capsys: pytest.CaptureFixture[str]) -> None:
    tried(lambda *_: a_verdict())
    assert called("shrink", failed.name) == 7
    assert "did not come again" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "words"), [
    (["shrink", "hello", "--attempts", "2", "--at-least", "3"], "--at-least 3 of --attempts 2"),
    (["shrink", "hello", "--write", "x.json"], "no name for a scenario"),
    (["shrink", "nothing"], "no scenario 'nothing'"),
    (["shrink", "hello", "--tries", "0"], "0 is not in the range"),
    (["ci", "--shrink", "--keep"], "--keep leaves one up"),
])
def test_what_can_not_be_meant_is_refused(root: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
