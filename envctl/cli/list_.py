"""`envctl list`: all environments on this machine."""

from __future__ import annotations

import time

import click

from envctl.cli.environments import answer, output_option, span, table

COLOURS = {"alive": "green", "expired": "yellow", "dead": "red", "unknown": "yellow"}


@click.command("list")
@output_option
def list_(*, output: str) -> None:
    """Show all environments on this machine, found by what is alive, whatever became of their state."""
    from envctl.lease import Seen, survey
    from envctl.model.published import environment_fields

    def fields(seen: Seen) -> dict[str, object]:
        known = environment_fields(seen.environment) if seen.environment else {"id": seen.id, "substrate": seen.substrate}
        return {**known, "health": seen.health}

    def row(seen: Seen) -> tuple[str, ...]:
        if seen.environment is None:
            return (seen.id, "-", seen.substrate, seen.health, "-", "-")
        nodes, expiry = seen.environment.nodes, span(seen.environment.expires_at - time.time())
        return (seen.id, seen.environment.stack, seen.substrate, seen.health, str(len(nodes)), expiry)

    found = survey(silent=lambda what: click.echo(f"note: {what}", err=True))
    for seen in found:
        if seen.why:
            click.echo(f"note: {seen.id}: {seen.why}", err=True)
    rows = [("ENVIRONMENT", "STACK", "SUBSTRATE", "HEALTH", "NODES", "EXPIRES IN"), *(row(seen) for seen in found)]
    text = "\n".join(table(rows, dict.fromkeys(range(1, len(rows)), COLOURS))) if found else "no environments"
    answer("list/v1", {"environments": [fields(seen) for seen in found]}, text, output)
