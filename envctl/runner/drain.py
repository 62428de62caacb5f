"""Keeps the telemetry of a run, once no more of it is on its way."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envctl.engines.program import SCHEDULE_DELAY, SCHEDULE_DELAY_MS
from envctl.model.topology import Topology
from envctl.telemetry import raw
from envctl.telemetry.store import flatten
from envctl.waiting import until

LONGEST_S = 3.0  # how long late spans are waited for, where the services' own delay asks for no more


def quiet_s(topology: Topology) -> float:
    """How long spans must be quiet to be over: twice the longest schedule delay of a service's exporter."""
    delays = [float(SCHEDULE_DELAY_MS)]
    for component in topology.components.values():
        with suppress(ValueError):  # a reference, or what no exporter understands either
            delays.append(float(component.env.get(SCHEDULE_DELAY, 0)))
    return 2 * max(delays) / 1000


@dataclass(frozen=True, slots=True)
class Drain:
    """From the intake's files, as of `since`, to those of the run."""

    source: Path
    since: Mapping[raw.Signal, int]
    target: Path
    quiet_s: float

    def until_whole(self, whole: Callable[[], bool]) -> bool:
        """Waits until spans have been quiet for longer than any exporter holds them back, and keeps what came.

        Where something is missing nevertheless (`whole`, asked of what was kept), the longest time is waited out: an export that
        was refused is repeated after a second or two.  Returns whether it was whole at first sight.
        """
        begun, limit = time.time(), max(LONGEST_S, self.quiet_s)
        until(lambda: time.time() - max(begun, raw.last_span_at(self.source)) >= self.quiet_s, limit)
        self._keep()
        if whole():
            return True
        time.sleep(max(0.0, begun + limit - time.time()))
        self._keep()
        return False

    def _keep(self) -> None:
        raw.copy_since(self.source, self.since, self.target)
        flatten(self.target)
