"""Measures and rewrites the tables of bench/RESULTS.md; 1 when a target is missed, 3 when one could not be measured."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import MARKS, Figure, machine, show

ALL = ("up", "replay", "intake", "checks", "consistency", "cli", "demo", "seeds")
RESULTS = Path(__file__).with_name("RESULTS.md")


def table(figures: Sequence[Figure], load: float) -> str:
    """The figures as a table, with when and beside what they were measured."""
    rows = "".join(f"| {f.what} | {f.measured} | {f.target} | {MARKS[f.met]} |\n" for f in figures)
    when = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return f"| what | measured | target | |\n|---|---|---|---|\n{rows}\n{machine()}; load average {load:.1f} before; {when}.\n"


def replaced(text: str, name: str, body: str) -> str:
    """`text` with the part between the markers of `name` replaced.  Raises ValueError when it has no such markers."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{RESULTS} has no place for {name}: a line {begin.strip()} and a line {end}")
    return re.sub(re.escape(begin) + ".*?" + re.escape(end), lambda _: begin + body + end, text, flags=re.DOTALL)


def main(names: Sequence[str]) -> int:
    """Runs the named benches, or all; each one's table is written as soon as it is measured."""
    status = 0
    for name in names or ALL:
        bench = importlib.import_module(f"bench.{name}")
        print(f"\n{bench.TITLE}")
        load = os.getloadavg()[0]
        try:
            figures = bench.figures()
        except Exception:  # noqa: BLE001 — the others are measured all the same
            traceback.print_exc()
            status = 3
            continue
        RESULTS.write_text(replaced(RESULTS.read_text(encoding="utf-8"), name, table(figures, load)), encoding="utf-8")
        try:
            show(figures)
        except SystemExit:
            status = status or 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
