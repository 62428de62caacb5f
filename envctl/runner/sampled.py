"""The newest samples, and what conditions that don't speak of the traffic are made of: lag, depth, saturation, declared measures.

A part that could not be read, or was read too long ago, makes the whole unknown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from envctl.model.event import Sample
from envctl.model.scenario import Condition, Measure
from envctl.model.topology import Topology
from envctl.telemetry.lag import DEPTH, LAG

STALE_S = 10.0  # a sample older than this says nothing of now; samplers that wait for a broken engine take some seconds
VALUE = "value"  # of declared measures
_ATTRS = ("group", "topic", "partition", "node", "name")
_OF_NODES = {"cpu": "process.cpu", "memory": "process.memory", "connections": "postgres.connections_used"}


@dataclass(slots=True)
class Newest:
    """The newest sample of each measure by what it is about.

    `capacity` tells of a measure how much a component's node may have (cores, bytes), `fresh_s` of declared measures how long they count.
    """

    capacity: Callable[[str, str], float] = lambda _measure, _component: 1.0
    fresh_s: Mapping[str, float] = field(default_factory=dict)
    _samples: dict[str, dict[tuple[object, ...], Sample]] = field(default_factory=dict)

    def take(self, sample: Sample) -> None:
        """Takes one in the place of the older one."""
        self._samples.setdefault(sample.measure, {})[tuple(sample.attrs.get(name) for name in _ATTRS)] = sample

    def value(self, condition: Condition, now_ns: int, since_ns: int) -> float | None:
        """What the condition's measure is; None where it is unknown, among others where nothing newer than `since_ns` was read."""
        subject, fresh_s = condition.subject, self.fresh_s.get(condition.subject, STALE_S)
        oldest_ns = max(since_ns, now_ns - int(fresh_s * 1e9))
        if condition.measure == "lag":
            return _sum(self._of(LAG, oldest_ns, lambda sample: sample.attrs.get("group") == subject))
        if condition.measure == "depth":
            return self._depth(subject, oldest_ns)
        if condition.measure == VALUE:
            return _sum(self._of(VALUE, oldest_ns, lambda sample: sample.attrs.get("name") == subject))
        return self._saturation(condition.measure, subject, oldest_ns)

    def _of(self, measure: str, oldest_ns: int, fits: Callable[[Sample], bool]) -> list[tuple[Sample, float | None]]:
        found = [sample for sample in self._samples.get(measure, {}).values() if fits(sample)]
        return [(sample, sample.value if sample.at_ns >= oldest_ns else None) for sample in found]

    def _depth(self, topic: str, oldest_ns: int) -> float | None:
        """Of the group that is furthest behind; where no group reads the topic, all that lies in it."""
        read = self._of(LAG, oldest_ns, lambda sample: sample.attrs.get("topic") == topic)
        if not read:
            return _sum(self._of(DEPTH, oldest_ns, lambda sample: sample.attrs.get("topic") == topic))
        groups = {sample.attrs["group"] for sample, _ in read}
        return _highest(_sum([each for each in read if each[0].attrs["group"] == group]) for group in groups)

    def _saturation(self, measure: str, subject: str, oldest_ns: int) -> float | None:
        """Of the busiest node of a component, or of that node, as a share of what it may have."""
        of = _OF_NODES[measure]
        found = self._of(of, oldest_ns, lambda sample: subject in (sample.attrs["node"], _component(sample)))
        return _highest(None if value is None else value / self.capacity(measure, _component(sample)) for sample, value in found)


def _component(sample: Sample) -> str:
    return str(sample.attrs["node"]).rpartition("-")[0]


def _sum(parts: list[tuple[Sample, float | None]]) -> float | None:
    """Unknown when any part is, or there is none."""
    known = [value for _, value in parts if value is not None]
    return sum(known) if parts and len(known) == len(parts) else None


def _highest(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return max(known) if found and len(known) == len(found) else None


def capacity_of(topology: Topology) -> Callable[[str, str], float]:
    """What a node of a component may have: its `resources:`, or else all of the machine that the runner is on."""
    machine = {"cpu": float(os.cpu_count() or 1), "memory": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))}

    def capacity(measure: str, component: str) -> float:
        resources = topology.components[component].resources if component in topology.components else None
        limits = {"cpu": resources.cpus, "memory": resources.memory_bytes} if resources else {}
        return limits.get(measure) or machine.get(measure, 1.0)

    return capacity


def newest_of(topology: Topology, measures: Mapping[str, Measure]) -> Newest:
    """For a run: a declared measure counts until it should have been read three times since."""
    return Newest(capacity_of(topology), {name: max(STALE_S, 3 * measure.every_s) for name, measure in measures.items()})
