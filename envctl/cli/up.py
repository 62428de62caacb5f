"""`envctl up`: brings the environment up, or up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from envctl.cli.environments import answer, as_json, as_text, output_option


class Duration(click.ParamType[float]):
    """`90s`, `5m`, `2h` in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds; a wrong text is an error of the command line."""
        from envctl.spec.units import duration_s

        try:
            seconds = float(value) if isinstance(value, int | float) else duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return seconds


@click.command()
@click.option("--scenario", metavar="NAME", help="Include what this scenario needs (a name, or a file).")
@click.option("--full", is_flag=True, help="The full topology.")
@click.option("--only", multiple=True, metavar="COMPONENT", help="This component and what it needs; may be given again.")
@click.option("--stub", "stubs", multiple=True, metavar="COMPONENT", help="Let a stub answer for this service; may be given again.")
@click.option("--base", default="", metavar="BRANCH", help="Compare with this branch or commit instead of the project's base.")
@click.option("--substrate", default="", metavar="NAME", help="Where nodes run, instead of the project's choice.")
@click.option("--ttl", type=Duration(), default=0.0, metavar="2h", help="How long it lives after its last use.")
@click.option("--timeout", type=Duration(), default=120.0, metavar="2m", help="How long a node may take to become ready.")
@output_option
def up(
    *, scenario: str | None, full: bool, only: tuple[str, ...], stubs: tuple[str, ...], base: str, substrate: str, ttl: float,
    timeout: float, output: str,
) -> None:
    """Bring the environment of this checkout up, or up to date, and wait until every node is ready.

    Only what differs from what is alive is touched.  Interrupted, it says what is there; the next `up` continues.
    """
    from envctl.cli.console import Console
    from envctl.engines.sources import source_digests
    from envctl.planner import plan_project
    from envctl.spec import find_root, load_project, load_scenario, load_topology, scenario_file
    from envctl.stack import bring_up

    console = Console()
    with console.step("plan") as line:
        project = load_project(find_root(Path.cwd()))
        topology = load_topology(project.topology_file)
        wanted = load_scenario(scenario_file(project, scenario), topology, seeds=project.seeds) if scenario else None
        plan = plan_project(
            project, topology, wanted, asked=only, stubs=stubs, full=full, base=base, substrate=substrate, ttl_s=ttl,
            digests=source_digests(topology),
        )
        line.done(f"{len(plan.selected)} of {len(topology.components)} components")
    with console.step("up") as line:
        made = bring_up(plan, ready_timeout_s=timeout, progress=line.update)
        line.done(_summary(len(made.environment.nodes), made.started, made.ended, unchanged=made.unchanged))
    fields = {
        **as_json(made.environment), "unchanged": made.unchanged, "started": made.started, "ended": made.ended, "stubbed": plan.stubbed,
    }
    answer("up/v1", fields, as_text(made.environment), output)


def _summary(count: int, started: tuple[str, ...], ended: tuple[str, ...], *, unchanged: bool) -> str:
    if unchanged:
        return f"{count} nodes ready, nothing to do"
    parts = [f"{len(names)} {what}" for names, what in ((started, "started"), (ended, "removed")) if names]
    return f"{count} nodes ready" + (f" ({', '.join(parts)})" if parts and len(started) < count else "")
