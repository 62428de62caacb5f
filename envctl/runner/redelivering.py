"""Has a consumer group get everything of a run again, and reads the effects before and after it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from envctl import plugins
from envctl.checks.base import Redelivery
from envctl.checks.idempotent_consumer import changes
from envctl.checks.settling import acts
from envctl.engines.cluster import admin
from envctl.engines.group_offsets import committed, move
from envctl.engines.topics import ends_of
from envctl.errors import ResourceError
from envctl.model.scenario import CheckSpec, Scenario
from envctl.record import Record
from envctl.runner.collect import Collector
from envctl.runner.faulting import Field
from envctl.spec.names import groups_of
from envctl.telemetry.lag import LagSampler
from envctl.telemetry.reading import Reading
from envctl.telemetry.samplers import subscriptions_of
from envctl.waiting import until

LEASE_S = 15.0  # how long consumers stay down after a runner that was killed
STOP_S = 10.0  # how long a consumer may take to end in good order
EMPTY_S = 60.0  # how long its group may take to see that: a member that could not say so is given up after its session's time-out
READY_S = 60.0
CALM_S = 2.0  # how long nobody may be behind until the effects are read
POLL_S = 0.25
READ_AGAIN_S = 10.0  # how long effects that differ are read again


def redeliveries(scenario: Scenario) -> Iterator[tuple[CheckSpec, Redelivery]]:
    """The checks of a scenario that ask for one."""
    for spec in scenario.checks:
        if acts(spec):
            yield spec, plugins.load("envctl.checks", spec.check).redelivers(spec.params)


Place = tuple[str, str, int]  # group, topic, partition


@dataclass(frozen=True, slots=True)
class Redeliverer:
    """One redelivery, from the first reading of the effects to the last."""

    ground: Field
    collector: Collector
    asked: Redelivery
    id: str  # the check's

    def run(self) -> dict[str, Any]:
        """What was redelivered; reads the effects again for a while as long as they differ.  Raises EnvctlError."""
        topic, starts = self.asked.topic, self.collector.starts_of(self.asked.topic)
        ends = ends_of(self.ground.bootstrap, topic)
        to = {partition: start for partition, start in starts.items() if start < ends[partition]}
        if not to:
            return {"messages": 0}
        names = self._consumers()
        with Lags(self.ground) as lags:
            before = lags.read()
            self._observe("before")
            with self._held(names):
                again = self._rewind(to, names)
            for name in names:
                self.ground.reach.wait_ready(name, READY_S)
            if not again:
                return {"messages": 0, "nodes": list(names)}
            self._caught_up(lags, {partition: ends[partition] for partition in again}, before)
        deadline = time.monotonic() + READ_AGAIN_S
        self._observe("after")
        while not self._same() and time.monotonic() < deadline and not self._stopped():
            time.sleep(POLL_S)
            self._observe("after")
        return {"messages": sum(again.values()), "nodes": list(names)}

    def _same(self) -> bool:
        return not changes(Record(self.ground.directory, self.ground.scenario), self.asked, self.id)

    def _stopped(self) -> bool:
        return self.ground.stopping.is_set()

    def _observe(self, when: str) -> None:
        for name in self.asked.effects:
            self.collector.observe(self.ground.scenario.streams[name], self.asked.reading(name, self.id, when))

    def _consumers(self) -> Sequence[str]:
        """All nodes whose component is in the group.  Raises ResourceError where there is none."""
        components = groups_of(self.ground.topology)[self.asked.group]
        names = [node.name for node in self.ground.reach.environment().nodes if node.component in components]
        if not names:
            raise ResourceError(f"no node consumes as {self.asked.group}")
        return names

    @contextmanager
    def _held(self, names: Sequence[str]) -> Iterator[None]:
        """The nodes are down meanwhile."""
        reach = self.ground.reach
        try:
            self._hold(names)
            for name in names:
                with suppress(ResourceError):  # it is down already
                    reach.signal(name, signal.SIGTERM)
            if not until(lambda: self._down(names), STOP_S, poll_s=POLL_S):
                for name in names:
                    with suppress(ResourceError):
                        reach.signal(name, signal.SIGKILL)
            yield
        finally:
            for name in names:
                reach.release(name)

    def _hold(self, names: Sequence[str]) -> None:
        for name in names:
            self.ground.reach.hold(name, LEASE_S)

    def _down(self, names: Sequence[str]) -> bool:
        return all(self.ground.reach.node(name).pid is None for name in names)

    def _rewind(self, to: Mapping[int, int], names: Sequence[str]) -> dict[int, int]:
        """Moves the offsets as soon as the group has no members; partition → how many messages it goes back.

        Where the group has committed nothing, or nothing of the run, it has had nothing that could come again: such a partition stays
        as it is.  Raises ResourceError where the offsets can't be moved.
        """
        refused: list[ResourceError] = []
        back: dict[int, int] = {}

        def moved() -> bool:
            self._hold(names)
            try:
                with admin(self.ground.bootstrap) as client:
                    had = self._committed(client)
                    back.clear()
                    back.update({partition: had[partition] - start for partition, start in to.items() if had.get(partition, 0) > start})
                    move(client, self.asked.group, {(self.asked.topic, partition): to[partition] for partition in back})
                    at = self._committed(client)
            except ResourceError as error:
                refused.append(error)
                return False
            return all(at[partition] == to[partition] for partition in back)

        if not until(lambda: self._stopped() or moved(), EMPTY_S, poll_s=POLL_S):
            raise refused[-1] if refused else ResourceError(f"the offsets of {self.asked.group} in {self.asked.topic} did not move")
        if self._stopped():
            raise ResourceError("the run was stopped")
        return back

    def _committed(self, client: Any) -> dict[int, int]:
        """Partition → what the group has committed of the topic, where it has."""
        found = committed(client, [self.asked.group])[self.asked.group]
        return {partition: offset for (topic, partition), offset in found.items() if topic == self.asked.topic}

    def _caught_up(self, lags: Lags, ends: Mapping[int, int], before: Mapping[Place, Reading]) -> None:
        """Returns when the group has committed all of it again, and for a while nobody was further behind than before.  Raises ResourceError."""
        since = [time.monotonic()]

        def calm() -> bool:
            with suppress(ResourceError):
                now = lags.read()
                at = {partition: now[self.asked.group, self.asked.topic, partition].attrs.get("committed") or 0 for partition in ends}
                if all(at[partition] >= end for partition, end in ends.items()) and not _further(now, before):
                    return time.monotonic() - since[0] >= CALM_S
            since[0] = time.monotonic()
            return False

        caught_up = until(lambda: self._stopped() or calm(), self.asked.within_s, poll_s=POLL_S)
        if self._stopped() or not caught_up:
            raise ResourceError(f"{self.asked.group} had not caught up again in {self.asked.within_s:g} s" if not caught_up else "the run was stopped")


class Lags:
    """How far each consumer group is behind."""

    def __init__(self, ground: Field) -> None:
        self._sampler = LagSampler(ground.bootstrap, subscriptions_of(ground.topology))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sampler.close()

    def read(self) -> dict[Place, Reading]:
        """By group, topic and partition.  Raises ResourceError."""
        try:
            return {(one.attrs["group"], one.attrs["topic"], one.attrs["partition"]): one for one in self._sampler.sample()}
        except Exception as error:  # whatever an engine's client raises: a coordinator that moves, a topic that is not there yet
            raise ResourceError(f"how far groups are behind can't be read: {error}") from error


def _further(now: Mapping[Place, Reading], before: Mapping[Place, Reading]) -> bool:
    """Whether a group is further behind than it was, as far as is known."""
    return any(one.value is not None and one.value > ((was.value or 0) if (was := before.get(place)) else 0) for place, one in now.items())
