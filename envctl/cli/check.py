"""`envctl check HISTORY --check NAME`: judges a history of operations, from whatever tool."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from envctl.model.verdict import Verdict

BUDGET = 1_000_000  # states of one key: about ten seconds


@click.command()
@click.argument("history", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--check", "name", required=True, metavar="NAME", help="The property that is asked for, such as linearizable.")
@click.option("--model", metavar="NAME", help="What the objects are, where the property has several models.")
@click.option("--budget", type=click.IntRange(min=1), default=BUDGET, show_default=True, metavar="STATES",
              help="How many states of one key may be looked at before its answer is inconclusive.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How the verdict is printed.")
def check(history: Path, name: str, model: str | None, budget: int, output: str) -> int:
    """Judge a HISTORY (JSON lines, docs/history-format.md) without a run.  Exits 0 for pass, 5 for fail, 7 for inconclusive."""
    from envctl.consistency import PROPERTIES
    from envctl.model.verdict import EXITS, Verdict, worst
    from envctl.spec.histories import load_history

    asked = PROPERTIES[_known("check", name, PROPERTIES)]
    model = _known("model", model or next(iter(asked.models)), asked.models)
    findings = tuple(asked.judge(load_history(history, asked.models[model]), model, budget))
    verdict = Verdict(worst(each.outcome for each in findings), findings)
    click.echo(_json(verdict) if output == "json" else _text(verdict))
    return int(EXITS[verdict.outcome])


def _known(kind: str, name: str, known: Iterable[str]) -> str:
    """The name.  Raises UsageError where it is none."""
    from envctl.errors import UsageError
    from envctl.plugins import nearest

    names = tuple(known)
    if name not in names:
        raise UsageError(f"no {kind} is called {name!r}", hint=nearest(name, names))
    return name


def _json(verdict: Verdict) -> str:
    import json
    from dataclasses import asdict

    from envctl.record.verdict import FORMAT

    return json.dumps({"format": FORMAT, **asdict(verdict)}, indent=2, ensure_ascii=False, default=str)


def _text(verdict: Verdict) -> str:
    from envctl import gate
    from envctl.report.words import inert

    lines = gate.explain(verdict) if verdict.outcome != "pass" else [f"{'PASS':<7} {each.id}: {each.title}" for each in verdict.findings]
    return "\n".join(map(inert, lines))
