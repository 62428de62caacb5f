"""Figures for `bench/RESULTS.md`: `python -m bench` measures everything, `python -m bench NAME…` some of it."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as users run it: compiled once
MARKS = {True: "met", False: "MISSED", None: ""}


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of a table.  `met` is None where there is no target."""

    what: str
    measured: str
    target: str = "–"
    met: bool | None = None


def spread(values: Sequence[float], unit: str = "s", digits: int = 2) -> str:
    """`1.20 s (1.10–1.40, n = 5)`: median, extremes, count."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} {unit} ({low}–{high}, n = {len(values)})" if len(values) > 1 else f"{middle} {unit}"


def machine() -> str:
    """The machine in general terms."""
    kernel = ".".join(os.uname().release.split(".")[:2])
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines() if "=" in line)
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux {kernel}, {release['PRETTY_NAME'].strip(chr(34)).split(' (')[0]}"


def show(figures: Sequence[Figure]) -> None:
    """Prints figures, one a line; ends the process with 1 when a target is missed."""
    for each in figures:
        print(f"{each.what}: {each.measured}  {MARKS[each.met]} {each.target if each.met is not None else ''}".rstrip())
    if any(each.met is False for each in figures):
        raise SystemExit(1)
