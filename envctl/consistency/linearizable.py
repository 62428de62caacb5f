"""Linearizability: every operation takes effect at one instant between its invocation and its completion.

Defined by Herlihy and Wing (Linearizability: a correctness condition for concurrent objects, ACM Transactions on Programming Languages and Systems 12,
1990), who prove that it is local: a history is linearizable if and only if the operations of each object are.  So each key is searched alone, which
Horn and Kroening (Faster linearizability checking via P-compositionality, FORTE 2015) found to be what makes large histories tractable.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from envctl.consistency.base import Property
from envctl.consistency.models import ILLEGAL, MODELS, Machine
from envctl.consistency.search import BudgetError, Course, Search, Seen
from envctl.consistency.values import frozen, shown
from envctl.model.history import History, Operation
from envctl.model.verdict import Evidence, Finding, Outcome

NAME = "linearizable"
TELLING = ("read", "cas")  # operations whose `ok` says something of the state
SHOWN = 10  # keys of which a finding has evidence, and concurrent operations and states of which its words tell
KEPT = 100  # of either, in the finding's detail
WIDTH = 80  # characters of a value in a line
STATES = 10_000  # that are looked at to tell which the object could have been in


@dataclass(frozen=True, slots=True)
class Failure:
    """Where the operations of a key stop being linearizable."""

    key: Any
    operation: Operation  # what could not be placed: its completion ends the smallest prefix that is not linearizable
    concurrent: tuple[Operation, ...]  # what was under way meanwhile, the unknown ones included, by invocation
    states: tuple[str, ...]  # that were possible before its completion
    exact: bool  # False where the budget did not allow to show that no smaller prefix fails
    whole: bool  # whether `states` are all of them


def judge(history: History, model: str, budget: int) -> Sequence[Finding]:
    """The finding `linearizable`: fail where a key is not, inconclusive where the budget (in states, for each key) did not suffice."""
    machine, keys = MODELS[model][0], by_key(history)
    answers = {key: linearizable(machine, operations, budget) for key, operations in keys.items()}
    failed = [key for key, answer in answers.items() if answer == "fail"]
    unknown = [key for key, answer in answers.items() if answer == "inconclusive"]
    stats = {"model": model, "operations": len(history.operations), "unknown": sum(each.outcome == "info" for each in history.operations),
             "keys": len(keys), "failed": len(failed), "inconclusive": len(unknown)}
    if failed:
        title = f"{len(failed):,} of {len(keys):,} keys can't be linearized ({model})"
        evidence = tuple(_evidence(failure(key, machine, keys[key], budget)) for key in failed[:SHOWN])
        return (_finding("fail", title, stats, evidence, len(failed)),)
    if unknown:
        title = f"{len(unknown):,} of {len(keys):,} keys would take more than {budget:,} states each to be told ({model})"
        return (_finding("inconclusive", title, stats, tuple(_undecided(key, keys[key]) for key in unknown[:SHOWN]), len(unknown)),)
    told = any(each.outcome == "ok" and each.f in TELLING for each in history.operations)
    words = "" if told else ": nothing was told of any state, so every order of them is right"
    return (_finding("pass", f"{len(history.operations):,} operations on {len(keys):,} keys are linearizable ({model}){words}", stats),)


def _finding(outcome: Outcome, title: str, stats: Mapping[str, Any], evidence: tuple[Evidence, ...] = (), total: int = 0) -> Finding:
    return Finding(NAME, NAME, outcome, title, evidence=evidence, total=total, stats=stats)


def by_key(history: History) -> Mapping[Hashable, Sequence[Operation]]:
    """Key → its operations, without those that never took effect."""
    found: dict[Hashable, list[Operation]] = {}
    for each in history.operations:
        operations = found.setdefault(each.key, [])
        if each.outcome != "fail":
            operations.append(each)
    return found


def linearizable(machine: type[Machine], operations: Sequence[Operation], budget: int) -> Outcome:
    """Whether there is an order of one object's operations, by `began`, in which each is legal; inconclusive after `budget` states."""
    course = Course(machine(operations), operations)
    try:
        return "pass" if Search(course, budget).linearizable() else "fail"
    except BudgetError:
        return "inconclusive"


# --- where it fails ---------------------------------------------------------------------------------------------------


def until(operations: Sequence[Operation], place: int) -> list[Operation]:
    """The operations as they were known at a place: what ends later is still unknown."""
    return [each if each.ended is None or each.ended <= place else replace(each, outcome="info", ended=None)
            for each in operations if each.began <= place]


def failure(key: Any, machine: type[Machine], operations: Sequence[Operation], budget: int) -> Failure:
    """Where operations that are not linearizable stop being so."""
    place, exact = _smallest(machine, operations, budget)
    operation = next(each for each in operations if each.ended == place)
    concurrent = tuple(each for each in operations if each is not operation and each.began < place and (each.ended is None or each.ended > operation.began))
    states, whole = _states(machine, until(operations, place - 1))
    return Failure(key, operation, concurrent, states, exact, whole)


def _smallest(machine: type[Machine], operations: Sequence[Operation], budget: int) -> tuple[int, bool]:
    """The place that ends the smallest prefix which is not linearizable; and whether the budget was enough to know all smaller ones.

    Linearizability is a safety property: with a prefix, all that go on from there fail, too.  So the search is by halves, and begins where the first one
    for an order got stuck.
    """
    places = sorted(each.ended for each in operations if each.ended is not None)
    stuck, _ = Search(Course(machine(operations), operations), budget).deepest()  # which the budget allowed before
    low, high, exact, probes = 0, len(places) - 1, True, [stuck - 1, stuck]
    while low < high:
        probe = probes.pop() if probes else -1
        middle = probe if low <= probe < high else (low + high) // 2
        answer = linearizable(machine, until(operations, places[middle]), budget)
        exact = exact and answer != "inconclusive"
        low, high = (low, middle) if answer == "fail" else (middle + 1, high)
    return places[high], exact


def _states(machine: type[Machine], operations: Sequence[Operation]) -> tuple[tuple[str, ...], bool]:
    """The states in which an object may be after its operations, and whether these are all."""
    made = machine(operations)
    course = Course(made, operations, everything=True)
    search, states, left = Search(course, STATES), dict[Any, None](), STATES
    seen: Seen = {}
    try:
        todo = search.ends()
    except BudgetError:
        return (), False
    while todo and left > 0:
        now = todo.pop()
        states[now.state] = None
        left -= 1 + len(course.unknown)
        for effect, shift, mask, most in course.unknown:
            after = made.apply(now.state, effect)
            way = now._replace(state=after, used=now.used + (1 << shift))
            if (now.used >> shift) & mask < most and after is not ILLEGAL and search.is_new(seen, 0, way, 0):
                todo.append(way)
    return tuple(sorted({made.show(state) for state in states}, key=lambda text: (len(text), text))), not todo


# --- words ------------------------------------------------------------------------------------------------------------


def _name(key: Any) -> str:
    return "the only object" if key is None else f"key {shown(frozen(key))}"


def _told(operation: Operation) -> str:
    """`read → 3 by 4 (lines 17–21)`, `cas [1, 3] by 2 (line 9, unknown)`."""
    value = f" → {_short(operation.told)}" if operation.f == "read" and operation.ended else "" if operation.f == "read" else f" {_short(operation.asked)}"
    lines = f"lines {operation.began}–{operation.ended}" if operation.ended else f"line {operation.began}, unknown"
    return f"{operation.f}{value} by {operation.process} ({operation.where or lines})"


def _short(value: Any) -> str:
    return _clipped(shown(frozen(value)))


def _clipped(text: str) -> str:
    return text if len(text) <= WIDTH else f"{text[:WIDTH // 2]} … {text[-WIDTH // 2:]}"


def _listed(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f", … and {more:,} more" if more > 0 else "")


def _undecided(key: Any, operations: Sequence[Operation]) -> Evidence:
    unknown = sum(each.outcome == "info" for each in operations)
    return Evidence(f"{_name(key)}: {len(operations):,} operations, {unknown:,} of unknown outcome", detail={"key": key})


def _evidence(failure: Failure) -> Evidence:
    operation = failure.operation
    concurrent = [_told(each) for each in failure.concurrent]
    states = [_clipped(state) for state in failure.states]
    lines = [f"{_name(failure.key)}: {_told(operation)} has no place" + ("" if failure.exact else ", or one before it, which the budget did not allow to tell"),
             f"possible before it{'' if failure.whole else ', among others'}: {_listed(states)}" if states else "",
             f"under way meanwhile: {_listed(concurrent) or 'nothing'}"]
    detail = {"key": failure.key, "prefix": operation.ended, "operation": asdict(operation), "exact": failure.exact,
              "concurrent": [asdict(each) for each in failure.concurrent[:KEPT]], "concurrent_total": len(failure.concurrent),
              "states": failure.states[:KEPT], "all_states": failure.whole and len(failure.states) <= KEPT}
    return Evidence("\n".join(filter(None, lines)), (str(operation.index),), operation.at_ns, detail=detail)


PROPERTY = Property({name: fits for name, (_, fits) in MODELS.items()}, judge)
