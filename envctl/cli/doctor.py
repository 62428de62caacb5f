"""`envctl doctor`: what this machine can do, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import click

from envctl.errors import Exit

if TYPE_CHECKING:
    from envctl.toolchain.examination import Fact

_MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "missing": ("✗", "red")}


@click.command
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print what was found.")
def doctor(output: str) -> None:
    """Explain what this machine can do, what is missing, and what to do about it.

    Ends with 0 when environments can run here now, with 4 otherwise.
    """
    from envctl.toolchain.examination import can_run, examine

    facts: list[Fact] = []
    for fact in chain(examine(), _engines()):
        facts.append(fact)
        if output == "text":
            _print(fact.topic, fact.state, fact.found, fact.step)
    able = can_run(tuple(facts))
    if output == "json":
        click.echo(json.dumps({"format": "doctor/v1", "can_run": able, "facts": [asdict(fact) for fact in facts]}, indent=2))
    else:
        missing = [fact.topic for fact in facts if fact.state == "missing"]
        click.echo(f"environments can run here: {'yes' if able else 'not yet, see ' + ', '.join(missing)}")
    raise SystemExit(Exit.PASS if able else Exit.NOT_MADE)


def _engines() -> Iterator[Fact]:
    """The substrates that run images, each a note where it can't be used."""
    from envctl.stack_provider.ground import installed
    from envctl.toolchain.examination import Fact

    able = False
    for name in installed.names():
        if installed(name).packaging == "images":
            lacks = installed(name).lacks()
            yield from (Fact(name, "note", what, step) for what, step in lacks)
            if not lacks:
                able = True
                yield Fact(name, "ok", "answers; `--substrate` or `envctl.yaml` chooses it")
    if able:
        yield _builder()


def _builder() -> Fact:
    """How images are built."""
    from envctl.substrates.docker.builder import STEP, buildkit
    from envctl.toolchain.examination import Fact

    if argv := buildkit():
        return Fact("images", "ok", f"are built with BuildKit: `{' '.join(argv)}`")
    return Fact("images", "note", "are built without BuildKit: Dockerfiles with `RUN --mount` and the like are refused", STEP)


def _print(topic: str, state: str, found: str, step: str) -> None:
    mark, colour = _MARKS[state]
    click.echo(f"{click.style(mark, fg=colour)} {topic:<13} {found}")
    if step:
        click.echo(f"  {'':<13} → {step}")
