"""How far consumer groups are behind as a whole: the sum over their partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from envctl.model.event import Sample

LAG = "kafka.consumer_group.lag"


def totals(samples: Iterable[Sample]) -> Mapping[str, list[Sample]]:
    """By group, a sample of its whole lag at each instant; unknown while that of one partition is."""
    newest: dict[str, dict[tuple[object, object], float | None]] = {}
    found: dict[str, list[Sample]] = {}
    for at_ns, sweep in groupby(samples, key=lambda sample: sample.at_ns):
        groups: dict[str, None] = {}
        for sample in sweep:
            group = str(sample.attrs.get("group"))
            newest.setdefault(group, {})[sample.attrs.get("topic"), sample.attrs.get("partition")] = sample.value
            groups[group] = None
        for group in groups:
            known = [value for value in newest[group].values() if value is not None]
            whole = sum(known) if len(known) == len(newest[group]) else None
            found.setdefault(group, []).append(Sample(at_ns=at_ns, measure=LAG, value=whole))
    return found


def peak_lag(samples: Iterable[Sample]) -> Mapping[str, int]:
    """The highest known lag of each group."""
    known = {group: [sample.value for sample in whole if sample.value is not None] for group, whole in totals(samples).items()}
    return {group: int(max(values)) for group, values in known.items() if values}
