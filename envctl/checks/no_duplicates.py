"""no-duplicates: every effect happened once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar

from envctl.checks.evidence import SHOWN, STREAM, Lives, decimal_of, finding, unreadable
from envctl.model.verdict import Finding
from envctl.record import Observed, Record


class NoDuplicates:
    """`no-duplicates: {in: charges, value: 1}`.

    Every id is in the stream once and, where `value` is given, with that value (such as a count).  A message that a producer
    sent twice is a duplicate only where the stream is that topic: name the stream of the effects.
    """

    name: ClassVar[str] = "no-duplicates"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["in"],
        "additionalProperties": False,
        "properties": {"in": STREAM, "value": {"type": ["number", "string", "boolean"], "description": "what each id's value is"}},
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The stream."""
        return (("stream", params["in"]),)

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """A duplicate may come at any time; nothing to wait for."""
        del params
        return 0.0

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on ids that recur or have another value."""
        stream, expected = params["in"], params.get("value")
        if problem := unreadable(id, cls.name, record, stream):
            return problem
        elements = record.stream(stream)
        if not elements:
            return finding(id, cls.name, "inconclusive", f"{stream} is empty, so nothing could be doubled")
        counts = Counter(o.id for o in elements if o.id is not None)
        wrong = _wrong(stream, elements, counts, expected)
        nameless = len(elements) - counts.total()
        stats = {"elements": len(elements), "ids": len(counts), "wrong": len(wrong), "nameless": nameless}
        if wrong:
            shown = list(wrong)[:SHOWN]
            lives = Lives(record, shown)
            evidence = [lives.tell(name, wrong[name]) for name in shown]
            title = f"{len(wrong):,} of {len(counts):,} in {stream} " + (
                "are there more than once" if expected is None else f"are not there once with value {expected}")
            return finding(id, cls.name, "fail", title, evidence=evidence, total=len(wrong), stats=stats)
        if nameless:
            title = f"{nameless:,} of {len(elements):,} in {stream} have no id"
            return finding(id, cls.name, "inconclusive", title, stats=stats)
        return finding(id, cls.name, "pass", f"each of {len(counts):,} in {stream} is there once", stats=stats)


def _wrong(stream: str, elements: Sequence[Observed], counts: Mapping[str, int], expected: Any) -> dict[str, str]:
    """What is wrong with an id, in words; those that recur first."""
    wrong = {id: f"{count} times in {stream}" for id, count in counts.items() if count > 1}
    for o in elements if expected is not None else ():
        if o.id is not None and not same(o.value, expected):
            wrong.setdefault(o.id, f"value {o.value!r} in {stream} where {expected!r} is right")
    return wrong


def same(value: Any, expected: Any) -> bool:
    """Whether two values agree exactly; a number also agrees with its plain decimal text (databases send decimals so)."""
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(expected, str):
        value, expected = expected, value
    if isinstance(value, str) and isinstance(expected, int | float):
        return decimal_of(value) == Decimal(str(expected))
    return bool(value == expected)
