"""`envctl plan`: which components a run needs, and why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from envctl.cli import options

if TYPE_CHECKING:
    from envctl.model.plan import Plan

COLOURS = {"changed": "yellow", "needed": None, "scenario": "cyan", "asked": "cyan", "full": None}
_SHOWN = 4  # reasons named in a line of the table


@click.command()
@options.scenario
@options.planning
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How the plan is printed.")
def plan(*, scenario: str | None, output: str, **asked: object) -> None:
    """Show which components a run needs, each with the reason why it is in; nothing is started.

    What changed is found by comparing the working tree, uncommitted and untracked files too, with the merge base with the
    base branch.
    """
    from envctl.model.published import plan_fields

    made = options.plan_here(scenario, options.asked_for(asked))
    click.echo(json.dumps(plan_fields(made), indent=2) if output == "json" else as_text(made))


def as_text(plan: Plan) -> str:
    """The plan as a table for people."""
    total = len(plan.topology.components)
    lines = [f"{plan.topology.name}  {len(plan.selected)} of {total} components  {plan.substrate}  {plan.env_id}", ""]
    width = max((len(name) for name in plan.topology.components), default=0)
    for each in plan.selected:
        why = click.style(f"{each.why:<9}", fg=COLOURS[each.why])
        lines.append(f"  {each.component:<{width}}  {why} {_because(each.because)}".rstrip())
    for name in plan.stubbed:
        why = click.style(f"{'stubbed':<9}", fg="yellow")
        lines.append(f"  {name:<{width}}  {why} answered from {_stub(plan, name)}, unverified")
    if plan.left_out:
        lines += ["", f"left out, because unchanged and not needed: {', '.join(plan.left_out)}"]
    return "\n".join([*lines, *([""] if plan.notes else []), *(f"note: {note}" for note in plan.notes)])


def _because(reasons: tuple[str, ...]) -> str:
    """The reasons in a line; what they say of the same component or scenario is put together."""
    said: dict[str, list[str]] = {}
    for reason in reasons:
        subject, _, how = reason.removesuffix(")").partition(" (")
        said.setdefault(subject, []).append(how)
    texts = [f"{subject} ({_few(hows)})" if any(hows) else subject for subject, hows in said.items()]
    return _few(texts)


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _stub(plan: Plan, name: str) -> str:
    return str(getattr(plan.topology.components[name], "stub", "examples"))
