"""Small histories of transactions: told in words, invented by a serial store, spoilt, and judged by trying everything."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from envctl.consistency import PROPERTIES
from envctl.model.history import History, Operation
from envctl.model.verdict import Finding

Step = list[Any]


def txn(index: int, *steps: str, outcome: str = "ok", began: int | None = None, ended: int | None = None) -> Operation:
    """A transaction out of `append x 1`, `w x 1`, `r x [1, 2]`, `r x 1` and `r x null`; without times, one after the other."""
    told: list[Step] = []
    for step in steps:
        f, key, value = step.split(maxsplit=2)
        told.append([f, key, _value(value)])
    asked = [[f, key, None if f == "r" else value] for f, key, value in told]
    began = 2 * index if began is None else began
    finished = None if outcome == "info" else began + 1 if ended is None else ended
    return Operation(index, index, "txn", None, asked, told if outcome == "ok" else None, outcome, began, finished)


def _value(text: str) -> Any:
    if text.startswith("["):
        return [int(each) for each in text[1:-1].split(",") if each.strip()]
    return None if text == "null" else int(text)


def judge(check: str, model: str, *operations: Operation) -> Finding:
    asked = PROPERTIES[check]
    assert not any(map(asked.models[model], operations))
    (finding,) = asked.judge(History(operations), model, 1)
    return finding


def names(finding: Finding) -> set[str]:
    return set(finding.stats.get("anomalies", ()))


class Store:
    """A serial store: one transaction at a time."""

    def __init__(self, write: str) -> None:
        self._write = write
        self._state: dict[Any, Any] = {}

    def run(self, steps: Sequence[Step]) -> list[Step]:
        """Carries a transaction out, and returns what it was told."""
        told = []
        for f, key, value in steps:
            if f == "append":
                self._state[key] = [*self._state.get(key, []), value]
            elif f == "w":
                self._state[key] = value
            told.append([f, key, self._state.get(key, [] if self._write == "append" else None) if f == "r" else value])
        return told


def serial(operations: Sequence[Operation], write: str, *, strict: bool) -> bool:
    """Whether a serial order of all `ok` transactions, and of any of the unknown ones, returns what was read; tries them all."""
    certain = [op for op in operations if op.outcome == "ok"]
    unknown = [op for op in operations if op.outcome == "info"]
    return any(
        _completes([*certain, *some], {}, write, strict=strict)
        for count in range(len(unknown) + 1) for some in combinations(unknown, count))


def _completes(left: Sequence[Operation], state: Mapping[Any, Any], write: str, *, strict: bool) -> bool:
    if not left:
        return True
    for op in left:
        if strict and any(other.ended is not None and other.ended < op.began for other in left if other is not op):
            continue
        after = _applied(op, state, write)
        if after is not None and _completes([other for other in left if other is not op], after, write, strict=strict):
            return True
    return False


def _applied(op: Operation, state: Mapping[Any, Any], write: str) -> Mapping[Any, Any] | None:
    """The state after a transaction; None where it did not read what there is."""
    state = dict(state)
    for f, key, value in op.told if op.outcome == "ok" else op.asked:
        empty: Any = [] if write == "append" else None
        if f == "r":
            if op.outcome == "ok" and state.get(key, empty) != value:
                return None
        else:
            state[key] = [*state.get(key, empty), value] if write == "append" else value
    return state


def invented(rng: random.Random, write: str) -> list[Operation]:
    """What up to five clients ask of a serial store, each transaction at an instant between its invocation and its completion.

    Some never take effect, of some nobody knows whether they did; a few read all in the end, so that hardly anything remains hidden.
    """
    count = rng.randint(2, 5)
    keys = "xy"[:rng.randint(1, 2)]
    value = iter(range(1, 100))
    asked = [_asked(rng, keys, write, value) for _ in range(count)]
    if rng.random() < 0.4:
        asked[-1] = [["r", key, None] for key in keys]
    outcomes = [rng.choices(("ok", "fail", "info"), (8, 1, 2))[0] for _ in range(count)]
    instants = sorted(rng.sample(range(10, 90), count))
    begins = [instant - rng.randint(1, 30) for instant in instants]
    ends = [instant + rng.randint(1, 30) for instant in instants]
    order = sorted([(at, 0, n) for n, at in enumerate(begins)] + [(at, 1, n) for n, at in enumerate(ends)])
    places = {(edge, n): place for place, (_, edge, n) in enumerate(order)}
    store = Store(write)
    told = [store.run(steps) if outcome == "ok" or (outcome == "info" and rng.random() < 0.5) else None
            for steps, outcome in zip(asked, outcomes, strict=True)]
    made = [Operation(places[0, n], n, "txn", None, asked[n], told[n] if outcomes[n] == "ok" else None, outcomes[n], places[0, n],
                      None if outcomes[n] == "info" else places[1, n]) for n in range(count)]
    return sorted(made, key=lambda op: op.began)


def _asked(rng: random.Random, keys: str, write: str, values: Iterator[int]) -> list[Step]:
    steps = []
    for _ in range(rng.randint(1, 3)):
        key = rng.choice(keys)
        steps.append(["r", key, None] if rng.random() < 0.5 else [write, key, next(values)])
    return steps


def loose(rng: random.Random, write: str) -> list[Operation]:
    """A history where every transaction reads some version of each key, written by others in an order of that key's own."""
    count = rng.randint(2, 5)
    keys = "xy"[:rng.randint(1, 2)]
    value = iter(range(1, 100))
    asked = [_asked(rng, keys, write, value) for _ in range(count)]
    versions = {key: _shuffled(rng, asked, key, write) for key in keys}
    places = rng.sample(range(2 * count), 2 * count) if rng.random() < 0.5 else list(range(2 * count))
    made = []
    for n in range(count):
        began, ended = sorted(places[2 * n:2 * n + 2])
        told = _loosely(rng, asked[n], versions, write)
        made.append(Operation(began, n, "txn", None, asked[n], told, "ok", began, ended))
    return sorted(made, key=lambda op: op.began)


def _shuffled(rng: random.Random, asked: Sequence[Sequence[Step]], key: str, write: str) -> list[list[int]]:
    """What the transactions write to a key, in some order."""
    mine = [values for steps in asked if (values := [value for f, k, value in steps if f == write and k == key])]
    return rng.sample(mine, len(mine)) if rng.random() < 0.5 else mine


def _loosely(rng: random.Random, steps: Sequence[Step], versions: Mapping[str, Sequence[Sequence[int]]], write: str) -> list[Step]:
    seen: dict[str, Any] = {}
    told = []
    for f, key, value in steps:
        own = [v for g, k, v in steps if g == write and k == key]
        at = next((n for n, values in enumerate(versions[key]) if own and list(values) == own), None)
        before = versions[key][:rng.randint(0, len(versions[key])) if at is None or rng.random() < 0.2 else at]
        if key not in seen:
            flat = [each for values in before for each in values if each not in own]
            seen[key] = flat if write == "append" else flat[-1] if flat else None
        if f != "r":
            seen[key] = [*seen[key], value] if write == "append" else value
        told.append([f, key, seen[key] if f == "r" else value])
    return told


def spoilt(rng: random.Random, operations: Sequence[Operation], write: str) -> list[Operation]:
    """The same history where one read returned something else (an older, newer, foreign or mixed-up value), or a transaction ended otherwise."""
    found = list(operations)
    reads = [(at, n) for at, op in enumerate(found) if op.outcome == "ok" for n, step in enumerate(op.told) if step[0] == "r"]
    if reads and rng.random() < 0.85:
        at, n = rng.choice(reads)
        told = [list(step) for step in found[at].told]
        told[n][2] = _other(rng, told[n][2], [step[2] for op in found for step in op.asked if step[0] == write and step[1] == told[n][1]], write)
        found[at] = replace(found[at], told=told)
    else:
        at = rng.randrange(len(found))
        if found[at].outcome == "ok":
            found[at] = replace(found[at], told=None, outcome="fail")
    return found


def _other(rng: random.Random, value: Any, written: Sequence[int], write: str) -> Any:
    if write == "w":
        return rng.choice([None, 99, *written, *written])
    ways = [value[:-1], value[1:], [*value, *rng.sample(written, min(1, len(written)))], rng.sample(value, len(value)), [*value, 99], []]
    return rng.choice(ways)

