"""`envctl gc`: removes environments that have expired or died."""

from __future__ import annotations

from pathlib import Path

import click

from envctl.cli.environments import answer, output_option, table


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--max", "cap", type=click.IntRange(min=0), default=20, show_default=True, help="Refuse to remove more than this.")
@output_option
def gc(*, dry_run: bool, cap: int, output: str) -> None:
    """Remove environments whose lease has run out or whose cell died, and the Pulumi states they left in this project.

    When something can't be listed, nothing is removed.
    """
    from envctl.cli.console import Console
    from envctl.lease import collect
    from envctl.spec import find_root

    with Console().step("gc") as line:
        found, removed = collect(find_root(Path.cwd()), cap=cap, dry_run=dry_run, progress=line.update)
        line.done(f"{len(found)} found" + ("" if dry_run else f", {len(removed)} removed"))
    fields = {
        "dry_run": dry_run, "found": [{"id": each.env_id, "why": each.why} for each in found],
        "removed": [{"id": each.env_id, "notes": each.notes} for each in removed],
    }
    text = "\n".join(table([(each.env_id, each.why) for each in found])) if found else "nothing to remove"
    answer("gc/v1", fields, text, output)
