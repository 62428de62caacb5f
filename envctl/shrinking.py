"""A failing scenario is run again and again, smaller each time, on a fresh environment each time: what `envctl shrink` does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from envctl import session
from envctl.errors import CancelledError, EnvctlError, LeakError, SpecError, UsageError
from envctl.model.project import Project
from envctl.model.scenario import CheckSpec, Scenario
from envctl.model.verdict import Finding, Verdict
from envctl.record import Record
from envctl.record.shrunk import SCENARIO, Smallest, save_shrunk
from envctl.record.verdict import load_verdict
from envctl.runner.follow import INDENT, Shown
from envctl.session import Asked, Interrupts, Steps
from envctl.shrink import Origin, Schedule, open_origin, reduced, written

SUFFIX = "-shrunk"
NAME_MOST = 50
CONFIRMED = 3  # tries of the result in all


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be tried: runs, and seconds; and when a schedule counts as failing: `least` failures in `of` tries."""

    runs: int = 40
    seconds: float = 1800.0
    least: int = 1
    of: int = 1


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest schedule found, and how it did."""

    file: Path
    schedule: Schedule
    whole: Schedule
    finding: str  # id of the one that fails
    failed: int
    tries: int
    runs: int  # in all, of all schedules
    seconds: float
    ended: str  # why nothing smaller was looked for; empty when there is nothing smaller

    def lines(self) -> list[str]:
        """The answer for a terminal."""
        done = f"{self.finding} failed in {self.failed} of {self.tries} tries of it; {self.runs} runs in {self.seconds / 60:.0f} min"
        return [
            f"SHRUNK  {session.shown(self.file)}", f"        from  {self.whole}", f"        to    {self.schedule}", f"        {done}",
            *([f"        {self.ended}; there may be a smaller one"] if self.ended else []),
            f"        reproduce: envctl run {session.shown(self.file)}",
        ]


class SpentError(Exception):
    """The budget is spent."""


class _Inside:
    """Steps of a run that are told in the one line of its try."""

    def __init__(self, line: Shown) -> None:
        self._line = line

    @contextmanager
    def step(self, name: str) -> Iterator[Shown]:
        yield _Told(self._line, name)


class _Told:
    def __init__(self, line: Shown, name: str) -> None:
        self._line, self._name = line, name

    def update(self, text: str) -> None:
        self._line.update(f"{self._name}  {text}")

    def note(self, text: str) -> None:
        self.update(text)

    def done(self, text: str, *, ok: bool | None = True) -> None:  # noqa: ARG002 - as every line
        self.update(text)


@dataclass(slots=True)
class Tries:
    """Runs schedules, and remembers how each did."""

    project: Project
    asked: Asked
    steps: Steps
    interrupts: Interrupts
    origin: Origin
    finding: str  # its id in the whole
    check: CheckSpec | None  # that it is of
    budget: Budget
    begun: float = field(default_factory=time.monotonic)
    runs: int = 0
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)  # schedule → failures, tries

    def fails(self, schedule: Schedule) -> bool:
        """Whether it fails as the origin did, often enough.  Raises SpentError, CancelledError."""
        if self._scenario(schedule) is None:
            return False
        while True:
            failed, tries = self.counts.get(schedule.key, (0, 0))
            if failed >= self.budget.least or failed + self.budget.of - tries < self.budget.least:
                return failed >= self.budget.least
            if self.runs >= self.budget.runs or time.monotonic() - self.begun > self.budget.seconds:
                raise SpentError
            self.run(schedule)

    def run(self, schedule: Schedule) -> None:
        """One try of it.  Raises CancelledError, and LeakError when an environment could not be removed: the next one would not be fresh."""
        self.runs += 1
        failed, tries = self.counts.get(schedule.key, (0, 0))
        with self.steps.step(f"try {self.runs}") as line:
            found = self._found(schedule, line)
            self.counts[schedule.key] = failed + (found is True), tries + 1
            line.done(f"{schedule}: {'fails' if found else 'does not fail'}", ok=None if found else True)

    def _found(self, schedule: Schedule, line: Shown) -> bool:
        try:
            outcome = session.ci(self.project, self._file(schedule), self.asked, _Inside(line), self.interrupts)
        except (CancelledError, LeakError):
            raise
        except EnvctlError as error:
            line.note(f"{INDENT}{error.message}")
            return False
        if outcome.cancelled:
            raise CancelledError("cancelled")
        if outcome.left is not None:
            raise outcome.left
        return self.named(schedule) in failures(outcome.verdict)

    def named(self, schedule: Schedule) -> str:
        """The finding's id in a smaller scenario, of whose checks some may be gone and others so have other numbers."""
        scenario = self._scenario(schedule)
        if self.check is None or scenario is None:
            return self.finding
        return next((each.id for each in scenario.checks if (each.check, each.params) == (self.check.check, self.check.params)), "")

    def _file(self, schedule: Schedule) -> Path:
        directory = self.project.root / ".envctl" / "shrink"
        directory.mkdir(parents=True, exist_ok=True)
        return written(self.origin, schedule, directory, name_of(self.origin))

    def _scenario(self, schedule: Schedule) -> Scenario | None:
        """None where it is none at all: a line may refer to one that is left out."""
        from envctl.spec import load_scenario, load_topology

        try:
            return load_scenario(self._file(schedule), load_topology(self.project.topology_file), seeds=self.project.seeds)
        except SpecError:
            return None


def name_of(origin: Origin) -> str:
    """What the scenario that is left is called."""
    return origin.name[: NAME_MOST - len(SUFFIX)].rstrip("-") + SUFFIX


def failures(verdict: Verdict) -> dict[str, Finding]:
    """The findings that fail, the reason first."""
    return {each.id: each for each in verdict.findings if each.outcome == "fail" and not each.waived}


def shrink(
    project: Project, run: Path, asked: Asked, steps: Steps, interrupts: Interrupts, *, budget: Budget = Budget(), finding: str = "", output: Path | None = None,
) -> Shrunk | None:
    """The smallest scenario found that fails as that run did, in a file of its own; None when not even the whole one failed again.

    `finding` is what must fail (the run's first failure where it is empty), `output` the file (`scenarios/NAME-shrunk.yaml` where it is None).
    The run's report tells of it.  Raises UsageError when the run did not fail so, SpecError, LeakError.
    """
    record = Record.load(run)
    failed = failures(load_verdict(run))
    if not failed or (finding and finding not in failed):
        raise UsageError(f"{run.name} has no failure {finding}".rstrip(), hint=f"it has {', '.join(failed)}" if failed else "only what failed can be shrunk")
    session.require_none_up(session.make_plan(project, record.scenario.file, replace(asked, rng_seed=None))[0])
    origin = open_origin(record.scenario)
    wanted = finding or next(iter(failed))
    check = next((each for each in record.scenario.checks if each.id == wanted), None)
    tries = Tries(project, asked, steps, interrupts, origin, wanted, check, budget)
    best, ended = _search(tries)
    if best is None:
        return None
    target = output or project.scenarios / f"{name_of(origin)}.yaml"
    file = written(origin, best, target.parent, target.stem, _header(tries, best, run.name))
    failures_of, of = tries.counts[best.key]
    found = Shrunk(file, best, origin.whole, tries.named(best), failures_of, of, tries.runs, time.monotonic() - tries.begun, ended)
    _tell(run, project, found)
    return found


def _search(tries: Tries) -> tuple[Schedule | None, str]:
    """The smallest that fails, and why the search ended early."""
    best: Schedule | None = None
    try:
        if not tries.fails(tries.origin.whole):
            return None, ""
        best = tries.origin.whole
        for smaller in reduced(best, tries.fails):
            best = smaller
        ended = ""
    except SpentError:
        ended = f"the budget ({tries.budget.runs} runs, {tries.budget.seconds / 60:.0f} min) was spent"
    except CancelledError:
        if best is None:
            raise
        return best, "it was cancelled"
    if best is not None:
        _confirm(tries, best)
    return best, ended


def _confirm(tries: Tries, best: Schedule) -> None:
    """A few more tries of the result, so that it is known how often it fails."""
    try:
        while tries.counts[best.key][1] < CONFIRMED:
            tries.run(best)
    except CancelledError:
        return


def _header(tries: Tries, best: Schedule, run: str) -> Sequence[str]:
    failed, of = tries.counts[best.key]
    return (
        f"Shrunk by envctl from the run {run} (scenario {tries.origin.name}, rng seed {tries.origin.rng_seed}).",
        f"{tries.named(best)} failed in {failed} of {of} tries of this one.",
        f"Before: {tries.origin.whole}.",
    )


def _tell(run: Path, project: Project, found: Shrunk) -> None:
    """The run it came from has a copy, and its report says how to reproduce it."""
    from envctl.report import write_all

    file = found.file.resolve()
    root = project.root.resolve()
    command = f"envctl run {file.relative_to(root) if file.is_relative_to(root) else file}"
    shutil.copy(file, run / SCENARIO)
    save_shrunk(run, Smallest(command, str(found.schedule), found.finding, found.failed, found.tries))
    write_all(run)
