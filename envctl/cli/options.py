"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from envctl.session import Asked

F = TypeVar("F", bound=Callable[..., Any])


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


def planning(command: F) -> F:
    """The options that decide what is brought up, and for how long."""
    for option in reversed((
        click.option("--full", is_flag=True, help="The full topology, whatever changed."),
        click.option("--only", multiple=True, metavar="COMPONENT", help="This component in the place of what changed; may be given again."),
        click.option("--stub", "stubs", multiple=True, metavar="COMPONENT", help="Let a stub answer for this service; may be given again."),
        click.option("--base", default="", metavar="BRANCH", help="Compare with this branch or commit."),
        click.option("--substrate", default="", help="Where nodes run.  [default: the project's]"),
        click.option("--ttl", type=Duration(), default=0.0, help="How long the environment lives without being used.  [default: the project's]"),
        click.option("--timeout", type=Duration(), default=120.0, help="How long a node may take to become ready."),
        click.option("--rng-seed", type=int, help="Random numbers from this seed instead of the scenario's."),
    )):
        command = option(command)
    return command


def asked_for(options: Mapping[str, Any], *, keep: bool = False) -> Asked:
    """The options of `planning` as one value."""
    from envctl.session import Asked

    return Asked(full=options["full"], only=options["only"], stubs=options["stubs"], base=options["base"],
                 substrate=options["substrate"], ttl_s=options["ttl"], rng_seed=options["rng_seed"],
                 ready_timeout_s=options["timeout"], keep=keep)
