"""The same scenario on this checkout and on another revision of it, in turns: what `envctl ci --against` does."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from envctl import session
from envctl.errors import CancelledError, EnvctlError, Exit, UsageError
from envctl.model.plan import Plan
from envctl.model.project import Project
from envctl.model.scenario import Scenario
from envctl.model.verdict import EXITS, Verdict, worst
from envctl.record.writer import publish
from envctl.report import write_all
from envctl.report.build import build
from envctl.report.differences import compared, failures, lines, outcome
from envctl.session import Asked, Interrupts, Steps

FORMAT = "against/v1"
FILE = "against.json"


class Said(Steps, Protocol):
    """Where progress goes, and lines that stay."""

    def above(self, text: str) -> None:
        """A line that stays."""


@dataclass(slots=True)
class Side:
    """The runs of one revision."""

    name: str
    project: Project
    file: Path
    asked: Asked
    verdicts: list[Verdict] = field(default_factory=list)
    directories: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of both sides."""

    here: Side
    there: Side
    preexisting: Literal["fail", "warn"]
    error: str = ""  # why the other revision could not be run
    cancelled: bool = False
    left: EnvctlError | None = None

    @property
    def exit_code(self) -> Exit:
        """What a process says; see `outcome`."""
        found = self.verdict
        if self.cancelled and found != "fail":
            return Exit.CANCELLED
        return self.left.exit_code if self.left is not None and found == "pass" else EXITS[found]

    @property
    def verdict(self) -> Literal["pass", "fail", "inconclusive"]:
        """What is said of the change."""
        return outcome(self.here.verdicts, self.there.verdicts, preexisting=self.preexisting)

    def lines(self) -> list[str]:
        """The answer for people."""
        head = f"{self.verdict.upper():<7} against {self.there.name}: {len(self.here.verdicts)} runs here, {len(self.there.verdicts)} there, in turns"
        if self.error:
            return [head, f"        {self.there.name} can't run this, so that what fails here is not compared: {self.error}"]
        known = [directory for side in (self.here, self.there) for directory in side.directories]
        reports = {directory: build(directory) for directory in known}
        failed = failures(self.here.verdicts, self.there.verdicts)
        told = lines([reports[d] for d in self.here.directories], [reports[d] for d in self.there.directories], failed)
        return [head, *(f"        {line}" for line in told)]


def compare(
    project: Project, file: Path, revision: str, asked: Asked, steps: Said, interrupts: Interrupts, *, repeat: int, preexisting: Literal["fail", "warn"],
) -> Comparison:
    """Runs the scenario `repeat` times on each side, in turns, so that what the machine does meanwhile hits both; each side's order changes.

    The other revision is a work tree of its own with this checkout's scenarios, traffic and seeds, and has an environment of its own; its runs are
    kept here, as `ID-there`.  Raises UsageError for an unknown revision, and what a run here raises.
    """
    plan, scenario = session.make_plan(project, file, asked)
    assert scenario is not None
    session.require_none_up(plan)
    with work_tree(project, revision) as root:
        here = Side("here", project, file, asked)
        there = _there(project, file, revision, asked, plan, root)
        found = _run_both(here, there, steps, interrupts, repeat, preexisting)
    if here.directories:
        _tell(found, scenario)
    return found


def _there(project: Project, file: Path, revision: str, asked: Asked, plan: Plan, root: Path) -> Side:
    """The other side: the same components, traffic, faults and data, and the same gate."""
    _same_inputs(project, file, root)
    stack = root / project.stack.relative_to(project.root)
    only = () if asked.full else plan.components
    other = replace(project, root=root, stack=stack)
    return Side(revision, other, other.scenarios / file.name, replace(asked, only=only, stubs=tuple(plan.stubbed)))


def _same_inputs(project: Project, file: Path, root: Path) -> None:
    """Scenarios, traffic and seeds of this checkout, in place of those of the other revision."""
    for directory in (project.scenarios, project.seeds):
        target = root / directory.relative_to(project.root)
        if directory.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(directory, target, ignore=shutil.ignore_patterns("__pycache__"))
    if not file.is_relative_to(project.scenarios):
        raise UsageError(f"{file} is not below {project.scenarios}", hint="--against compares scenarios of the project")


def _run_both(here: Side, there: Side, steps: Said, interrupts: Interrupts, repeat: int, preexisting: Literal["fail", "warn"]) -> Comparison:
    error = ""
    for number in range(repeat):
        if error:
            break  # there is nothing to compare with
        for side in (here, there) if number % 2 == 0 else (there, here):
            steps.above(f"{here.file.stem}  {side.name}  run {number + 1} of {repeat}")
            try:
                found = session.ci(side.project, side.file, side.asked, steps, interrupts)
            except CancelledError:
                return Comparison(here, there, preexisting, cancelled=True)
            except EnvctlError as problem:
                if side is here:
                    raise
                error = problem.message
                continue
            _keep(side, found, here.project)
            if found.cancelled or found.left or interrupts.count:
                return Comparison(here, there, preexisting, cancelled=interrupts.count > 0, left=found.left)
    return Comparison(here, there, preexisting, error)


def _keep(side: Side, found: session.Outcome, project: Project) -> None:
    """Notes a run, and brings it here if it was made elsewhere."""
    directory = found.directory
    if side.project.root != project.root:
        directory = project.root / ".envctl" / "runs" / f"{found.directory.name}-there"
        shutil.copytree(found.directory, directory)
    side.directories.append(directory)
    side.verdicts.append(found.verdict)


@contextmanager
def work_tree(project: Project, revision: str) -> Iterator[Path]:
    """The project as it is in another revision, in a directory of its own that is removed afterwards.  Raises UsageError."""
    top = Path(_git(project.root, "rev-parse", "--show-toplevel").strip())
    commit = _git(project.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", said=f"there is no branch or commit {revision!r}").strip()
    with tempfile.TemporaryDirectory(prefix="envctl-against-") as name:
        tree = Path(name) / top.name
        _git(project.root, "worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree / project.root.resolve().relative_to(top.resolve())
        finally:
            _git(project.root, "worktree", "remove", "--force", str(tree))


def _git(root: Path, *arguments: str, said: str = "") -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=False, capture_output=True, text=True)
    if done.returncode:
        raise UsageError(said or f"git {arguments[0]} failed: {done.stderr.strip()}", hint="--against names a branch or a commit of this repository")
    return done.stdout


def _tell(found: Comparison, scenario: Scenario) -> None:
    """The newest run here has the comparison, and its report tells of it."""
    run = found.here.directories[-1]
    publish(run / FILE, as_fields(found, scenario))
    write_all(run)


def as_fields(found: Comparison, scenario: Scenario) -> dict[str, Any]:
    """The comparison as `against.json` has it."""
    here, there = ([build(directory) for directory in side.directories] for side in (found.here, found.there))
    differences, unknown = compared(here, there)
    return {
        "format": FORMAT, "against": found.there.name, "scenario": scenario.name, "rng_seed": scenario.rng_seed, "outcome": found.verdict,
        "error": found.error, "lines": [line.strip() for line in found.lines()],
        "runs": {"here": _names(found.here.directories), "there": _names(found.there.directories)},
        "outcomes": {side.name if side is found.here else "there": worst(v.outcome for v in side.verdicts) for side in (found.here, found.there)},
        "failures": [{"id": f.id, "here": f.here, "of_here": f.of_here, "there": f.there, "of_there": f.of_there, "new": f.new,
                      "worse": f.worse}
                     for f in failures(found.here.verdicts, found.there.verdicts)],
        "measures": [{"name": d.name, "unit": d.unit, "here": d.here, "there": d.there, "shift": d.shift.middle, "low": d.shift.low, "high": d.shift.high,
                      "level": d.shift.level, "certain": d.shift.certain} for d in differences],
        "unknown": unknown,
    }


def _names(directories: Sequence[Path]) -> list[str]:
    return [directory.name for directory in directories]
