"""Numbers and times for people; the same in every form of the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

GAP = "\N{NO-BREAK SPACE}"  # between a number and its unit
NONE = "–"
_UNSEEN = re.compile(  # controls (C0 but the tab, C1), line separators, what turns the direction of writing, what no encoding or XML holds
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
_COMMAND = re.compile(r"^\s*::|##(?=\w*\[)")  # what CI systems obey when they see it in a job's output


def duration(seconds: float | None) -> str:
    """`264 ms`, `1.24 s`, `2 min 05 s`; a dash for None."""
    if seconds is None:
        return NONE
    if abs(seconds) < 0.9995:
        return f"{seconds * 1000:.0f}{GAP}ms" if abs(seconds) >= 0.01 else f"{seconds * 1000:.1f}{GAP}ms"
    if seconds < 120:
        return f"{seconds:.2f}{GAP}s" if seconds < 10 else f"{seconds:.1f}{GAP}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}{GAP}min {rest:02}{GAP}s" if minutes < 120 else f"{minutes // 60}{GAP}h {minutes % 60:02}{GAP}min"


def instant(seconds: float | None) -> str:
    """A time of the run: `14.21 s`; a dash for None."""
    return NONE if seconds is None else f"{seconds:.2f}{GAP}s"


def count(value: float | None) -> str:
    """`1,500`; a dash for None."""
    return NONE if value is None else f"{value:,.0f}"


def percent(ratio: float | None) -> str:
    """`99.73 %`: never rounded up to a whole that it isn't; a dash for None."""
    if ratio is None:
        return NONE
    shown = min(round(ratio * 100, 2), 99.99) if ratio < 1 else ratio * 100
    return f"{shown:.2f}".rstrip("0").rstrip(".") + f"{GAP}%"


def size(bytes: float | None) -> str:
    """`46.4 MB`; a dash for None."""
    if bytes is None:
        return NONE
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes >= factor:
            return f"{bytes / factor:.1f}{GAP}{unit}"
    return f"{bytes:.0f}{GAP}B"


def quantity(value: float | None, unit: str) -> str:
    """A value of a track in its unit."""
    if unit == "s":
        return duration(value)
    if value is None:
        return NONE
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 1 else f"{value:.2f}".rstrip("0").rstrip(".")
    return number + (f"{GAP}{unit}" if unit else "")


def pairs(values: Mapping[str, Any]) -> str:
    """`from orders, to bus, loss 20 %`."""
    return ", ".join(f"{name} {_flat(value)}" for name, value in values.items())


def _flat(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " + ".join(_flat(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def detected(seconds: float | None, by: str) -> str:
    """The time until a condition told of a fault, or why none did; a dash where none was asked."""
    return duration(seconds) if seconds is not None else by or NONE


def suffered(seconds: float | None, symptom: str) -> str:
    """The first operation that suffered under a fault, and when."""
    return f"first: {symptom} after {duration(seconds)}" if symptom else "no operation suffered"


def clip(text: str, most: int) -> str:
    """The text, cut to at most `most` characters with an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"


def inert(text: str) -> str:
    r"""One line that steers neither a terminal nor a CI system: what would is written as its escape sequence (`\x1b`, `\n`, `\x3a:`)."""
    shown = _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return _COMMAND.sub(lambda found: found[0].replace("::", r"\x3a:").replace("##", r"#\x23"), shown)


def inert_lines(text: str) -> str:
    """The same for a text whose lines are meant to be lines."""
    return "\n".join(map(inert, text.split("\n")))
