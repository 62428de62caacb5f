"""`envctl report RUN`: writes the report of a recorded run again."""

from __future__ import annotations

from pathlib import Path

import click

from envctl.cli.options import run_directory


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write the report of the judged RUN (a directory, or the id of a run of this project) again; prints its path."""
    from envctl.report import write_all

    click.echo(write_all(run_directory(run)))
