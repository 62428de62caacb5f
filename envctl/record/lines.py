"""Lines of the record's file: all of them in order, or one again by its position."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(position, line) for every whole line; a torn last one is what a killed writer leaves and is passed over."""
    position = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield position, line
            position += len(line)


class Lines:
    """Reads single lines of the record again, by position."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def at(self, position: int) -> dict[str, Any]:
        """The line that starts at `position` (a byte offset)."""
        with self._path.open("rb") as file:
            file.seek(position)
            found: dict[str, Any] = json.loads(file.readline())
            return found
