"""`faults:` of a scenario → its timeline: entries that stand for several faults are written out, one fault each.

`sequence` starts each of its entries when the one before it has healed and recovered or given up, `parallel` starts them together, `repeat` lets
an entry follow itself, and `nemesis` is a sequence drawn from weighted entries: the same seed draws the same one.  `escalate` is a sequence whose
steps reach further each time, none of which starts unless the system has survived the one before.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envctl.model.scenario import FaultSpec
from envctl.spec.conditions import conditions, detect
from envctl.spec.document import Document, Location
from envctl.spec.units import duration_s

COMPOSED = ("sequence", "parallel", "nemesis", "escalate")
_Entry = tuple[Location, Mapping[str, Any]]
_OWN = frozenset({"fault", "id", "at", "on", "for", "repeat", "weight", "during", "detect", "recover"})


@dataclass(frozen=True, slots=True)
class Start:
    """When an entry starts: at a time, after the faults that its turn comes after, or after what `on` names."""

    at_s: float | None = None
    after: tuple[str, ...] = ()
    on: str = ""


def timeline(document: Document, rng_seed: int) -> tuple[FaultSpec, ...]:
    """All faults of a scenario, in the order in which they are written out."""
    writer = _Writer(document, rng_seed)
    for at, raw in _outermost(document):
        writer.entry(raw, at, start_of(raw))
    return tuple(writer.led())


def written(document: Document) -> Iterator[FaultSpec]:
    """Each fault as it stands in the file, once."""
    for at, each in entries(document):
        if "fault" in each:
            yield _fault(document, each, at, each.get("id", each["fault"]), start_of(each))


def entries(document: Document) -> Iterator[_Entry]:
    """All entries of a scenario, and those inside of them."""
    for at, raw in _outermost(document):
        yield from _with_inner(raw, at)


def _outermost(document: Document) -> Iterator[_Entry]:
    yield from ((("faults", index), raw) for index, raw in enumerate(document.data.get("faults", ())) if raw is not None)


def _with_inner(raw: Mapping[str, Any], at: Location) -> Iterator[_Entry]:
    yield at, raw
    for place, each in _inside(raw, at):
        yield from _with_inner(each, place)


def _inside(raw: Mapping[str, Any], at: Location) -> list[_Entry]:
    for name in COMPOSED:
        if name in raw:
            place: Location = (*at, name, "of") if name == "nemesis" else (*at, name)
            return [((*place, index), each) for index, each in enumerate(raw[name]["of"] if name == "nemesis" else raw[name])]
    return []


def start_of(raw: Mapping[str, Any]) -> Start:
    """What an entry says itself."""
    on = raw["on"].removeprefix("healed(").removesuffix(")").strip() if "on" in raw else ""
    return Start(duration_s(raw["at"]) if "at" in raw else None, on=on)


def _fault(document: Document, raw: Mapping[str, Any], at: Location, id: str, start: Start) -> FaultSpec:
    return FaultSpec(
        id=id,
        fault=raw["fault"],
        at_s=start.at_s,
        after=start.after,
        for_s=duration_s(raw["for"]) if "for" in raw else None,
        params={name: value for name, value in raw.items() if name not in _OWN},
        line=document.line(*at),
        place=at,
        during=conditions(document, (*at, "during"), raw.get("during")),
        detect=detect(document, (*at, "detect"), raw["detect"]) if "detect" in raw else None,
        recover_within_s=duration_s(raw["recover"]["within"]) if "recover" in raw else None,
    )


class _Writer:
    def __init__(self, document: Document, rng_seed: int) -> None:
        self._document, self._rng_seed = document, rng_seed
        self._faults: list[tuple[FaultSpec, str]] = []  # and what its `on` names
        self._ends: dict[str, tuple[str, ...]] = {}  # name of an entry → the faults with whose recovery it is over
        self._used: Counter[str] = Counter()

    def led(self) -> Iterator[FaultSpec]:
        """The faults, each `on` led to the faults that end what it names."""
        for fault, on in self._faults:
            yield replace(fault, after=self._ends.get(on, (on,))) if on else fault

    def entry(self, raw: Mapping[str, Any], at: Location, start: Start) -> tuple[str, ...]:
        """Writes out an entry as often as it is repeated; returns the ids with which it is over."""
        first, ends = len(self._faults), self._once(raw, at, start)
        for _ in range(raw.get("repeat", 1) - 1):
            ends = self._once(raw, at, Start(after=ends))
        self._ends.setdefault(raw["id"] if "id" in raw else self._faults[first][0].id, ends)
        return ends

    def _once(self, raw: Mapping[str, Any], at: Location, start: Start) -> tuple[str, ...]:
        if "fault" in raw:
            return (self._single(raw, at, start),)
        inside = _inside(raw, at)
        if "parallel" in raw:
            return tuple(end for place, each in inside for end in self.entry(each, place, start))
        steps = self._drawn(raw["nemesis"], inside) if "nemesis" in raw else inside
        ends: tuple[str, ...] = ()
        name = self._unique(raw.get("id", "escalate")) if "escalate" in raw else ""
        for number, (place, each) in enumerate(steps, 1):
            first = len(self._faults)
            ends = self.entry(each, place, Start(after=ends) if ends else start)
            if name:
                self._faults[first:] = [(replace(fault, escalation=name, step=number, steps=len(steps)), on) for fault, on in self._faults[first:]]
        return ends

    def _drawn(self, raw: Mapping[str, Any], inside: Sequence[_Entry]) -> Sequence[_Entry]:
        rng = random.Random(f"{self._rng_seed}/nemesis/{len(self._faults)}")
        return rng.choices(inside, [each.get("weight", 1) for _, each in inside], k=raw["faults"])

    def _single(self, raw: Mapping[str, Any], at: Location, start: Start) -> str:
        id = self._unique(raw.get("id", raw["fault"]))
        self._faults.append((_fault(self._document, raw, at, id, start), start.on))
        return id

    def _unique(self, name: str) -> str:
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}-{self._used[name]}"
