"""Hands events over as JSON lines without ever making the caller wait."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Emitter:
    """Writes to a descriptor from a thread of its own: a slow reader delays nobody's clock.

    When the reader is gone the process ends, because nobody would know what it does.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="events", daemon=True)
        self._thread.start()

    def emit(self, event: Mapping[str, Any]) -> None:
        """Queues one event; fields that are None are left out."""
        present = {name: value for name, value in event.items() if value is not None}
        self._queue.put(_encode(present).encode("utf-8", "surrogatepass") + b"\n")

    def close(self) -> None:
        """Waits until everything is written."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            view = memoryview(line)
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except BrokenPipeError:
                os._exit(1)
