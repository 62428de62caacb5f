"""`envctl up`: brings the environment up, or up to date."""

from __future__ import annotations

import click

from envctl.cli import options
from envctl.cli.environments import answer, as_text, output_option


@click.command()
@options.scenario
@options.planning
@options.ready_timeout
@click.option("--publish", multiple=True, metavar="COMPONENT",
              help="Also publish this engine's ports on 127.0.0.1, where every user of the machine can use them; may be given again.")
@output_option
def up(*, scenario: str | None, output: str, **given: object) -> None:
    """Bring the environment of this checkout up, or up to date, and wait until every node is ready.

    Ports of services are published on 127.0.0.1.  Only what differs from what is alive is touched.  Interrupted, it says what is there; the next `up` continues.
    """
    from envctl import session
    from envctl.cli.console import Console
    from envctl.model.published import environment_fields

    console, asked = Console(), options.asked_for(given)
    with console.step("plan") as line:
        plan = options.plan_here(scenario, asked)
        line.done(plan.summary)
    with console.step("up") as line:
        made = session.bring_up(plan, asked, None, line)
    fields = {
        **environment_fields(made.environment), "unchanged": made.unchanged, "started": made.started, "ended": made.ended, "stubbed": plan.stubbed,
    }
    answer("up/v1", fields, as_text(made.environment), output)
