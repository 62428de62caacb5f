"""The replay driver as the runner's child: a process of its own, so that nothing here disturbs its clock."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from envctl.errors import ResourceError
from envctl.model.environment import Environment
from envctl.model.event import Event, Log, Op, Sample
from envctl.model.scenario import Scenario
from envctl.record import RunManifest
from envctl.replay.config import DriverConfig
from envctl.replay.schedule import schedule
from envctl.runner.live import Expected, Live
from envctl.spec.contracts import contract_files
from envctl.spec.traffic import load_traffic

BEGIN_S = 60.0  # how long the driver may take to start
END_S = 60.0  # how long it may take to wait for its last answers and to end


class Driver:
    """A replay under way.  Operations go to `operated`, everything else it says to `said`; `live` learns what is to come.

    Traffic with a duration goes on after it until `close`, so that what is still to be measured can be.
    """

    def __init__(self, directory: Path, scenario: Scenario, environment: Environment, manifest: RunManifest, *,
                 bootstrap: str, operated: Callable[[Op], None], said: Callable[[Event], object], live: Live) -> None:
        config = _config(scenario, environment, manifest, bootstrap, contract_files(directory / "inputs"))
        file = directory / "replay.json"
        config.save(file)
        self._config, self._lines = config, load_traffic(scenario.traffic.file)
        self._begin_ns = 0
        self._end_s = config.duration_s
        self._operated, self._said, self._live = operated, said, live
        self._broken = ""
        self._begun = threading.Event()
        self._ended = threading.Event()
        reading, writing = os.pipe()
        argv = [sys.executable, "-P", "-m", "envctl.replay.driver", str(file), "--events-fd", str(writing)]
        self._process = subprocess.Popen(argv, pass_fds=(writing,), stdin=subprocess.PIPE, start_new_session=True)
        os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), name="driver", daemon=True)
        self._reader.start()

    def wait_begun(self) -> None:
        """Returns when the first operation is about to start.  Raises ResourceError when it does not come to that."""
        if not self._begun.wait(BEGIN_S):
            self.stop()
            raise ResourceError(f"the replay driver did not begin in {BEGIN_S:.0f} s (status {self._process.poll()})")

    @property
    def planned(self) -> int | None:
        """How many operations the traffic calls for until its end; None where that depends on how fast they are answered."""
        if self._config.model == "closed" and self._end_s is not None:
            return None
        return sum(1 for _ in schedule(self._lines, self._config.rate_per_s, self._end_s))

    @property
    def extended_s(self) -> float:
        """How much longer than its duration the traffic went on."""
        return round(self._end_s - self._config.duration_s, 3) if self._end_s is not None and self._config.duration_s is not None else 0.0

    @property
    def lasting(self) -> bool:
        """Whether the traffic's own time is not over yet."""
        return self.alive and (self._config.duration_s is None or self._since_begin_s() < self._config.duration_s)

    def _since_begin_s(self) -> float:
        return (time.monotonic_ns() - self._config.zero_ns - self._begin_ns) / 1e9

    def close(self) -> None:
        """Nothing needs the traffic any more: it ends when its own time is over, or now."""
        if self._config.duration_s is None or self._process.stdin is None or self._process.stdin.closed:
            return
        self._end_s = max(self._config.duration_s, self._since_begin_s())
        self._live.ends(self._begin_ns + round(self._end_s * 1e9))
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"%r\n" % self._end_s)
            self._process.stdin.close()

    @property
    def alive(self) -> bool:
        """Whether operations may still come."""
        return not self._ended.is_set()

    @property
    def failure(self) -> str:
        """Why the replay did not end well; empty when it did, or is under way."""
        status = self._process.poll()
        return self._broken or ("" if status in (None, 0) else f"the driver ended with status {status}")

    def stop(self) -> None:
        """Ends the replay: nothing more is started, what is under way is waited for."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self, descriptor: int) -> None:
        """Whatever ends it ends the replay too, so that the run never waits for events that can't come."""
        try:
            with os.fdopen(descriptor, "rb") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except Exception as error:  # noqa: BLE001 — a torn line, a full disk: the reason is told with the traffic's end
            self._broken = f"the driver's events could not be taken: {type(error).__name__}: {error}"
            self._process.kill()
        finally:
            self._live.over()
            self._ended.set()
            self._begun.set()

    def _take(self, event: dict[str, Any]) -> None:
        kind = event.pop("kind")
        if kind == "op":
            self._operated(Op(**event))
            return
        if event.get("message") == "replay begins":
            self._begin_ns = event["detail"]["begin_ns"]
            self._expect()
            self._begun.set()
        self._said(Log(**event) if kind == "log" else Sample(**event))

    def _expect(self) -> None:
        """Operations that wait for the turn of their key say nothing before it comes, so their schedule does."""
        if self._config.model == "open" and self._config.in_order:
            dues = schedule(self._lines, self._config.rate_per_s, None if self._config.duration_s is None else math.inf)
            self._live.expect(Expected(due.number, due.line.op, self._begin_ns + round(due.due_s * 1e9)) for due in dues)


def _config(scenario: Scenario, environment: Environment, manifest: RunManifest, bootstrap: str, protos: Iterable[Path]) -> DriverConfig:
    traffic = scenario.traffic
    return DriverConfig(
        traffic=str(traffic.file), to=traffic.to, targets=_targets(environment), zero_ns=manifest.clock_ns,
        rate_per_s=traffic.rate_per_s, duration_s=traffic.duration_s, until_told=traffic.duration_s is not None, model=traffic.model, in_order=bool(traffic.in_order_by),
        timeout_s=traffic.timeout_s, rng_seed=manifest.rng_seed, salt=manifest.id, kafka=bootstrap,
        protos=tuple(map(str, protos)),
    )


def _targets(environment: Environment) -> Mapping[str, Mapping[str, list[str]]]:
    """Component → port name → where its nodes listen, by name: a node that is started again may have another address."""
    targets: dict[str, dict[str, list[str]]] = {}
    for node in environment.nodes:
        for name, port in node.ports.items():
            targets.setdefault(node.component, {}).setdefault(name, []).append(f"{node.name}:{port}")
    return targets
