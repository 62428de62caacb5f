"""Writing: events by line, whole files at once."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path
from typing import Any

from envctl.model.event import Event, FaultEdge, Log, Observation, Op, Sample, Step
from envctl.record.lines import whole_lines

_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in (Step, Op, FaultEdge, Sample, Observation, Log)}

DIGITS = 300  # a decimal longer than this is text: Python reads no integers of thousands of digits, and no float is larger


def encode(event: Event, seq: int) -> bytes:
    """One line of the record, newline included; fields that are None are left out, but a sample's `value` (unknown)."""
    line: dict[str, Any] = {"seq": seq}
    for name in _FIELDS[type(event)]:
        value = getattr(event, name)
        if value is not None:
            line[name] = value
    if isinstance(event, Sample):
        line["value"] = event.value
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False, default=_plain).encode("utf-8", "backslashreplace") + b"\n"


def _plain(value: Any) -> int | float | str:
    """What JSON has no form for: a decimal is a number where that says the same, everything else is text."""
    if not isinstance(value, Decimal) or not value.is_finite() or value.adjusted() > DIGITS:
        return str(value)
    if value == value.to_integral_value():
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)


class RecordWriter:
    """Appends events; safe for several threads of one process.

    A line is handed to the kernel whole before `write` returns, so it survives the death of this process; `sync` makes it
    survive the machine's.  An existing file is continued: a torn last line is cut off first.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._seq = self._resume(path)

    def _resume(self, path: Path) -> int:
        if not os.fstat(self._fd).st_size:
            return 0
        position, last = next(iter(deque(whole_lines(path), maxlen=1)), (0, b""))
        os.ftruncate(self._fd, position + len(last))
        return int(json.loads(last)["seq"]) if last else 0

    def write(self, event: Event) -> int:
        """Appends one event and returns its `seq`.  Raises OSError when the disk refuses."""
        with self._lock:
            line = memoryview(encode(event, self._seq + 1))
            before = os.fstat(self._fd).st_size
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError:
                os.ftruncate(self._fd, before)  # the next event must not be appended to half a line
                raise
            self._seq += 1
            return self._seq

    def sync(self) -> None:
        """Returns when everything written so far is on the disk."""
        os.fsync(self._fd)

    def close(self) -> None:
        """Syncs and closes the file."""
        self.sync()
        os.close(self._fd)


def publish(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file so that a reader sees the old content or the new one, never a part (temp, fsync, replace)."""
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temp.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, default=str)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temp.replace(path)
