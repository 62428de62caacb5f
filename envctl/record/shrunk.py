"""`shrunk.json`: the smallest scenario that was found to fail as a run did; the scenario itself is `shrunk.yaml` beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envctl.record.writer import publish

FORMAT = "shrunk/v1"
SHRUNK = "shrunk.json"
SCENARIO = "shrunk.yaml"


@dataclass(frozen=True, slots=True)
class Smallest:
    """What a report tells of it."""

    command: str  # that reproduces it
    schedule: str  # what is left, in words
    finding: str  # id of the one that fails
    failed: int  # of its `tries`
    tries: int


def save_shrunk(run_dir: Path, smallest: Smallest) -> None:
    """Writes `shrunk.json`, atomically."""
    publish(run_dir / SHRUNK, {"format": FORMAT, **asdict(smallest)})


def load_shrunk(run_dir: Path) -> Smallest | None:
    """Reads `shrunk.json`; None where there is none that can be read."""
    try:
        data: Mapping[str, Any] = json.loads((run_dir / SHRUNK).read_text(encoding="utf-8"))
        return Smallest(**{name: value for name, value in data.items() if name != "format"}) if data["format"] == FORMAT else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
