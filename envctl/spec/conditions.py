"""The one expression language: `measure(subject) comparison number unit [for duration]`."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from envctl.model.scenario import Comparison, Condition, Detect
from envctl.spec.document import Document, Location, did_you_mean
from envctl.spec.units import duration_s

Quantity = Literal["ratio", "time", "count", "rate"]
Subject = Literal["traffic", "group", "topic", "component", "postgres", "measure"]

MEASURES: dict[str, tuple[Quantity, Subject]] = {
    "success_rate": ("ratio", "traffic"),
    "error_rate": ("ratio", "traffic"),
    "p50": ("time", "traffic"),
    "p90": ("time", "traffic"),
    "p95": ("time", "traffic"),
    "p99": ("time", "traffic"),
    "p999": ("time", "traffic"),
    "max": ("time", "traffic"),
    "throughput": ("rate", "traffic"),
    "lag": ("count", "group"),
    "depth": ("count", "topic"),
    "cpu": ("ratio", "component"),
    "memory": ("ratio", "component"),
    "connections": ("ratio", "postgres"),
    "value": ("count", "measure"),
}
"""Measure → its quantity and what its subject names: the traffic (or one operation of it), a consumer group, a topic, a component (or one
node of it), or a measure that the scenario declares, whose quantity is that of the unit it is compared in.  Other percentiles than these are
measures, too (`p75`, `p9999`).
"""
_PERCENTILE = re.compile(r"p\d{2,4}")

COMPARE: dict[Comparison, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}

_UNITS: dict[Quantity, dict[str, float]] = {
    "ratio": {"%": 0.01},
    "time": {"ms": 0.001, "s": 1.0, "m": 60.0},
    "count": {"": 1.0},
    "rate": {"/s": 1.0, "/m": 1 / 60},
}
_FORM = re.compile(
    r"\s*(?P<measure>\w+)\s*\(\s*(?P<subject>[\w.-]+)\s*\)\s*(?P<comparison><=|>=|==|!=|<|>)"
    r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>%|/?[a-z]*?)\s*(?:\bfor\s+(?P<hold>\S.*?))?\s*"
)


def parse_condition(text: str, line: int = 0) -> Condition:
    """One condition.  Raises ValueError, whose message says what was found and what is allowed."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"found {text!r}, allowed: measure(subject) comparison number unit [for duration], such as p95(traffic) < 400 ms")
    measure = found["measure"]
    if measure not in MEASURES and not _PERCENTILE.fullmatch(measure):
        raise ValueError(f"no measure is called {measure!r}; {did_you_mean(measure, MEASURES)}")
    quantity = _quantity(found["unit"]) if measure == "value" else _kind(measure)[0]
    units = _UNITS[quantity]
    if found["unit"] not in units:
        allowed = ", ".join(f"{unit!r}" for unit in units) if quantity != "count" else "no unit"
        raise ValueError(f"the unit of {measure} is {found['unit']!r}, allowed: {allowed}")
    threshold = round(float(found["number"]) * units[found["unit"]], 12)
    if quantity == "ratio" and threshold > 1:
        raise ValueError(f"{found['number']} % is more than 100 %")
    hold_s = duration_s(found["hold"]) if found["hold"] else 0.0
    return Condition(text.strip(), measure, found["subject"], cast("Comparison", found["comparison"]), threshold, hold_s, line, quantity)


def conditions(document: Document, at: Location, texts: Sequence[str | None] | None, *, note: bool = False) -> tuple[Condition, ...]:
    """Those of a list in a document that can be read; with `note` the others are noted as problems."""
    found = []
    for index, text in enumerate(texts or ()):
        try:
            found += [parse_condition(text, document.line(*at, index))] if text is not None else []
        except ValueError as error:
            if note:
                document.problem((*at, index), str(error))
    return tuple(found)


def detect(document: Document, at: Location, raw: Mapping[str, Any]) -> Detect:
    """What a `detect:` says."""
    return Detect(duration_s(raw["within"]) if "within" in raw else None, conditions(document, (*at, "by"), raw.get("by")))


def quantity_of(condition: Condition) -> Quantity:
    """What its measure is a quantity of."""
    return cast("Quantity", condition.quantity) if condition.quantity else _kind(condition.measure)[0]


def subject_of(condition: Condition) -> Subject:
    """What its subject names."""
    return _kind(condition.measure)[1]


def _kind(measure: str) -> tuple[Quantity, Subject]:
    return MEASURES.get(measure, ("time", "traffic"))


def _quantity(unit: str) -> Quantity:
    """What a unit is of.  Raises ValueError for an unknown one."""
    for quantity, units in _UNITS.items():
        if unit in units:
            return quantity
    raise ValueError(f"found the unit {unit!r}, allowed: {', '.join(repr(unit) for units in _UNITS.values() for unit in units if unit)}, or none")


def format_value(condition: Condition, value: float | None) -> str:
    """A value of the condition's measure in a unit it is written with: `97.3 %`, `912 ms`, `53`; `unknown` for None."""
    if value is None:
        return "unknown"
    quantity = quantity_of(condition)
    if quantity == "ratio":
        return f"{100 * value:.4g} %"
    return f"{1000 * value:,.0f} ms" if quantity == "time" else f"{value:,.4g}{'/s' if quantity == 'rate' else ''}"


def format_answer(answer: Mapping[str, Any]) -> str:
    """What the record keeps of a condition at one time: `p95(traffic) < 800 ms: it was 912 ms`."""
    return f"{answer['text']}: it was {format_value(parse_condition(answer['text']), answer['value'])}"


def format_condition(condition: Condition) -> str:
    """The condition in its plainest form; `parse_condition` reads it back to the same meaning."""
    quantity = quantity_of(condition)
    unit, factor = {"ratio": (" %", 100), "time": (" s", 1), "count": ("", 1), "rate": (" /s", 1)}[quantity]
    number = f"{round(condition.threshold * factor, 10):.10f}".rstrip("0").rstrip(".")
    hold = f" for {condition.hold_s:.9f}".rstrip("0").rstrip(".") + "s" if condition.hold_s else ""
    return f"{condition.measure}({condition.subject}) {condition.comparison} {number}{unit}{hold}"
