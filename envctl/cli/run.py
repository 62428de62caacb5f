"""`envctl run` and `envctl seed`: a scenario, or only its data, on an environment that is up."""

from __future__ import annotations

import time
from pathlib import Path

import click

from envctl.cli.options import asked_for, planning, ready_timeout, rng_seed


@click.command()
@click.argument("scenario")
@planning
@ready_timeout
@rng_seed
def run(*, scenario: str, **options: object) -> int:
    """Run SCENARIO (a name or a file) on this checkout's environment, which is brought up or up to date first and stays up.

    Exits 0 for pass, 5 for fail, 7 for inconclusive.
    """
    from envctl import session
    from envctl.cli.ci import explain
    from envctl.cli.console import Console
    from envctl.spec import find_root, load_project, scenario_file

    project = load_project(find_root(Path.cwd()))
    interrupts = session.Interrupts()
    interrupts.install()
    begun = time.monotonic()
    asked = asked_for(options, keep=True)
    outcome = session.ci(project, scenario_file(project, scenario), asked, Console(), interrupts)
    explain(outcome, time.monotonic() - begun)
    return int(outcome.exit_code)


@click.command()
@click.argument("name")
@planning
@ready_timeout
def seed(*, name: str, **options: object) -> None:
    """Bring this checkout's environment up (or up to date) with the seed NAME in it."""
    from envctl import session
    from envctl.cli.console import Console
    from envctl.spec import find_root, load_project

    project = load_project(find_root(Path.cwd()))
    console = Console()
    asked = asked_for(options, keep=True)
    plan, _ = session.make_plan(project, None, asked)
    session.check_seed(project, plan, name)
    with console.step("up") as line:
        environment = session.bring_up(plan, asked, None, line).environment
    with console.step("seed") as line:
        session.seed(project, plan, name, environment, None, line)
