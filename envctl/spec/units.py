"""Quantities as people write them: `8s`, `512Mi`, `20 %`, `50/s`.  Each function returns base units or raises ValueError."""

from __future__ import annotations

import re

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_QUANTITY = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_QUANTITY |= {f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTPE", 1)}
_NUMBER = r"(\d+(?:\.\d+)?)"


def _match(pattern: str, text: str, allowed: str) -> re.Match[str]:
    found = re.fullmatch(pattern, text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not {allowed}")
    return found


def duration_s(text: str) -> float:
    """`500ms`, `8s`, `1.5 m`, `2h`, `1d` in seconds."""
    number, unit = _match(_NUMBER + r"\s*(ms|s|m|h|d)", text, "a duration such as 500ms, 8s, 5m or 2h").groups()
    return round(float(number) * _SECONDS[unit], 9)


def size_bytes(text: str) -> int:
    """`512Mi`, `1Gi`, `64Ki` or plain bytes."""
    number, unit = _match(_NUMBER + r"\s*(Ki|Mi|Gi|)", text, "a size such as 512Mi or 2Gi").groups()
    return int(float(number) * _BYTES[unit])


def ratio(text: str) -> float:
    """`20 %` as 0.2.  Raises ValueError outside 0–100 %."""
    value = float(_match(_NUMBER + r"\s*%", text, "a percentage such as 20 %")[1])
    if value > 100:
        raise ValueError(f"{text!r} is more than 100 %")
    return round(value / 100, 9)


def rate_per_s(text: str) -> float:
    """`50/s` or `3000/m` as events per second."""
    number, unit = _match(_NUMBER + r"\s*/\s*(s|m|h)", text, "a rate such as 50/s or 3000/m").groups()
    return float(number) / _SECONDS[unit]


def bits_per_s(text: str) -> float:
    """`1 Mbit/s`, `500 kbit/s` or `1 Gbit/s` as bits per second."""
    number, unit = _match(_NUMBER + r"\s*([kMG])bit/s", text, "a bandwidth such as 1 Mbit/s or 500 kbit/s").groups()
    return float(number) * _QUANTITY[unit]


def quantity(text: str) -> float:
    """A quantity of Kubernetes, such as `500m`, `1.5`, `512Mi` or `1e3` (its API conventions, "Quantity")."""
    found = _match(r"(\+?(?:\d{1,30}\.?\d{0,30}|\.\d{1,30}))([eE][-+]?\d{1,2}|[numkMGTPE]|[KMGTPE]i|)", text, "a quantity such as 500m or 512Mi")
    number, unit = found.groups()
    return float(number) * _QUANTITY[unit] if unit in _QUANTITY else float(number + unit)
