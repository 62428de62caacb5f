"""What the verbs of an environment share: which environment is meant, and how one is shown."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from envctl.model.environment import Environment, Node

Verb = TypeVar("Verb", bound=Callable[..., Any])
STATES = {"ready": "green", "exited": "red", "backoff": "red", "starting": "yellow", "held": "yellow", "stopped": "yellow"}

environment_argument = click.argument("environment", metavar="[ENV]", required=False)


def output_option(verb: Verb) -> Verb:
    """`--output text|json`."""
    kinds = click.Choice(["text", "json"])
    return click.option("--output", type=kinds, default="text", show_default=True, help="How the answer is printed.")(verb)


def meant(environment: str | None) -> str:
    """The id that was given, or that of this checkout's environment."""
    if environment:
        return environment
    from envctl.lease import env_id_here
    from envctl.spec import find_root

    return env_id_here(find_root(Path.cwd()))


def answer(format: str, fields: Mapping[str, object], text: str, output: str) -> None:
    """Prints the one answer of a verb: `text`, or `fields` as JSON with the name and version of their format."""
    click.echo(json.dumps({"format": format, **fields}, indent=2, default=str) if output == "json" else text)


def as_text(environment: Environment, notes: Sequence[str] = ()) -> str:
    """An environment as a table for people."""
    expiry = span(environment.expires_at - time.time())
    head = f"{environment.id}  {environment.stack}  {environment.substrate}  expires in {expiry} unless it is used"
    rows = [("NODE", "KIND", "ZONE", "STATE", "UP", "STARTS", "ADDRESS"), *map(_row, sorted(environment.nodes, key=_order))]
    lines = [head, "", *table(rows, colours=dict.fromkeys(range(1, len(rows)), STATES))]
    if environment.endpoints:
        lines += ["", *table(sorted(environment.endpoints.items()))]
    return "\n".join([*lines, *([""] if notes else []), *(f"note: {note}" for note in notes)])


def _order(node: Node) -> tuple[str, int, str]:
    return (node.component, len(node.name), node.name)


def _row(node: Node) -> tuple[str, ...]:
    state = node.state if node.exit_status is None or node.state == "ready" else f"{node.state} ({node.exit_status})"
    age = span(time.time() - node.started_at) if node.started_at and node.state != "exited" else "-"
    return (node.name, node.kind, node.zone, state, age, str(node.starts), node.address)


def table(rows: Sequence[Sequence[str]], colours: Mapping[int, Mapping[str, str]] | None = None) -> list[str]:
    """Rows with aligned columns; `colours` maps words to colours, by row."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))] if rows else []
    return [
        "  ".join(_cell(text, width, (colours or {}).get(number, {})) for text, width in zip(row, widths, strict=True)).rstrip()
        for number, row in enumerate(rows)
    ]


def _cell(text: str, width: int, colours: Mapping[str, str]) -> str:
    padded = f"{text:<{width}}"
    colour = colours.get(text.split(" ", 1)[0]) if text else None
    return click.style(padded, fg=colour) if colour else padded


def span(seconds: float) -> str:
    """A duration as people say it: 42 s, 12 min, 1 h 50 min, 3 d."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest} min" if rest else f"{hours} h"
    return f"{hours // 24} d"
