"""When the runner takes the telemetry for whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.model.topology import Service, Source, Topology
from envctl.runner.drain import Drain, quiet_s
from envctl.telemetry import raw


class Exporter:
    """Writes a request as the intake does, when it is told to."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._writer = raw.RawWriter(raw.path_of(directory, "traces"))
        self._timers: list[threading.Timer] = []
        self.drain = Drain(directory, raw.positions(directory), directory.parent / "kept", 0.4)

    def at(self, *seconds: float) -> None:
        """A request after each of these times."""
        for after in seconds:
            self._timers.append(threading.Timer(after, lambda: self._writer.append(b"", time.time_ns())))
            self._timers[-1].start()

    def kept(self) -> int:
        return sum(1 for _ in raw.read(raw.path_of(self.drain.target, "traces")))

    def close(self) -> None:
        for timer in self._timers:
            timer.join()
        self._writer.close()


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    one = Exporter(tmp_path / "live")
    yield one
    one.close()


def test_quiet_and_whole_telemetry_is_not_waited_for(exporter: Exporter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.runner.drain.LONGEST_S", 100_000.0)
    exporter.at(0)
    assert exporter.drain.until_whole(lambda: True)


def test_spans_that_follow_each_other_are_all_collected(exporter: Exporter) -> None:
    exporter.drain = replace(exporter.drain, quiet_s=1.5)  # far more than between two of them, also on a machine that stalls
    exporter.at(0.25, 0.5, 0.75, 1.0)
    assert exporter.drain.until_whole(lambda: exporter.kept() == 4)


def test_a_late_span_that_is_missed_is_waited_for(exporter: Exporter) -> None:
    exporter.at(0, 1.5)
    assert not exporter.drain.until_whole(lambda: exporter.kept() == 2)
    assert exporter.kept() == 2


def test_telemetry_that_never_ends_is_not_waited_for_for_ever(exporter: Exporter) -> None:
    exporter.at(*(number / 5 for number in range(40)))
    exporter.drain.until_whole(lambda: True)
    assert 0 < exporter.kept() < 40


def test_an_exporter_that_holds_back_longer_is_given_longer() -> None:
    def topology(**env: str) -> Topology:
        return Topology("t", Path("t.yaml"), (), {"s": Service(name="s", source=Source("tree", "."), command=("s",), env=env)})

    assert quiet_s(topology()) == quiet_s(topology(OTEL_BSP_SCHEDULE_DELAY="${other.delay}")) == 1.0
    assert quiet_s(topology(OTEL_BSP_SCHEDULE_DELAY="5000")) == 10.0
