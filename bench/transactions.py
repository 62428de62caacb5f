"""Time and peak memory of `envctl check` over 100,000 transactions on lists, as a serial store carried them out for 20 clients."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import Figure, show

TRANSACTIONS, CLIENTS, KEYS, ELEMENTS = 100_000, 20, 10, 100  # keys at a time, each until so many elements were appended to it
UNKNOWN = 0.01
LIMIT_S, LIMIT_MB = 60.0, 1_000.0
CHECKS = (("serializable", "list-append"), ("strict-serializable", "list-append"), ("session", "list-append"))

Txn = list[list[Any]]


class Clients:
    """Clients that append to and read lists, each transaction at an instant between its invocation and its completion."""

    def __init__(self) -> None:
        self._rng = random.Random(1)
        self._lists: dict[int, list[int]] = {}
        self._appended: dict[int, int] = {}
        self._keys = list(range(KEYS))

    def lines(self) -> Iterator[dict[str, Any]]:
        """The history."""
        names, newest, begun = list(range(CLIENTS)), CLIENTS, 0
        waiting: dict[int, Txn] = {}
        while begun < TRANSACTIONS or waiting:
            at = self._rng.randrange(CLIENTS)
            name = names[at]
            if name in waiting:
                told = self._carried_out(waiting.pop(name))
                known = self._rng.random() >= UNKNOWN
                yield {"process": name, "type": "ok" if known else "info", "f": "txn", "value": told if known else None}
                if not known:
                    names[at], newest = newest, newest + 1
            elif begun < TRANSACTIONS:
                begun += 1
                waiting[name] = self._asked()
                yield {"process": name, "type": "invoke", "f": "txn", "value": waiting[name]}

    def _asked(self) -> Txn:
        return [self._step(self._rng.randrange(KEYS)) for _ in range(self._rng.randint(1, 4))]

    def _step(self, at: int) -> list[Any]:
        key = self._keys[at]
        if self._rng.random() < 0.5:
            return ["r", key, None]
        self._appended[key] = element = self._appended.get(key, 0) + 1
        if element == ELEMENTS:
            self._keys[at] = max(self._keys) + 1
        return ["append", key, element]

    def _carried_out(self, steps: Txn) -> Txn:
        told = []
        for f, key, element in steps:
            values = self._lists.setdefault(key, [])
            if f == "append":
                values.append(element)
            told.append([f, key, element if f == "append" else list(values)])
        return told


def check(file: Path, name: str, model: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and peak megabytes of the command.  Raises RuntimeError where it does not pass."""
    begun = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "envctl", "check", file, "--check", name, "--model", model], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"what a serial store did was judged {os.waitstatus_to_exitcode(status)} by {name}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def figures() -> list[Figure]:
    """For each check, the whole command, with reading the file."""
    found = []
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "history.jsonl"
        file.write_text("".join(f"{json.dumps(line)}\n" for line in Clients().lines()), encoding="utf-8")
        size = file.stat().st_size / 1e6
        for name, model in CHECKS:
            seconds, cpu, peak = check(file, name, model)
            found += [Figure(f"`{name}` ({model}) of {TRANSACTIONS:,} transactions ({size:.0f} MB), wall", f"{seconds:.1f} s", f"≤ {LIMIT_S:.0f} s",
                             seconds <= LIMIT_S),
                      Figure("CPU, peak memory", f"{cpu:.1f} s, {peak:.0f} MB", f"≤ {LIMIT_MB:.0f} MB", peak <= LIMIT_MB)]
    return found


if __name__ == "__main__":
    show(figures())
