"""What is measured beside the traffic while a run goes on: lag, groups, processes, PostgreSQL, and envctl's own cost.

Each sampler has a thread of its own, so that one that waits for a broken engine holds up no other.  What can't be read is
a sample without a value, plus a log entry the first time; a sampler never ends a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from envctl.model.event import Log, Sample
from envctl.model.topology import Service, Topology
from envctl.substrates.base import Reach
from envctl.telemetry.lag import GenerationSampler, LagSampler
from envctl.telemetry.processes import CostSampler, HostSampler, PostgresSampler, ProcessSampler
from envctl.telemetry.reading import Reading

INTERVAL_S = 0.5
_STOP_S = 5.0  # how long stopping waits for a sampler that hangs in an engine's time-out


class Sampler(Protocol):
    """Reads a few measures at once."""

    def sample(self) -> Iterable[Reading]:
        """The readings of now.  May raise anything."""

    def unknown(self) -> Iterable[Reading]:
        """What it would have read, without values: for when `sample` raised."""

    def close(self) -> None:
        """Gives connections back."""


class Samplers:
    """All samplers that an environment needs."""

    def __init__(
        self, reach: Reach, topology: Topology, bootstrap: str, now_ns: Callable[[], int], sampled: Callable[[Sample], object],
        said: Callable[[Log], object], *, interval_s: float = INTERVAL_S, more: Iterable[tuple[Sampler, float]] = (),
    ) -> None:
        """`now_ns` is the run's clock; `sampled` and `said` are called from the samplers' threads; `more` are samplers and how often they are asked."""
        processes = ProcessSampler(reach)
        samplers: list[tuple[Sampler, float]] = [
            (processes, 2 * interval_s), (HostSampler(), 2 * interval_s), (CostSampler(), 2 * interval_s),
        ]
        if any(component.kind == "postgres" for component in topology.components.values()):
            samplers.append((PostgresSampler(reach), 2 * interval_s))
        subscriptions = subscriptions_of(topology)
        if bootstrap and subscriptions:
            samplers.append((LagSampler(bootstrap, subscriptions), interval_s))
            samplers.append((GenerationSampler(bootstrap, sorted({group for group, _ in subscriptions})), interval_s))
        samplers += more
        self._threads = [_Thread(sampler, each_s, now_ns, sampled, said) for sampler, each_s in samplers]

    def start(self) -> None:
        """Begins to sample."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends sampling and waits for the samplers."""
        for thread in self._threads:
            thread.over.set()
        deadline = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def subscriptions_of(topology: Topology) -> tuple[tuple[str, str], ...]:
    """(group, topic) pairs that the topology's services declare."""
    services = (component for component in topology.components.values() if isinstance(component, Service))
    return tuple(dict.fromkeys((one.group, one.topic) for service in services for one in service.consumes))


class _Thread(threading.Thread):
    """Calls one sampler every so often."""

    def __init__(
        self, sampler: Sampler, each_s: float, now_ns: Callable[[], int], sampled: Callable[[Sample], object],
        said: Callable[[Log], object],
    ) -> None:
        super().__init__(name=f"sample-{type(sampler).__name__}", daemon=True)
        self.over = threading.Event()
        self._sampler = sampler
        self._each_s = each_s
        self._now_ns = now_ns
        self._sampled = sampled
        self._said = said
        self._trouble = ""

    def run(self) -> None:
        """Samples until it is over."""
        while not self.over.is_set():
            begin = time.monotonic()
            self._once()
            self.over.wait(max(0.0, self._each_s - (time.monotonic() - begin)))
        self._sampler.close()

    def _once(self) -> None:
        at_ns, trouble = self._now_ns(), ""  # of a slow reading, only its begin is sure to be no later than what it says
        try:
            readings = list(self._sampler.sample())
        except Exception as error:  # noqa: BLE001  (whatever an engine's client raises is an unknown value, never the end of a run)
            readings = list(self._sampler.unknown())
            trouble = f"{type(error).__name__}: {error}"
        if trouble and not self._trouble:
            detail = {"sampler": type(self._sampler).__name__, "error": trouble}
            self._said(Log(at_ns=at_ns, level="warning", message="samples are missing", detail=detail))
        self._trouble = trouble
        for reading in readings:
            self._sampled(Sample(at_ns=at_ns, measure=reading.measure, value=reading.value, attrs=reading.attrs))
