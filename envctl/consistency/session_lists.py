"""Session guarantees of lists: a read holds the elements of all writes that its server had, in their order."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

from envctl.consistency.sessions import (
    MONOTONIC_READS,
    MONOTONIC_WRITES,
    READ_YOUR_WRITES,
    WRITES_FOLLOW_READS,
    Act,
    Answer,
    Breach,
)
from envctl.consistency.transactions import key_shown, shown

List = list[Hashable]


class _Before(NamedTuple):
    """What the process of an append had done to the list before it."""

    append: Act
    appended: Act | None  # its last append that certainly took effect
    read: Act | None  # its last read


def judge_list(name: str, acts: Sequence[Act]) -> Answer:
    """What the acts on a list break."""
    answer = Answer(unclear=_unclear(acts))
    if "twice" in answer.unclear:
        return answer
    befores: dict[Hashable, _Before] = {}
    appended: dict[int | str, dict[Hashable, Act]] = {}
    read: dict[int | str, Act] = {}
    for act in acts:
        mine = appended.setdefault(act.process, {})
        if act.reads:
            answer.breaches += _of_read(name, act, mine, read.get(act.process))
            read[act.process] = act
        else:
            befores[act.value] = _Before(act, next(reversed(mine.values()), None), read.get(act.process))
            if act.certain:
                mine[act.value] = act
    for witness in _witnesses(acts):
        answer.breaches += _of_writes(name, witness, befores)
    return answer


def _unclear(acts: Sequence[Act]) -> str:
    """Why not all can be told; what stands twice makes it that nothing can."""
    written = [act.value for act in acts if not act.reads]
    if len(set(written)) < len(written):
        return "an element was appended twice"
    witnesses = _witnesses(acts)
    if any(len(set(each.value)) < len(each.value) for each in witnesses):
        return "an element was read twice in a list"
    return "two reads, neither of which is the beginning of the other" if len(witnesses) > 1 else ""


def _witnesses(acts: Sequence[Act]) -> list[Act]:
    """The longest read and those that are no beginning of it: what holds for them holds for all reads."""
    reads = sorted((act for act in acts if act.reads), key=lambda act: -len(act.value))
    return [act for act in reads if act is reads[0] or act.value != reads[0].value[:len(act.value)]]


def _of_read(name: str, act: Act, mine: Mapping[Hashable, Act], last: Act | None) -> Iterator[Breach]:
    """Read your writes, monotonic reads."""
    told = f"{shown(act.value)} (operation {act.operation.index})"
    if mine and (missing := mine.keys() - set(act.value)):
        own = next(mine[element] for element in mine if element in missing)
        text = f"process {key_shown(act.process)} appended {shown(own.value)} to {name} (operation {own.operation.index}) and then read {told}"
        yield Breach((READ_YOUR_WRITES,), text, (own.operation, act.operation))
    if last and act.value[:len(last.value)] != last.value and not set(last.value) <= set(act.value):
        text = f"process {key_shown(act.process)} read {shown(last.value)} of {name} (operation {last.operation.index}) and then {told}"
        yield Breach((MONOTONIC_READS,), text, (last.operation, act.operation))


def _of_writes(name: str, witness: Act, befores: Mapping[Hashable, _Before]) -> Iterator[Breach]:
    """Monotonic writes, writes follow reads: whoever reads an element also reads, before it, what its process had written or read."""
    places = {element: at for at, element in enumerate(witness.value)}
    then = f"process {key_shown(witness.process)} read {shown(witness.value)} (operation {witness.operation.index})"
    for element, at in places.items():
        if element not in befores:
            continue
        append, own, read = befores[element]
        who = f"process {key_shown(append.process)}"
        what = f"appended {shown(element)} (operation {append.operation.index})"
        if own and places.get(own.value, at) >= at:
            text = f"{who} appended {shown(own.value)} to {name} (operation {own.operation.index}) and then {what}; {then}"
            yield Breach((MONOTONIC_WRITES,), text, (own.operation, append.operation, witness.operation))
        if read and witness.value[:len(read.value)] != read.value[:at] and any(places.get(each, at) >= at for each in read.value if each != element):
            text = f"{who} read {shown(read.value)} of {name} (operation {read.operation.index}) and then {what}; {then}"
            yield Breach((WRITES_FOLLOW_READS,), text, (read.operation, append.operation, witness.operation))
