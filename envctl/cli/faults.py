"""`envctl faults`: which kinds of faults there are and where each works; and of a run, what its faults were measured to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from envctl.cli.environments import answer, table

if TYPE_CHECKING:
    from envctl.report.model import Fault

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault as its plug-in declares it."""

    name: str
    mechanism: str
    proof: str
    lacks: dict[str, tuple[str, ...]]  # substrate → the powers that the fault needs and the substrate has not; none: it works there


@dataclass(frozen=True, slots=True)
class Measured:
    """A fault of a run, as the run's record tells of it."""

    id: str
    fault: str
    mechanism: str
    asked: str
    measured: str
    heal_s: float | None  # from the order to heal until its absence was verified
    gone: bool | None  # whether its absence was verified; None: it was not looked for


@click.command()
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option("--output", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True, help="How the answer is printed.")
def faults(run: Path | None, output: str) -> None:
    """Show the kinds of faults, and on which substrates each works.

    With a RUN (a directory, or the id of a run of this project): what was asked of its faults, what was measured, how long each took to
    heal, and whether it was verified that it is gone.
    """
    if run is None:
        kinds = _kinds()
        fields, rows = [asdict(kind) for kind in kinds], _rows_of_kinds(kinds)
    else:
        measured = _measured(run)
        fields, rows = [asdict(one) for one in measured], _rows_of_run(measured)
    text = "\n".join(_markdown(rows) if output == "markdown" else table(rows))
    answer("faults/v1", {"faults": fields}, text, output)


def _kinds() -> list[Kind]:
    from envctl import plugins

    substrates = {name: plugins.load("envctl.substrates", name) for name in plugins.names("envctl.substrates")}
    found = []
    for name in plugins.names("envctl.faults"):
        kind = plugins.load("envctl.faults", name)
        needed: frozenset[str] = getattr(kind, "powers", frozenset())
        found.append(Kind(name, getattr(kind, "mechanism", ""), getattr(kind, "proof", ""),
                          {substrate: tuple(sorted(needed - have.powers)) for substrate, have in substrates.items()}))
    return found


def _rows_of_kinds(kinds: Sequence[Kind]) -> Rows:
    substrates = sorted({substrate for kind in kinds for substrate in kind.lacks})
    rows = [("fault", "mechanism", "proof of its effect", *substrates)]
    for kind in kinds:
        places = (f"needs {' and '.join(kind.lacks[name])}" if kind.lacks[name] else "yes" for name in substrates)
        rows.append((kind.name, kind.mechanism, kind.proof, *places))
    return rows


def _measured(run: Path) -> list[Measured]:
    from envctl.cli.options import run_directory
    from envctl.report.build import build

    return [_as_measured(fault) for fault in build(run_directory(run)).faults]


def _as_measured(fault: Fault) -> Measured:
    from envctl import plugins

    at = {stage: (ok, second) for stage, ok, second, _ in fault.stages}
    before = at.get("hold", at.get("verify", at.get("apply")))
    heal_s = at["absent"][1] - before[1] if before and "absent" in at else None
    kind: Any = plugins.load("envctl.faults", fault.fault) if fault.fault in plugins.names("envctl.faults") else None
    return Measured(fault.id, fault.fault, fault.mechanism or getattr(kind, "mechanism", ""), fault.asked.partition("; ")[0], fault.measured, heal_s,
                    at["absent"][0] if "absent" in at else None)


def _rows_of_run(measured: Sequence[Measured]) -> Rows:
    from envctl.report.words import duration, inert

    gone = {True: "verified", False: "NOT GONE", None: "not looked for"}
    return [("fault", "mechanism", "asked", "measured", "healed within", "absence"),
            *((one.id, one.mechanism, inert(one.asked), inert(one.measured), duration(one.heal_s), gone[one.gone]) for one in measured)]


def _markdown(rows: Rows) -> list[str]:
    head, *rest = ("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)
    return [head, "|" + "---|" * len(rows[0]), *rest]
