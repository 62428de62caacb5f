"""`envctl status`: the nodes of an environment."""

from __future__ import annotations

import click

from envctl.cli.environments import answer, as_text, environment_argument, meant, output_option


@click.command()
@environment_argument
@output_option
def status(*, environment: str | None, output: str) -> None:
    """Show the nodes, addresses and expiry of ENV (this checkout's by default).

    Looking does not renew the lease.
    """
    from envctl.lease import locate
    from envctl.model.published import environment_fields

    reach, found = locate(meant(environment))
    notes = reach.notes()
    answer("status/v1", {**environment_fields(found), "notes": notes}, as_text(found, notes), output)
