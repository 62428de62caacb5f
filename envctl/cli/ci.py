"""`envctl ci`: everything in one go."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envctl.cli.options import planning, ready_timeout, rng_seed
from envctl.errors import Exit, UsageError

if TYPE_CHECKING:
    from envctl.model.project import Project
    from envctl.session import Asked, Interrupts, Outcome

WORST = (Exit.FAIL, Exit.CANCELLED, Exit.INCONCLUSIVE, Exit.PASS)


@click.command()
@click.option("--scenario", "names", multiple=True, metavar="NAME", help="Run this scenario; may be given again. Default: those of the suite.")
@click.option("--suite", default="pr", show_default=True, help="Run the scenarios of this suite.")
@click.option("--inconclusive", type=click.Choice(["fail", "retry", "warn"]), help="What an inconclusive run means.")
@click.option("--keep", is_flag=True, help="Leave the environment up (until its lease is over).")
@planning
@ready_timeout
@rng_seed
def ci(*, names: tuple[str, ...], suite: str, inconclusive: str | None, keep: bool, **options: object) -> int:
    """Plan, bring up, seed, run, judge, report and tear down, for each scenario.

    The environment is removed whatever happens. Exits 0 for pass, 5 for fail, 7 for inconclusive, 8 when it was cancelled; the
    worst of all counts.  Ctrl-C heals, judges what there is and removes the environment; a second one only removes it.
    """
    from envctl.cli.options import asked_for
    from envctl.spec import find_root, load_project

    project = load_project(find_root(Path.cwd()))
    asked = asked_for(options, keep=keep)
    policy = inconclusive or (project.suites[suite].inconclusive if suite in project.suites else "retry")
    outcomes = _all(project, _files(project, names, suite), asked, policy)
    for outcome in outcomes:
        _publish(outcome)
    worst = min((outcome.exit_code for outcome in outcomes), key=WORST.index)
    return int(Exit.PASS if worst is Exit.INCONCLUSIVE and policy == "warn" else worst)


def _all(project: Project, files: list[Path], asked: Asked, policy: str) -> list[Outcome]:
    """One scenario after the other; none after one that was cancelled."""
    from envctl.session import Interrupts

    interrupts = Interrupts()
    interrupts.install()
    outcomes: list[Outcome] = []
    for file in files:
        outcomes.append(_one(project, file, asked, policy, interrupts))
        if interrupts.count:
            break
    return outcomes


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


def _one(project: Project, file: Path, asked: Asked, policy: str, interrupts: Interrupts) -> Outcome:
    """One scenario; an inconclusive run is tried once more on a fresh environment where the policy says so."""
    from envctl import session
    from envctl.cli.console import Console

    console = Console()
    for attempt in (1, 2):
        begun = time.monotonic()
        console.above(_headline(project, file, attempt))
        outcome = session.ci(project, file, asked, console, interrupts, attempt)
        explain(outcome, time.monotonic() - begun)
        if outcome.verdict.outcome != "inconclusive" or policy != "retry" or interrupts.count:
            break
    return outcome


def _headline(project: Project, file: Path, attempt: int) -> str:
    from envctl.session import git

    where = f"{git(project.root, 'rev-parse', '--abbrev-ref', 'HEAD')} {git(project.root, 'rev-parse', '--short', 'HEAD')}".strip()
    again = f"  (try {attempt}: the last one was inconclusive)" if attempt > 1 else ""
    return f"{project.stack.name}  {where or 'no commit yet'}  {file.stem}{again}"


def explain(outcome: Outcome, seconds: float) -> None:
    """The answer, on standard output."""
    from envctl import gate

    click.echo("\n".join(gate.explain(outcome.verdict)))
    click.echo(f"report  {outcome.directory / 'report.html'}    {seconds:.0f} s")


def _publish(outcome: Outcome) -> None:
    """Where a CI job wants it: the summary of the job and the outputs of the step."""
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write((outcome.directory / "report.md").read_text(encoding="utf-8"))
    if outputs := os.environ.get("GITHUB_OUTPUT"):
        with Path(outputs).open("a", encoding="utf-8") as file:
            file.write(f"verdict={outcome.verdict.outcome}\nrun-id={outcome.directory.name}\nreport-path={outcome.directory}\n")
    sys.stdout.flush()
