"""What `envctl ci` says and exits with when teardown or a scenario fails, and what the command line says of the system's errors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from envctl import session
from envctl.cli import ci
from envctl.cli.main import main
from envctl.errors import Exit, LeakError, ResourceError
from envctl.model.verdict import Finding, Verdict

LEAK = LeakError("one left 1 behind\n  process 7: sleep")


class Quiet:
    def step(self, _: str) -> nullcontext[SimpleNamespace]:
        return nullcontext(SimpleNamespace(update=print, note=print, done=lambda *_, **__: None))


@dataclass
class Steps:
    """A session whose steps do nothing but say how they ended."""

    verdicts: list[str | Verdict]
    leak: Exception | None = None
    up: Exception | None = None
    downs: int = 0

    def finish(self, *_: object) -> Verdict:
        verdict = self.verdicts.pop(0)
        return verdict if isinstance(verdict, Verdict) else Verdict(verdict, ())  # type: ignore[arg-type]

    def bring_up(self, *_: object) -> SimpleNamespace:
        if self.up:
            error, self.up = self.up, None
            raise error
        return SimpleNamespace(environment=None)

    def down(self, *_: object) -> None:
        self.downs += 1
        if self.leak:
            raise self.leak


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Exit]]:
    """Runs scenarios with these steps; gives their exit codes."""
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    (tmp_path / "report.md").write_text("the report\n")
    plan, scenario = SimpleNamespace(env_id="one", summary=""), SimpleNamespace(seed="")

    def run(steps: Steps, files: int = 1, policy: str = "fail", **more: bool) -> list[Exit]:
        doubles = {
            "make_plan": lambda *_: (plan, scenario), "snapshot": lambda *_: None, "bring_up": steps.bring_up, "down": steps.down,
            "run_scenario": lambda *_: tmp_path, "finish": steps.finish, "report": lambda at: at,
        }
        for name, double in doubles.items():
            monkeypatch.setattr(session, name, double)
        monkeypatch.setattr(session.Interrupts, "install", lambda _: None)
        monkeypatch.setattr("envctl.cli.console.Console.step", Quiet.step)
        project = SimpleNamespace(root=tmp_path, stack=SimpleNamespace(name="shop"))
        return ci._all(project, [tmp_path / f"{n}.yaml" for n in range(files)], session.Asked(), policy, **more)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(("verdict", "policy", "code"), [
    ("pass", "fail", Exit.LEAKED), ("fail", "fail", Exit.FAIL), ("inconclusive", "fail", Exit.INCONCLUSIVE),
    ("inconclusive", "warn", Exit.LEAKED),
])
def test_a_failed_teardown_hides_no_verdict(run, tmp_path: Path, capsys: pytest.CaptureFixture[str], verdict, policy: str, code: Exit) -> None:
    assert run(Steps([verdict], leak=LEAK), policy=policy) == [code]
    said = capsys.readouterr()
    assert "report.html" in said.out
    assert "process 7: sleep" in said.err
    summary = (tmp_path / "summary").read_text()
    assert "the report" in summary
    assert "process 7: sleep" in summary
    assert f"verdict={verdict}\n" in (tmp_path / "output").read_text()


def test_an_error_of_one_scenario_is_its_result_and_the_others_have_theirs(run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = Steps(["pass", "fail", "pass"], up=ResourceError("bus could not be made", hint="look"))
    codes = run(steps, files=4)
    assert codes == [Exit.NOT_MADE, Exit.PASS, Exit.FAIL, Exit.PASS]
    assert min(codes, key=ci.WORST.index) is Exit.FAIL
    assert steps.downs == 4
    assert "error: bus could not be made\nhint: look" in capsys.readouterr().err
    assert "bus could not be made" in (tmp_path / "summary").read_text()
    assert (tmp_path / "output").read_text().splitlines()[-3] == "verdict=fail"  # the worst, not the last


def test_an_error_tells_also_what_its_teardown_left(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Steps([], leak=LEAK, up=PermissionError(13, "Permission denied", "/x/y"))) == [Exit.NOT_MADE]
    assert run(Steps([], leak=LEAK, up=ResourceError("bus could not be made"))) == [Exit.NOT_MADE]
    said = capsys.readouterr().err
    assert "error: /x/y: Permission denied\none left 1 behind" in said
    assert "error: bus could not be made\none left 1 behind\n  process 7: sleep" in said


def test_an_inconclusive_run_is_tried_again_unless_no_run_of_the_scenario_can_say_more(run, capsys: pytest.CaptureFixture[str]) -> None:
    by_chance = Finding("no-loss", "no-loss", "inconclusive", "read too soon")
    always = replace(by_chance, id="slo:p99", fixed=True)
    for findings, tries in (((by_chance,), 2), ((by_chance, always), 1), ((by_chance, replace(always, waived="me")), 2), ((replace(always, outcome="pass"),), 2)):
        steps = Steps([Verdict("inconclusive", findings), Verdict("pass", ())])
        assert run(steps, policy="retry") == [Exit.PASS if tries == 2 else Exit.INCONCLUSIVE]
        assert len(steps.verdicts) == 2 - tries
        said = capsys.readouterr().out
        assert ("not tried again: slo:p99 would be the same in every run of this scenario\n" in said) is (tries == 1)


def test_only_what_failed_is_shrunk_and_the_summary_has_what_came_of_it(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shrunk = []

    def shrink(_: object, directory: Path, *__: object) -> SimpleNamespace:
        shrunk.append(directory)
        (directory / "report.md").write_text("the report, with the smallest\n")
        return SimpleNamespace(lines=lambda: ["SHRUNK  scenarios/1-shrunk.yaml"])

    monkeypatch.setattr("envctl.shrinking.shrink", shrink)
    assert run(Steps(["pass", "fail", "inconclusive"]), files=3, shrink=True) == [Exit.PASS, Exit.FAIL, Exit.INCONCLUSIVE]
    assert len(shrunk) == 1
    assert "SHRUNK  scenarios/1-shrunk.yaml" in capsys.readouterr().out
    assert "with the smallest" in (tmp_path / "summary").read_text()


def test_what_goes_wrong_while_shrinking_hides_no_verdict(run, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def shrink(*_: object) -> None:
        raise LEAK

    monkeypatch.setattr("envctl.shrinking.shrink", shrink)
    codes = run(Steps(["fail"]), shrink=True)
    assert codes == [Exit.FAIL, Exit.LEAKED]
    assert min(codes, key=ci.WORST.index) is Exit.FAIL
    assert "one left 1 behind" in capsys.readouterr().err


def test_every_exit_code_has_its_place_among_the_worst() -> None:
    assert set(ci.WORST) == set(Exit)


@pytest.mark.parametrize(("error", "said"), [
    (PermissionError(13, "Permission denied", "/x/y"), "error: /x/y: Permission denied\n"),
    (OSError(28, "No space left on device"), "error: No space left on device\nhint: `envctl --debug …` shows where\n"),
])
def test_an_error_of_the_system_is_said_without_a_trace(monkeypatch, capsys: pytest.CaptureFixture[str], error: OSError, said: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("envctl.spec.find_root", lambda _: fail())
    for arguments, trace in ((["plan"], False), (["--debug", "plan"], True)):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == Exit.NOT_MADE
        heard = capsys.readouterr().err
        assert heard.endswith(said)
        assert ("Traceback" in heard) is trace


def test_a_wrong_call_is_said_as_every_other_error_with_the_way_to_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in (
        (["up", "--fulll"], "error: No such option '--fulll'. Did you mean '--full'?\nhint: `envctl up --help` shows how it is called\n"),
        (["setup", "postgress@15"], "error: no tool is called 'postgress'\nhint: did you mean 'postgres'?"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == Exit.USAGE
        assert capsys.readouterr().err.startswith(said)
