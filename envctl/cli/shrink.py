"""`envctl shrink RUN|SCENARIO`: the smallest scenario that still fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from envctl.cli.options import Duration, asked_for, planning, ready_timeout, rng_seed, run_directory

if TYPE_CHECKING:
    from envctl.cli.console import Console
    from envctl.errors import Exit
    from envctl.model.project import Project
    from envctl.session import Asked, Interrupts
    from envctl.shrinking import Shrunk


@click.command()
@click.argument("what")
@click.option("--finding", default="", metavar="ID", help="What must fail, such as no-loss-2.  Default: what failed first.")
@click.option("--tries", "runs", type=click.IntRange(min=1), default=40, show_default=True, help="How many runs may be made.")
@click.option("--for", "seconds", type=Duration(), default=1800.0, metavar="30m", help="How long smaller ones may be looked for.")
@click.option("--attempts", type=click.IntRange(min=1), default=1, show_default=True, help="How often each is tried, for a failure that does not always come.")
@click.option("--at-least", type=click.IntRange(min=1), default=1, show_default=True, help="How many attempts must fail, for it to count as failing.")
@click.option("--write", "output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Where the scenario goes.  Default: scenarios/NAME-shrunk.yaml.")
@planning
@ready_timeout
@rng_seed
def shrink(*, what: str, finding: str, runs: int, seconds: float, attempts: int, at_least: int, output: Path | None, **options: object) -> int:
    """Shrink what failed in a RUN (a directory, or the id of a run of this project), or fails in a SCENARIO, to the smallest that still does.

    Faults and kinds of operations are left out, times, rates and shares lowered; each try has a fresh environment.  What is left is a
    scenario file, ready to commit; the run's report names it.  Exits 0 when there is one, 7 when the failure did not come again, 8 when it was cancelled before that; for a
    scenario that does not fail, as `envctl ci`.  Ctrl-C ends the search: the smallest that was found until then is written.
    """
    from envctl.cli.console import Console
    from envctl.errors import UsageError
    from envctl.session import Interrupts
    from envctl.shrinking import Budget
    from envctl.spec import find_root, load_project

    if at_least > attempts:
        raise UsageError(f"--at-least {at_least} of --attempts {attempts} can't be")
    if output is not None and output.suffix != ".yaml":
        raise UsageError(f"{output} is no name for a scenario", hint="let it end with .yaml")
    project, asked, console, interrupts = load_project(find_root(Path.cwd())), asked_for(options), Console(), Interrupts()
    interrupts.install()
    run = run_directory(Path(what))
    if not run.is_dir():
        found = _failing(project, what, asked, console, interrupts)
        if not isinstance(found, Path):
            return int(found)
        run = found
    from envctl.shrinking import shrink as smallest

    result = smallest(project, run, _as_it_ran(run, asked), console, interrupts, budget=Budget(runs, seconds, at_least, attempts), finding=finding, output=output)
    return say(result, interrupts)


def say(result: Shrunk | None, interrupts: Interrupts) -> int:
    """Prints the answer; returns the exit code."""
    from envctl.errors import Exit
    from envctl.report.words import inert

    if result is None:
        click.echo("INCONCLUSIVE  the failure did not come again, so there is nothing to shrink; try it more often: --attempts 5")
        return int(Exit.CANCELLED if interrupts.count else Exit.INCONCLUSIVE)
    click.echo("\n".join(map(inert, result.lines())))
    return int(Exit.PASS)


def _failing(project: Project, name: str, asked: Asked, console: Console, interrupts: Interrupts) -> Path | Exit:
    """The directory of a run of that scenario that failed, or the exit code of one that did not."""
    import time

    from envctl import session
    from envctl.cli.ci import explain
    from envctl.spec import scenario_file

    begun = time.monotonic()
    outcome = session.ci(project, scenario_file(project, name), asked, console, interrupts)
    explain(outcome, time.monotonic() - begun)
    return outcome.directory if outcome.verdict.outcome == "fail" and not outcome.cancelled and not outcome.left else outcome.exit_code


def _as_it_ran(run: Path, asked: Asked) -> Asked:
    """With the whole topology and the random choices of that run, where nothing else is asked for."""
    from envctl.record import Record

    record = Record.load(run)
    whole = not (asked.only or asked.stubs) and {each.component for each in record.manifest.components} == set(record.topology.components)
    return replace(asked, full=asked.full or whole, rng_seed=None)
