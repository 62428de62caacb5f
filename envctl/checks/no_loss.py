"""no-loss: everything that was acknowledged is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from envctl.checks.evidence import LAG, SHOWN, Lives, OfTwoStreams, finding, seconds, two_streams, unreadable, within_ns
from envctl.model.scenario import Stream
from envctl.model.topology import Service
from envctl.model.verdict import Evidence, Finding
from envctl.record import Observed, Record

EXAMINED = 10_000  # lost messages whose offsets are looked up


class NoLoss(OfTwoStreams):
    """`no-loss: {from: accepted, to: published, within: 20s}`.

    Every id of `from` is in `to`.  `within` is measured where both streams have times of their own (operations and
    messages); rows and answers only have to be there when they were read.  An operation of unknown outcome is not in `from`,
    so it may be in `to` or not.
    """

    name: ClassVar[str] = "no-loss"
    schema: ClassVar[Mapping[str, Any]] = two_streams("from", "to")

    @classmethod
    def judge(cls, id: str, params: Mapping[str, Any], record: Record) -> Finding:
        """Fails on elements that are missing or late; inconclusive where `to` was read too soon to tell."""
        source, target = params["from"], params["to"]
        if problem := unreadable(id, cls.name, record, source, target):
            return problem
        sent = record.stream(source)
        if not sent:
            return finding(id, cls.name, "inconclusive", f"nothing was {source}, so nothing could be lost")
        arrived: dict[str | None, int] = {}
        for observed in record.stream(target):
            arrived.setdefault(observed.id, observed.at_ns)
        allowed = within_ns(params)
        missing = [o for o in sent if o.id is not None and o.id not in arrived]
        read_at = record.read_at(target)
        lost = [o for o in missing if o.at_ns + (allowed or 0) <= read_at]
        timed = all(_timed(record.scenario.streams[name]) for name in (source, target))
        late = _late(sent, arrived, allowed if timed else None)
        nameless = sum(o.id is None for o in sent)
        stats = {"from": len(sent), "to": len(arrived), "lost": len(lost), "late": len(late), "nameless": nameless,
                 "undecided": len(missing) - len(lost), "unknown_outcomes": _unknown(record, source)}
        if lost or late:
            title = _title(len(sent), len(lost), len(late), params)
            groups = _groups(record, source, target)
            first, *more = _evidence(record, lost, late, arrived, target=target, groups=groups)
            evidence = [replace(first, summary="\n".join((first.summary, *_skipped(record, lost, groups)))), *more]
            return finding(id, cls.name, "fail", title, evidence=evidence, total=len(lost) + len(late), stats=stats)
        if nameless:
            return finding(id, cls.name, "inconclusive", f"{nameless:,} of {len(sent):,} {source} have no id to look for", stats=stats)
        if missing:
            title = f"{target} was read at {seconds(read_at)}, too soon to say whether {len(missing):,} of {len(sent):,} would come"
            return finding(id, cls.name, "inconclusive", title, stats=stats)
        return finding(id, cls.name, "pass", f"all {len(sent):,} {source} are in {target}", stats=stats)


def _timed(stream: Stream) -> bool:
    return bool(stream.operation or stream.topic)


def _late(sent: Sequence[Observed], arrived: Mapping[str | None, int], allowed: int | None) -> list[Observed]:
    if allowed is None:
        return []
    return [o for o in sent if o.id in arrived and arrived[o.id] - o.at_ns > allowed]


def _unknown(record: Record, source: str) -> int:
    operation = record.scenario.streams[source].operation
    return sum(op.f == operation and op.type == "info" for op in record.operations) if operation else 0


def _title(count: int, lost: int, late: int, params: Mapping[str, Any]) -> str:
    source, target = params["from"], params["to"]
    parts = [f"{lost:,} of {count:,} {source} never reached {target}"] if lost else []
    if late:
        parts.append(f"{late:,} of {count:,} {source} reached {target} later than {params['within']}")
    return "; ".join(parts)


def _groups(record: Record, source: str, target: str) -> set[str]:
    """The consumer groups that make messages of `target` out of those of `source`; empty where the topology can't tell."""
    streams = record.scenario.streams
    if not (record.directory / "inputs" / "topology.yaml").is_file():
        return set()
    services = [component for component in record.topology.components.values() if isinstance(component, Service)]
    return {each.group for service in services if streams[target].topic in service.publishes
            for each in service.consumes if each.topic == streams[source].topic}


def _skipped(record: Record, lost: Sequence[Observed], groups: Collection[str]) -> list[str]:
    """Offsets of lost messages that a group has committed all the same, by partition."""
    committed = {(s.attrs["topic"], s.attrs["partition"], s.attrs["group"]): s.attrs.get("committed") or 0
                 for s in record.samples(LAG) if s.attrs.get("group") in groups}
    offsets: dict[tuple[str, int, str], list[int]] = {}
    for place in (record.source(o) for o in lost[:EXAMINED]):
        for (topic, partition, group), behind in committed.items():
            if (place.get("topic"), place.get("partition")) == (topic, partition) and place["offset"] < behind:
                offsets.setdefault((topic, partition, group), []).append(place["offset"])
    return [f"offsets of {topic}/{partition} were committed by {group} before their effects: {ranges(found)}"
            for (topic, partition, group), found in offsets.items()]


def ranges(numbers: Sequence[int]) -> str:
    """`311–313, 320` for sorted or unsorted numbers."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in parts)


def _evidence(
    record: Record, lost: Sequence[Observed], late: Sequence[Observed], arrived: Mapping[str | None, int], *, target: str,
    groups: Collection[str],
) -> list[Evidence]:
    shown = [*lost, *late][:SHOWN]
    lives = Lives(record, [o.id for o in shown if o.id is not None], groups)
    told = [lives.tell(o.id or "", f"never in {target}", since_ns=o.start_ns) for o in lost[:SHOWN]]
    for o in late[: SHOWN - len(told)]:
        after = (arrived[o.id] - o.at_ns) / 1e9
        told.append(lives.tell(o.id or "", f"{after:.2f} s after", since_ns=o.start_ns, until_ns=arrived[o.id]))
    return told
