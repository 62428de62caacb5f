"""`envctl ci`: everything in one go."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from envctl.cli.options import planning, ready_timeout, rng_seed
from envctl.errors import EnvctlError, Exit, UsageError, of_system

if TYPE_CHECKING:
    from envctl.model.project import Project
    from envctl.model.verdict import Outcome as Verdict
    from envctl.session import Asked, Interrupts, Outcome

WORST = (
    Exit.FAIL, Exit.LEAKED, Exit.INTERNAL, Exit.NOT_MADE, Exit.CREDENTIALS, Exit.USAGE, Exit.TIMED_OUT, Exit.NO_ENVIRONMENT,
    Exit.CANCELLED, Exit.INCONCLUSIVE, Exit.PASS,
)


@click.command()
@click.option("--scenario", "names", multiple=True, metavar="NAME", help="Run this scenario; may be given again. Default: those of the suite.")
@click.option("--suite", default="pr", show_default=True, help="Run the scenarios of this suite.")
@click.option("--inconclusive", type=click.Choice(["fail", "retry", "warn"]), help="What an inconclusive run means.")
@click.option("--shrink", is_flag=True, help="Shrink what fails to the smallest scenario that still does (envctl shrink); takes up to half an hour each.")
@click.option("--against", default="", metavar="REVISION", help="Run each scenario on this branch or commit too, and say what is new and what differs by more than noise.")
@click.option("--repeat", type=click.IntRange(min=4), default=4, show_default=True, help="With --against: how many runs on each side.")
@click.option("--preexisting", type=click.Choice(["warn", "fail"]), default="warn", show_default=True, help="With --against: what a failure means that is there on both sides.")
@click.option("--keep", is_flag=True, help="Leave the environment up (until its lease is over).")
@planning
@ready_timeout
@rng_seed
def ci(
    *, names: tuple[str, ...], suite: str, inconclusive: str | None, shrink: bool, against: str, repeat: int, preexisting: Literal["warn", "fail"], keep: bool,
    **options: object,
) -> int:
    """Plan, bring up, seed, run, judge, report and tear down, for each scenario.

    The environment is removed whatever happens. Exits 0 for pass, 5 for fail, 7 for inconclusive, 8 when it was cancelled, 10
    when it passed but left something behind; the worst of all counts.  With --against, a failure that is there on both sides is not blamed on this one.  Ctrl-C heals, judges what there is and removes the environment; a second one only removes it.
    """
    from envctl.cli.options import asked_for
    from envctl.spec import find_root, load_project

    if keep and (shrink or against):
        raise UsageError("--shrink and --against need a fresh environment for each run, --keep leaves one up", hint="leave one of them out")
    if shrink and against:
        raise UsageError("--shrink and --against are two questions", hint="ask one of them")
    project = load_project(find_root(Path.cwd()))
    asked = asked_for(options, keep=keep)
    policy = inconclusive or (project.suites[suite].inconclusive if suite in project.suites else "retry")
    if against:
        return int(_compared(project, _files(project, names, suite), asked, policy, against, repeat, preexisting))
    codes = _all(project, _files(project, names, suite), asked, policy, shrink=shrink)
    return int(min(codes, key=WORST.index))


def _all(project: Project, files: list[Path], asked: Asked, policy: str, *, shrink: bool = False) -> list[Exit]:
    """One scenario after the other, each published when it has ended; none after one that was cancelled."""
    from envctl.session import Interrupts

    interrupts = Interrupts()
    interrupts.install()
    codes: list[Exit] = []
    verdicts: list[Verdict] = []
    for file in files:
        try:
            outcome = _one(project, file, asked, policy, interrupts, fresh=bool(codes))
        except BrokenPipeError:
            raise
        except (EnvctlError, OSError) as error:  # is this scenario's result: the others have theirs
            codes.append(_failed(file, error))
        else:
            verdicts.append(outcome.verdict.outcome)
            codes.append(_code(outcome, policy))
            if shrink and outcome.exit_code is Exit.FAIL and not (outcome.left or interrupts.count):
                codes += _shrunk(project, outcome, asked, interrupts)
            _publish(outcome, verdicts)
        if interrupts.count:
            break
    return codes


def _compared(project: Project, files: list[Path], asked: Asked, policy: str, revision: str, repeat: int, preexisting: Literal["warn", "fail"]) -> Exit:
    """Each scenario against the other revision, and what is said of the change."""
    from envctl.against import compare
    from envctl.cli.console import Console
    from envctl.cli.main import explain as explain_error
    from envctl.report.markdown import code
    from envctl.report.words import inert
    from envctl.session import Interrupts

    interrupts = Interrupts()
    interrupts.install()
    codes: list[Exit] = []
    verdicts: list[Verdict] = []
    for file in dict.fromkeys(files):
        found = compare(project, file, revision, asked, Console(), interrupts, repeat=repeat, preexisting=preexisting)
        text = "\n".join(map(inert, found.lines()))
        click.echo(text)
        if found.left:
            explain_error(found.left)
        _summarise(f"**{file.stem}**\n\n{code(text)}")
        verdicts.append(found.verdict)
        _output(verdicts, found.here.directories[-1] if found.here.directories else None)
        codes.append(Exit.PASS if policy == "warn" and found.exit_code is Exit.INCONCLUSIVE else found.exit_code)
        if interrupts.count:
            break
    return min(codes, key=WORST.index)


def _shrunk(project: Project, outcome: Outcome, asked: Asked, interrupts: Interrupts) -> list[Exit]:
    """Shrinks what failed, and says what came of it; what went wrong then is said, too, and hides no verdict."""
    from envctl.cli.console import Console
    from envctl.cli.main import explain as explain_error
    from envctl.cli.shrink import say
    from envctl.shrinking import shrink

    try:
        say(shrink(project, outcome.directory, replace(asked, rng_seed=None), Console(), interrupts), interrupts)
    except EnvctlError as error:
        explain_error(error)
        return [error.exit_code]
    return []


def _code(outcome: Outcome, policy: str) -> Exit:
    if outcome.exit_code is not Exit.INCONCLUSIVE or policy != "warn":
        return outcome.exit_code
    return outcome.left.exit_code if outcome.left else Exit.PASS


def _failed(file: Path, error: EnvctlError | OSError) -> Exit:
    from envctl.cli.main import explain as explain_error
    from envctl.report.markdown import code

    known = of_system(error) if isinstance(error, OSError) else error
    explain_error(known, cause=error)
    _summarise(f"**{file.stem}: error**\n\n{code(known.message)}")
    return known.exit_code


def _files(project: Project, names: tuple[str, ...], suite: str) -> list[Path]:
    """The scenario files that are meant, each as often as the suite repeats it.  Raises UsageError when there are none."""
    from envctl.spec import load_scenario, load_topology, scenario_file, scenario_files

    if names:
        return [scenario_file(project, name) for name in names]
    known = project.suites.get(suite)
    if known is not None and known.scenarios:
        return [scenario_file(project, name) for name in known.scenarios] * known.repeat
    topology = load_topology(project.topology_file)
    every = known is not None and known.every
    found = [f for f in scenario_files(project) if every or suite in load_scenario(f, topology, seeds=project.seeds).suites]
    if not found:
        raise UsageError(f"no scenario belongs to the suite {suite!r}", hint="name one with --scenario, or write `suites: [pr]` in it")
    return found * (known.repeat if known else 1)


def _one(project: Project, file: Path, asked: Asked, policy: str, interrupts: Interrupts, *, fresh: bool) -> Outcome:
    """One scenario; an inconclusive run is tried once more on a fresh environment where the policy says so and it may help."""
    from envctl import session
    from envctl.cli.console import Console

    console = Console()
    for attempt in (1, 2):
        begun = time.monotonic()
        console.above(_headline(project, file, attempt))
        outcome = session.ci(project, file, asked, console, interrupts, fresh=fresh or attempt > 1)
        explain(outcome, time.monotonic() - begun)
        if outcome.verdict.outcome != "inconclusive" or policy != "retry" or interrupts.count:
            break
        if fixed := outcome.verdict.fixed:
            click.echo(f"        not tried again: {', '.join(fixed)} would be the same in every run of this scenario")
            break
    return outcome


def _headline(project: Project, file: Path, attempt: int) -> str:
    from envctl.planner.changes import repository

    found = repository(project.root)
    where = f"{found.ref} {found.commit[:7]}".strip()
    again = f"  (try {attempt}: the last one was inconclusive)" if attempt > 1 else ""
    return f"{project.stack.name}  {where}  {file.stem}{again}"


def explain(outcome: Outcome, seconds: float) -> None:
    """The answer, on standard output; what the environment has left behind, on standard error."""
    from envctl import gate, session
    from envctl.cli.main import explain as explain_error
    from envctl.report.words import inert

    click.echo("\n".join(map(inert, gate.explain(outcome.verdict))))
    click.echo(f"report  {session.shown(outcome.directory / 'report.html')}    {seconds:.0f} s")
    if outcome.left:
        explain_error(outcome.left)


def _publish(outcome: Outcome, verdicts: list[Verdict]) -> None:
    """Where a CI job wants it: the summary of the job and the outputs of the step (the worst verdict so far, the newest run)."""
    from envctl.report.markdown import code

    left = f"\n**left behind**\n\n{code(outcome.left.message)}" if outcome.left else ""
    _summarise((outcome.directory / "report.md").read_text(encoding="utf-8") + left)
    _output(verdicts, outcome.directory)
    sys.stdout.flush()


def _output(verdicts: list[Verdict], directory: Path | None) -> None:
    from envctl.model.verdict import worst

    run = f"run-id={directory.name}\nreport-path={directory}\n" if directory else ""
    if outputs := os.environ.get("GITHUB_OUTPUT"):
        with Path(outputs).open("a", encoding="utf-8") as file:
            file.write(f"verdict={worst(verdicts)}\n{run}")


def _summarise(text: str) -> None:
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(text)
