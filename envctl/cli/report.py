"""`envctl report RUN`: writes the report of a recorded run again."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write the report of the judged RUN (a directory, or the id of a run of this project) again; prints its path."""
    from envctl.report import write_all
    from envctl.spec import find_root

    directory = run if run.is_dir() else find_root(Path.cwd()) / ".envctl" / "runs" / run
    click.echo(write_all(directory))
