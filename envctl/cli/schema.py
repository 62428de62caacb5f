"""`envctl schema`: the published JSON Schemas of the files people write."""

from __future__ import annotations

import json
from pathlib import Path

import click

from envctl.spec.structure import FORMATS


@click.command()
@click.argument("format", type=click.Choice(FORMATS), required=False)
@click.option("--export", type=click.Path(file_okay=False, path_type=Path), help="Write all schemas into this directory, for editors.")
def schema(format: str | None, export: Path | None) -> None:
    """Print the JSON Schema (draft 2020-12) of a file format, or write all of them into a directory.

    Without a format, lists the formats.
    """
    from envctl.spec.structure import schema as published

    if export is not None:
        export.mkdir(parents=True, exist_ok=True)
        for name in FORMATS:
            file = export / f"{name}.v1.json"
            file.write_text(_text(published(name)), encoding="utf-8")
            click.echo(file)
    elif format is None:
        for name in FORMATS:
            click.echo(f"{name}/v1  {published(name)['description']}")
    else:
        click.echo(_text(published(format)), nl=False)


def _text(schema: object) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
