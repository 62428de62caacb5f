"""lag-drains: a consumer group catches up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from envctl.checks.evidence import DURATION, LAG, finding, seconds, traffic_end_ns, within_s
from envctl.model.event import Sample
from envctl.model.verdict import Evidence, Finding
from envctl.record import Record

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Drain:
    """How a group's lag went after `since_ns`: from when on it stayed drained, its peak, the newest sample of each partition."""

    drained_ns: int | None
    peak: float
    newest: Mapping[Partition, Sample]
    unknown: int


class LagDrains:
    """`lag-drains: {group: payments, within: 20s, below: 0}`.

    At most `within` after the traffic has ended and the last fault is gone, the lag of all partitions of the group together
    is `below` or less (0 if not given), and stays so until the samples end.  A partition that the group never committed has an unknown lag, unless it is empty.
    """

    name: ClassVar[str] = "lag-drains"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["group", "within"],
        "additionalProperties": False,
        "properties": {
            "group": {"type": "string", "minLength": 1},
            "within": DURATION,
            "below": {"type": "integer", "minimum": 0, "description": "messages; default 0"},
        },
    }

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The group."""
        return (("group", params["group"]),)

    @classmethod
    def waits_s(cls, params: Mapping[str, Any]) -> float:
        """Its `within`."""
        return within_s(params)

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails when the lag stayed; inconclusive without samples, or when they end before `within` has passed."""
        group, below, allowed = params["group"], params.get("below", 0), round(within_s(params) * 1e9)
        samples = [s for s in record.samples(LAG) if s.attrs.get("group") == group]
        if not samples:
            return finding(id, cls.name, "inconclusive", f"the lag of group {group} was never sampled")
        gone = [window.end_ns for window in record.faults if window.end_ns is not None]
        since = max([traffic_end_ns(record), *gone])
        drain = _follow(samples, since, below)
        took = None if drain.drained_ns is None else drain.drained_ns - since
        stats = {"peak": drain.peak, "since_s": since / 1e9, "drain_s": None if took is None else took / 1e9}
        if took is not None and took <= allowed:
            return finding(id, cls.name, "pass", f"group {group} had caught up {seconds(took)} after the traffic and the last fault "
                           f"(peak {drain.peak:,.0f})", stats=stats)
        if took is None and drain.unknown:
            return finding(id, cls.name, "inconclusive", f"the lag of {drain.unknown} partitions of group {group} is unknown: "
                           "it never committed there", evidence=_stuck(samples, drain), stats=stats)
        if took is None and samples[-1].at_ns < since + allowed:
            title = f"the samples of group {group} end at {seconds(samples[-1].at_ns)}, before {params['within']} had passed"
            return finding(id, cls.name, "inconclusive", title, stats=stats)
        left = sum(s.value or 0 for s in drain.newest.values())
        title = (f"group {group} needed {seconds(took)} to catch up, {params['within']} are allowed" if took is not None
                 else f"group {group} was still {left:,.0f} messages behind {params['within']} after the traffic and the last fault")
        faults = record.overlapping(since, samples[-1].at_ns)
        evidence = [Evidence(e.summary, at_ns=e.at_ns, faults=faults) for e in _stuck(samples, drain)]
        return finding(id, cls.name, "fail", title, evidence=evidence, stats=stats)


def _place(sample: Sample) -> Partition:
    return str(sample.attrs.get("topic")), int(sample.attrs.get("partition", 0))


def _value(sample: Sample) -> float | None:
    """The lag; 0 where it is unknown because there was never a message."""
    return 0.0 if sample.value is None and sample.attrs.get("end") == 0 else sample.value


def _follow(samples: Sequence[Sample], since_ns: int, below: float) -> _Drain:
    places = {_place(sample) for sample in samples}
    newest: dict[Partition, Sample] = {}
    fresh: dict[Partition, float | None] = {}  # only samples from `since_ns` on
    peak, drained = 0.0, None
    for sample, following in zip(samples, (*samples[1:], None), strict=True):
        newest[_place(sample)] = sample
        peak = max(peak, sum(s.value or 0 for s in newest.values()))
        if sample.at_ns < since_ns:
            continue
        fresh[_place(sample)] = _value(sample)
        if following is not None and following.at_ns == sample.at_ns:
            continue  # one reading of all partitions is judged as a whole
        known = [value for value in fresh.values() if value is not None]
        if sum(known) > below:
            drained = None
        elif drained is None and len(known) == len(places):
            drained = sample.at_ns
    return _Drain(drained, peak, newest, sum(_value(sample) is None for sample in newest.values()))


def _stuck(samples: Sequence[Sample], drain: _Drain) -> list[Evidence]:
    """One line for each partition that is behind, the furthest first, with the time of its last progress."""
    behind = sorted((s for s in drain.newest.values() if _value(s) != 0), key=lambda s: -(s.value or 0))
    told = []
    for sample in behind:
        committed = sample.attrs.get("committed")
        reached = next(s.at_ns for s in samples if _place(s) == _place(sample) and s.attrs.get("committed") == committed)
        topic, partition = _place(sample)
        text = f"{topic}/{partition}: end {sample.attrs.get('end')}, committed {committed}, no progress since {seconds(reached)}"
        told.append(Evidence(text, at_ns=reached))
    return told
