"""When each operation of a traffic file is due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from envctl.spec.traffic import Line


@dataclass(frozen=True, slots=True)
class Due:
    """One operation: a line, in one round through the file, with its intended start."""

    number: int  # 1, 2, … over all rounds
    due_s: float  # since the traffic's begin
    line: Line
    round: int  # 0 is the first
    key: str | None  # the line's key; from the second round on with the round as a suffix, such as "c17~2"


def schedule(lines: Sequence[Line], rate_per_s: float | None, duration_s: float | None) -> Iterator[Due]:
    """When each operation is due.

    With a rate, the i-th (from 0) is due at i/rate; without one, at the line's own `at`.  With a duration the file is
    repeated until it is over (its own pace goes on: a round takes the last `at` plus the mean gap); without one it is gone
    through once.
    """
    count = len(lines)
    last = lines[-1].at_s
    period = last + (last / (count - 1) if count > 1 else 1.0)
    number = 0
    while True:
        turn, index = divmod(number, count)
        line = lines[index]
        due = number / rate_per_s if rate_per_s else turn * (period or 1.0) + line.at_s
        if due >= duration_s if duration_s is not None else turn:
            return
        number += 1
        yield Due(number, due, line, turn, keyed(line.key, turn))


def keyed(key: str | None, turn: int) -> str | None:
    """A key in the given round (0 is the first)."""
    return key if key is None or turn == 0 else f"{key}~{turn + 1}"
