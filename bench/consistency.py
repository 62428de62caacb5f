"""Judging histories: reading two million lines, a million operations over 10,000 keys, single keys with many unknown outcomes, and transactions.

Histories are those of an object that does one operation after the other, as clients see it, each of its own random seed.  Time is that of one process
that does nothing else; of single keys, CPU time.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from bench import Figure, show, spread, transactions
from envctl.consistency import PROPERTIES
from envctl.model.history import History, Operation
from envctl.spec.histories import load_history

TITLE = "Judging histories"
OPERATIONS, KEYS, CLIENTS = 1_000_000, 10_000, 50
LINES_S, WHOLE_S, SINGLE_S = 10.0, 60.0, 1.0
SINGLE, SINGLE_CLIENTS, SINGLES = 170, 5, 100
BUDGET = 1_000_000
LINEARIZABLE = PROPERTIES["linearizable"]


@dataclass(slots=True)
class Store:
    """Registers, and who is at work on them; an unknown operation acts at once, late or never."""

    random: Random
    keys: int
    values: int
    unknown: float
    state: dict[int, Any] = field(default_factory=dict)
    late: list[tuple[int, str, Any]] = field(default_factory=list)

    def asked(self) -> tuple[int, str, Any]:
        """What a client asks for next."""
        key, f = self.random.randrange(self.keys), self.random.choice(("read", "read", "write", "cas"))
        new = self.random.randrange(self.values)
        old = self.state.get(key) if self.random.random() < 0.5 else self.random.randrange(self.values)
        return key, f, {"read": None, "write": new, "cas": [old, new]}[f]

    def act(self, key: int, f: str, value: Any) -> tuple[str, Any]:
        """Outcome and answer."""
        if self.late and self.random.random() < 0.05:
            self._change(*self.late.pop())
        if self.random.random() < self.unknown:
            self.late += [(key, f, value)] if self.random.random() < 0.6 else []
            return "info", None
        return self._change(key, f, value)

    def _change(self, key: int, f: str, value: Any) -> tuple[str, Any]:
        if f == "cas" and self.state.get(key) != value[0]:
            return "fail", value
        if f != "read":
            self.state[key] = value if f == "write" else value[1]
        return "ok", self.state.get(key) if f == "read" else value


def lines(store: Store, operations: int, clients: int) -> Iterator[dict[str, Any]]:
    """The lines of a history."""
    names, busy, begun = list(range(clients)), dict[int, list[Any]](), 0
    while begun < operations or busy:
        client = store.random.randrange(clients)
        if client not in busy:
            if begun < operations:
                busy[client] = [*store.asked(), None]
                begun += 1
                yield line(names[client], "invoke", *busy[client][:3])
            continue
        key, f, value, answer = busy[client]
        if answer is None:
            busy[client][3] = store.act(key, f, value)
            continue
        del busy[client]
        yield line(names[client], answer[0], key, f, answer[1])
        names[client] += clients if answer[0] == "info" else 0  # a client that does not know goes on as another process


def line(process: int, type: str, key: int, f: str, value: Any) -> dict[str, Any]:
    """One of them."""
    return {"process": process, "type": type, "f": f, "key": f"k{key}", "value": value}


def write(path: Path, store: Store, operations: int, clients: int) -> int:
    """Writes a history; returns how many lines it has."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for count, each in enumerate(lines(store, operations, clients), 1):
            file.write(json.dumps({"index": count, **each, "time": count * 1000}) + "\n")
    return count


def judge(path: Path) -> None:
    """Reads and judges a history as `envctl check` does, and prints what that took as JSON."""
    begun = time.perf_counter()
    history = load_history(path, LINEARIZABLE.models["register"])
    read = time.perf_counter()
    finding, = LINEARIZABLE.judge(history, "register", BUDGET)
    print(json.dumps({"read_s": read - begun, "whole_s": time.perf_counter() - begun, "outcome": finding.outcome,
                      "unknown": finding.stats["unknown"], "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def large() -> list[Figure]:
    """A million operations, in a process of their own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "history.jsonl"
        count = write(path, Store(Random(1), KEYS, 50, 0.02), OPERATIONS, CLIENTS)
        done = subprocess.run([sys.executable, "-m", "bench.consistency", str(path)], check=True, capture_output=True, cwd=Path(__file__).parents[1])
    took = json.loads(done.stdout)
    if took["outcome"] != "pass":
        raise RuntimeError(f"a history of a register was judged {took['outcome']}")
    return [
        Figure(f"reading a history of {count:,} lines, wall", f"{took['read_s']:.1f} s", f"≤ {LINES_S:.0f} s", took["read_s"] <= LINES_S),
        Figure(f"`linearizable` of {OPERATIONS:,} operations on {KEYS:,} registers by {CLIENTS} clients, {took['unknown']:,} of unknown outcome, with reading, wall",
               f"{took['whole_s']:.1f} s", f"≤ {WHOLE_S:.0f} s", took["whole_s"] <= WHOLE_S),
        Figure("peak memory", f"{took['peak_mb']:.0f} MB"),
    ]


def single(seed: int, unknown: float, *, right: bool) -> float:
    """CPU seconds of one key; a wrong history has a value that was never written in a read of its second half."""
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        write(Path(file.name), Store(Random(seed), 1, 5, unknown), SINGLE, SINGLE_CLIENTS)
        operations = list(load_history(Path(file.name)).operations)
    reads = [at for at, each in enumerate(operations) if each.f == "read" and each.outcome == "ok"]
    if not right:
        at = reads[len(reads) * 3 // 4]
        operations[at] = replace(operations[at], told="never written")
    return _timed(operations, "pass" if right else "fail")


def _timed(operations: list[Operation], expected: str) -> float:
    begun = time.process_time()
    finding, = LINEARIZABLE.judge(History(operations), "register", BUDGET)
    took = time.process_time() - begun
    if finding.outcome != expected:
        raise RuntimeError(f"a history that should {expected} was judged {finding.outcome}")
    return took


def singles() -> Iterator[Figure]:
    """Many histories of one key."""
    for unknown in (0.1, 0.3, 0.5):
        for right in (True, False):
            took = [single(seed, unknown, right=right) for seed in range(SINGLES)]
            what = f"one register, {SINGLE} operations by {SINGLE_CLIENTS} clients, {unknown:.0%} of unknown outcome, {'right' if right else 'wrong'}, CPU"
            yield Figure(what, spread(took, digits=3), f"median ≤ {SINGLE_S:.0f} s", statistics.median(took) <= SINGLE_S)


def figures() -> list[Figure]:
    """Everything."""
    return [*large(), *singles(), *transactions.figures()]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        judge(Path(sys.argv[1]))
    else:
        show(figures())
