"""`envctl judge RUN`: judges a recorded run again, offline."""

from __future__ import annotations

from pathlib import Path

import click

from envctl.cli.options import run_directory


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Judge by this scenario's checks instead.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How the verdict is printed.")
def judge(run: Path, scenario: Path | None, output: str) -> int:
    """Judge the recorded RUN (a directory, or the id of a run of this project) again, without an environment.

    Writes the verdict and the report anew; by another scenario, only a verdict of its own beside them.  Exits 0 for pass, 5 for fail, 7 for inconclusive.
    """
    from envctl import gate
    from envctl.model.project import Gate
    from envctl.model.verdict import EXITS
    from envctl.record import Record
    from envctl.report import write_all
    from envctl.report.words import inert
    from envctl.spec import find_root, load_project, load_scenario

    project = find_root(Path.cwd())
    directory = run_directory(run)
    record = Record.load(directory)
    _flatten(directory / "telemetry")
    policy = load_project(project).gate if (project / "envctl.yaml").is_file() else Gate()
    other = load_scenario(scenario, rng_seed=record.manifest.rng_seed) if scenario else None
    verdict = gate.judge(record, scenario=other, gate=policy)
    saved = gate.save_verdict(directory, verdict, by=other.name if other else "")
    if other is None:
        write_all(directory)
    if output == "json":
        click.echo(saved.read_text(encoding="utf-8"), nl=False)
    else:
        click.echo("\n".join(map(inert, gate.explain(verdict))))
    return int(EXITS[verdict.outcome])


def _flatten(telemetry: Path) -> None:
    """Makes the spans readable where the run ended before it could."""
    from envctl.telemetry.store import FILE, flatten

    if telemetry.is_dir() and not (telemetry / FILE).exists():
        flatten(telemetry)
