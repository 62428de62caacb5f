"""Running a scenario on two revisions: same inputs, in turns, and nothing of the other revision is left."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

from envctl import against
from envctl.cli.main import main
from envctl.errors import CancelledError, Exit, ResourceError, UsageError
from envctl.model.project import Project
from envctl.model.verdict import Finding, Verdict
from envctl.record import RunManifest
from envctl.record.verdict import save_verdict
from envctl.session import Asked, Interrupts, Outcome
from envctl.spec import load_project, scenario_file

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.cell  # its tools are looked for, though nothing is started


class Quiet:
    def step(self, _: str) -> nullcontext[SimpleNamespace]:
        return nullcontext(SimpleNamespace(update=lambda _: None, note=lambda _: None, done=lambda *_, **__: None))

    def above(self, _: str) -> None:
        pass


def git(root: Path, *arguments: str) -> str:
    argv = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments]
    return subprocess.run(argv, cwd=root, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """hello with a base, and a change that is not committed yet."""
    root = tmp_path / "mine"
    for part in ("stacks/hello", "scenarios/hello.yaml", "scenarios/traffic/hello.jsonl"):
        (root / part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, root / part)
    (root / "envctl.yaml").write_text("envctl: project/v1\nstack: stacks/hello\n")
    git(root, "init", "-q", "-b", "base")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "Hello")
    (root / "stacks/hello/app/hello.py").write_text("# changed\n")
    scenario = root / "scenarios/hello.yaml"
    scenario.write_text(scenario.read_text().replace("loss: 10 %", "loss: 30 %"))
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, root: Path) -> Callable[..., list[str]]:
    """Answers runs by a rule (side, number) → what fails; gives the sides in the order of the runs."""

    def by(rule: Callable[[str, int], list[str] | Exception]) -> list[str]:
        seen: list[str] = []

        def ci(project: Project, file: Path, asked: Asked, *_: object) -> Outcome:
            seen.append("here" if project.root == root else "there")
            assert file.is_relative_to(project.root)
            assert "loss: 30 %" in file.read_text(), "the faults of this checkout"
            changed = (project.stack / "app/hello.py").read_text() == "# changed\n"
            assert changed == (seen[-1] == "here")
            answer = rule(seen[-1], len(seen))
            if isinstance(answer, Exception):
                raise answer
            return Outcome(a_run(project.root, len(seen), answer), project.root / f".envctl/runs/{len(seen)}")

        monkeypatch.setattr(against.session, "ci", ci)
        return seen

    return by


def a_run(project: Path, number: int, failing: list[str]) -> Verdict:
    run = project / f".envctl/runs/{number}"
    (run / "inputs").mkdir(parents=True)
    for name, file in (("scenario.yaml", "scenarios/hello.yaml"), ("traffic.jsonl", "scenarios/traffic/hello.jsonl"), ("topology.yaml", "stacks/hello/topology.yaml")):
        shutil.copy(project / file, run / "inputs" / name)
    RunManifest(id=run.name, scenario="hello", stack="hello", env_id="e", commit="", branch="x", rng_seed=1, started_at=0.0, clock_ns=0, epoch_ns=0).save(run)
    verdict = Verdict("fail" if failing else "pass", tuple(Finding(id, id, "fail", "it is so") for id in failing))
    save_verdict(run, verdict)
    return verdict


def compared(root: Path, **more: object) -> against.Comparison:
    project = load_project(root)
    how = {"asked": Asked(full=True), "repeat": 4, "preexisting": "warn", **more}
    return against.compare(project, scenario_file(project, "hello"), "base", how.pop("asked"), Quiet(), Interrupts(), **how)


def test_both_sides_run_in_turns_and_only_this_checkouts_code_differs(root: Path, ran: Callable[..., list[str]]) -> None:
    sides = ran(lambda *_: [])
    found = compared(root)
    assert sides == ["here", "there", "there", "here", "here", "there", "there", "here"]
    assert (found.verdict, found.exit_code) == ("pass", Exit.PASS)
    assert git(root, "worktree", "list").count("\n") == 1
    assert sorted(each.name for each in (root / ".envctl/runs").iterdir()) == ["1", "2-there", "3-there", "4", "5", "6-there", "7-there", "8"]
    assert "loss: 10 %" in git(root, "show", "base:scenarios/hello.yaml")


def test_the_other_side_has_the_components_that_the_change_selects(root: Path, ran: Callable[..., list[str]]) -> None:
    ran(lambda *_: [])
    found = compared(root, asked=Asked(base="base"))
    assert (found.here.asked.only, found.there.asked.only) == ((), ("hello-db", "hello"))
    plan, _ = against.session.make_plan(found.here.project, found.here.file, found.there.asked)
    assert plan.components == ("hello-db", "hello")


@pytest.mark.parametrize(("preexisting", "code"), [("warn", Exit.PASS), ("fail", Exit.FAIL)])
def test_a_failure_of_both_is_said_and_blamed_only_where_that_is_asked_for(root: Path, ran: Callable[..., list[str]], preexisting: str, code: Exit) -> None:
    ran(lambda *_: ["no-loss"])
    found = compared(root, preexisting=preexisting)
    assert found.exit_code is code
    assert "no-loss: failed in 4 of 4 runs here, in 4 of 4 there: was there before" in "\n".join(found.lines())


def test_a_failure_of_this_side_alone_fails_and_the_report_of_its_last_run_says_so(root: Path, ran: Callable[..., list[str]]) -> None:
    ran(lambda side, number: ["no-loss"] if side == "here" and number > 4 else [])
    found = compared(root)
    assert found.exit_code is Exit.FAIL
    last = found.here.directories[-1]
    told = json.loads((last / "against.json").read_text())
    assert told["failures"] == [{"id": "no-loss", "here": 2, "of_here": 4, "there": 0, "of_there": 4, "new": True, "worse": False}]
    assert told["runs"]["there"][0] == "2-there"
    assert "no-loss: failed in 2 of 4 runs here, in 0 of 4 there: new" in json.loads((last / "report.json").read_text())["notes"]
    assert "in 0 of 4 there" in (last / "report.html").read_text()


def test_where_the_other_side_can_not_run_a_failure_stays_one(root: Path, ran: Callable[..., list[str]]) -> None:
    sides = ran(lambda side, _: ["no-loss"] if side == "here" else ResourceError("no such topic"))
    found = compared(root)
    assert sides == ["here", "there"]
    assert found.exit_code is Exit.FAIL
    assert "base can't run this" in "\n".join(found.lines())
    assert "no such topic" in "\n".join(found.lines())


def test_where_this_side_can_not_run_that_is_the_answer(root: Path, ran: Callable[..., list[str]]) -> None:
    ran(lambda *_: ResourceError("no such topic"))
    with pytest.raises(ResourceError):
        compared(root)
    assert git(root, "worktree", "list").count("\n") == 1


def test_ctrl_c_ends_the_comparison_and_its_work_tree(root: Path, ran: Callable[..., list[str]]) -> None:
    ran(lambda _, number: [] if number < 3 else CancelledError("cancelled"))
    found = compared(root)
    assert found.exit_code is Exit.CANCELLED
    assert git(root, "worktree", "list").count("\n") == 1


def test_an_unknown_revision_is_refused_before_anything_is_made(root: Path, ran: Callable[..., list[str]]) -> None:
    sides = ran(lambda *_: [])
    project = load_project(root)
    with pytest.raises(UsageError, match="no branch or commit 'nothing'"):
        against.compare(project, scenario_file(project, "hello"), "nothing", Asked(full=True), Quiet(), Interrupts(), repeat=4, preexisting="warn")
    assert not sides


@pytest.mark.parametrize(("arguments", "words"), [
    (["--against", "base", "--keep"], "--keep leaves one up"),
    (["--against", "base", "--shrink"], "two questions"),
    (["--against", "base", "--repeat", "3"], "3 is not in the range"),
    (["--against", "nothing", "--scenario", "hello", "--full"], "no branch or commit 'nothing'"),
])
def test_what_can_not_be_meant_is_refused(root: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ci", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
