"""What is right, by trying everything; and histories to try it on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from envctl.model.history import Operation

WRONG = object()
INITIAL = {"register": None, "counter": 0, "set": frozenset(), "append-list": ()}
CHANGES = {"register": ("write", "write", "cas"), "counter": ("add",), "set": ("add",), "append-list": ("append",)}


def step(model: str, state: Any, operation: Operation) -> Any:
    """The state after an operation, or WRONG."""
    if operation.f == "read":
        told = operation.told
        if model == "set":
            told = frozenset(told) if len(set(told)) == len(told) else WRONG
        return state if state == (tuple(told) if model == "append-list" else told) else WRONG
    if operation.f == "cas":
        old, new = operation.asked
        return new if state == old else WRONG
    added = operation.asked
    return {"register": lambda: added, "counter": lambda: state + added, "set": lambda: state | {added}, "append-list": lambda: (*state, added)}[model]()


def endings(model: str, operations: Sequence[Operation]) -> Iterator[Any]:
    """The state at the end of every order of all known operations and some unknown ones that keeps to time."""
    changes = [each for each in operations if each.outcome == "ok" or (each.outcome == "info" and each.f != "read")]
    return _endings(model, changes, INITIAL[model])


def _endings(model: str, left: list[Operation], state: Any) -> Iterator[Any]:
    first = min((each.ended for each in left if each.ended is not None), default=None)
    if first is None:
        yield state
    for at, each in enumerate(left):
        after = step(model, state, each) if first is None or each.began < first else WRONG
        if after is not WRONG:
            yield from _endings(model, left[:at] + left[at + 1:], after)


def linearizable(model: str, operations: Sequence[Operation]) -> bool:
    """Whether there is such an order."""
    return next(endings(model, operations), WRONG) is not WRONG


def known_until(operations: Sequence[Operation], place: int) -> list[Operation]:
    """What was known at a place."""
    begun = [each for each in operations if each.began <= place]
    return [each if each.ended is None or each.ended <= place else replace(each, outcome="info", ended=None, told=None) for each in begun]


# --- histories --------------------------------------------------------------------------------------------------------


def asked(rng: Any, model: str, f: str, values: Sequence[Any], state: Any) -> Any:
    """A value to ask with, where the object is in that state."""
    if f == "read":
        return None
    if f == "cas":
        return [state if rng.random() < 0.4 else rng.choice([None, *values]), rng.choice(values)]
    return rng.choice([1, 1, 2, 3, -1] if len(values) == 2 else [1, 2]) if model == "counter" else rng.choice(values)


def acted(rng: Any, model: str, count: int, *, clients: int = 4, unknown: float = 0.2, values: Sequence[Any] = (0, 1, 2)) -> list[Operation]:
    """What clients see of an object that does one operation after the other; each acts once between its ends, an unknown one at any later time or never."""
    found: list[Operation] = []
    state, place, begun = INITIAL[model], 0, 0
    waiting: list[Operation] = []  # invoked, not yet acted
    acting: list[Operation] = []  # acted, not yet told of
    lost: list[Operation] = []  # unknown, may yet act
    while begun < count or waiting or acting:
        place += 1
        turn = rng.random()
        if begun < count and len(waiting) + len(acting) < clients and turn < 0.4:
            f = rng.choice(["read", rng.choice(CHANGES[model])])
            waiting.append(Operation(begun, begun, f, None, asked(rng, model, f, values, state), None, "info", place, None))
            begun += 1
        elif waiting and turn < 0.7:
            each = waiting.pop(rng.randrange(len(waiting)))
            if rng.random() < unknown:
                found.append(each)
                lost += [each] if each.f != "read" and rng.random() < 0.6 else []
            elif each.f == "read":
                acting.append(replace(each, told=sorted(state) if model == "set" else list(state) if model == "append-list" else state, outcome="ok"))
            else:
                after = step(model, state, each)
                acting.append(replace(each, outcome="fail" if after is WRONG else "ok"))
                state = state if after is WRONG else after
        elif lost and turn < 0.75:
            after = step(model, state, lost.pop(rng.randrange(len(lost))))
            state = state if after is WRONG else after
        elif acting:
            found.append(replace(acting.pop(rng.randrange(len(acting))), ended=place))
    return sorted(found, key=lambda each: each.began)


def misread(rng: Any, model: str, operations: Sequence[Operation], values: Sequence[Any] = (0, 1, 2)) -> list[Operation]:
    """The same with another answer to one of its reads, where it has any."""
    reads = [at for at, each in enumerate(operations) if each.f == "read" and each.outcome == "ok"]
    changed = list(operations)
    if reads:
        at = rng.choice(reads)
        told = changed[at].told
        if model == "register":
            told = rng.choice([None, *values])
        elif model == "counter":
            told += rng.choice([-1, 1])
        else:
            told = rng.choice([told[:-1], told[1:], [*told, rng.choice(values)], told[::-1]])
        changed[at] = replace(changed[at], told=told)
    return changed


def guessed(rng: Any, model: str, most: int) -> list[Operation]:
    """Operations that overlap anyhow, with answers at random."""
    values = [0, 1, 2][:rng.randint(1, 3)]
    answers = {"register": lambda: rng.choice([None, *values, *values]), "counter": lambda: rng.randint(-1, 4), "set": lambda: [v for v in values if rng.random() < 0.6],
               "append-list": lambda: [0, 1, 0, 2][:rng.randint(0, 4)]}
    shape = acted(rng, model, rng.randint(2, most), clients=rng.randint(1, 4), unknown=rng.choice([0.1, 0.3, 0.5]), values=values)
    return [replace(each, told=answers[model]()) if each.f == "read" and each.outcome == "ok" else each for each in shape]


def any_history(rng: Any, model: str, most: int) -> list[Operation]:
    """A history of at most that many operations: a right one, one with a wrong answer, or one of guesses."""
    kind = rng.randrange(3)
    if kind == 0:
        return guessed(rng, model, most)
    found = acted(rng, model, rng.randint(2, most), clients=rng.randint(1, 4), values=[0, 1, 2][:rng.randint(1, 3)])
    return found if kind == 1 else misread(rng, model, found)
