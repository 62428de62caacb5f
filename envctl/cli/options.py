"""Options that several verbs share, and the plan they lead to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from envctl.model.plan import Plan
    from envctl.session import Asked

F = TypeVar("F", bound=Callable[..., Any])
READY_S = 120.0


class Duration(click.ParamType[float]):
    """`90s`, `5m`, `2h` → seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; fails with what is allowed."""
        from envctl.spec.units import duration_s

        try:
            return value if isinstance(value, float) else duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


scenario = click.option("--scenario", metavar="NAME", help="Include what this scenario needs (a name, or a file).")
ready_timeout = click.option("--timeout", type=Duration(), default=READY_S, metavar="2m", help="How long a node may take to become ready.")
rng_seed = click.option("--rng-seed", type=int, help="Random numbers from this seed instead of the scenario's.")


def planning(command: F) -> F:
    """The options that decide what is brought up, and for how long; the verb hands them to `asked_for`."""
    for option in reversed((
        click.option("--full", is_flag=True, help="The full topology, whatever changed."),
        click.option("--only", multiple=True, metavar="COMPONENT", help="This component in the place of what changed; may be given again."),
        click.option("--stub", "stubs", multiple=True, metavar="COMPONENT", help="Let a stub answer for this service; may be given again."),
        click.option("--base", default="", metavar="BRANCH", help="Compare with this branch or commit instead of the project's base."),
        click.option("--substrate", default="", metavar="NAME", help="Where nodes run, instead of the project's choice."),
        click.option("--ttl", type=Duration(), default=0.0, metavar="2h", help="How long it lives after its last use, at least 10s, instead of the project's choice; a command at work on it is a use."),
    )):
        command = option(command)
    return command


def asked_for(options: Mapping[str, Any], *, keep: bool = False) -> Asked:
    """The options of `planning` (and `ready_timeout` and `rng_seed`, where the verb has them) as one value."""
    from envctl.session import Asked

    return Asked(full=options["full"], only=options["only"], stubs=options["stubs"], base=options["base"],
                 substrate=options["substrate"], ttl_s=options["ttl"], rng_seed=options.get("rng_seed"),
                 ready_timeout_s=options.get("timeout", READY_S), keep=keep, publish=options.get("publish", ()))


def plan_here(name: str | None, asked: Asked) -> Plan:
    """The plan for this checkout, with what the scenario of that name needs.  Raises SpecError and UsageError."""
    from envctl.session import make_plan
    from envctl.spec import find_root, load_project, scenario_file

    project = load_project(find_root(Path.cwd()))
    plan, _ = make_plan(project, scenario_file(project, name) if name else None, asked)
    return plan


def run_directory(run: Path) -> Path:
    """The directory of a recorded run: itself, or the run of this project with that id."""
    from envctl.spec import find_root

    return run if run.is_dir() else find_root(Path.cwd()) / ".envctl" / "runs" / run
