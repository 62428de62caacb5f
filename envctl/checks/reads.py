"""Which consumers read a message, as their spans tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envctl.record import Record


def reads_of(record: Record, place: Mapping[str, Any]) -> Sequence[tuple[int, str, str | None]]:
    """(time, words, trace) of every span that processed the message at {topic, partition, offset}; none without telemetry."""
    del record, place
    return ()
