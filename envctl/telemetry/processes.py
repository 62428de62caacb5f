"""CPU and memory of nodes from /proc, CPU of the machine and of envctl's own part, and how busy PostgreSQL is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from envctl.model.environment import Node
from envctl.substrates.base import Reach
from envctl.substrates.usage import process_of
from envctl.telemetry.reading import Reading

_TICKS = os.sysconf("SC_CLK_TCK")
_DOWN = ("exited", "stopped", "backoff", "held")


class Rate:
    """How fast counters rise.  A key's first value, and one after a gap, has no rate yet."""

    def __init__(self) -> None:
        self._at = 0.0
        self._last: Mapping[Any, float] = {}

    def __call__(self, values: Mapping[Any, float]) -> dict[Any, float]:
        """Rise per second of each key that was there the last time."""
        now = time.monotonic()
        span = max(now - self._at, 1e-9)
        rates = {key: max(0.0, value - self._last[key]) / span for key, value in values.items() if key in self._last}
        self._at, self._last = now, values
        return rates


class ProcessSampler:
    """`process.cpu` (cores) and `process.memory` (bytes) of each node: of all its processes together."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._rate = Rate()
        self._names: tuple[str, ...] = ()

    def sample(self) -> Iterator[Reading]:
        """A node that is down uses nothing; one that only just came has no CPU rate yet."""
        nodes = self._reach.environment().nodes
        self._names = tuple(node.name for node in nodes)
        found = self._reach.usage()
        rates = self._rate({(name, process): cpu for name, seen in found.items() for process, (cpu, _) in seen.items()})
        for node in nodes:
            seen = found.get(node.name, {})
            down = not seen and node.state in _DOWN
            known = [rates[node.name, process] for process in seen if (node.name, process) in rates]
            cpu = sum(known) if known else (0.0 if down else None)
            memory = sum(size for _, size in seen.values()) if seen or down else None
            yield Reading("process.cpu", None if cpu is None else round(cpu, 4), {"node": node.name})
            yield Reading("process.memory", memory, {"node": node.name})

    def unknown(self) -> Iterator[Reading]:
        """Both measures of the nodes that were last there."""
        return (Reading(measure, None, {"node": name}) for name in self._names for measure in ("process.cpu", "process.memory"))

    def close(self) -> None:
        """Nothing is held."""


class HostSampler:
    """`host.cpu`: cores of the machine that are in use, by everybody on it."""

    def __init__(self) -> None:
        self._rate = Rate()

    def sample(self) -> Iterator[Reading]:
        """From the second time on."""
        with Path("/proc/stat").open() as file:
            fields = [int(one) for one in file.readline().split()[1:9]]
        rates = self._rate({"busy": (sum(fields) - fields[3] - fields[4]) / _TICKS})
        return (Reading("host.cpu", round(rate, 4)) for rate in rates.values())

    def unknown(self) -> Iterable[Reading]:
        """Without a value."""
        return (Reading("host.cpu", None),)

    def close(self) -> None:
        """Nothing is held."""


class CostSampler:
    """`envctl.cpu`: cores that this process (role `sampler`: the runner with all its samplers and clients) and the intake use."""

    def __init__(self) -> None:
        self._rate = Rate()
        self._intake: int | None = None
        self._looked = threading.Event()

    def sample(self) -> Iterator[Reading]:
        """The intake is found once, by its command line."""
        if not self._looked.is_set():
            self._intake = _pid_of("envctl.telemetry.intake")
            self._looked.set()
        spent = {"sampler": time.process_time()}
        if self._intake is not None and (seen := process_of(self._intake)):
            spent["intake"] = seen[0]
        return (Reading("envctl.cpu", round(rate, 4), {"role": role}) for role, rate in self._rate(spent).items())

    def unknown(self) -> Iterable[Reading]:
        """Without a value."""
        return (Reading("envctl.cpu", None, {"role": "sampler"}),)

    def close(self) -> None:
        """Nothing is held."""


def _pid_of(module: str) -> int | None:
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdigit():
            try:
                words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if module.encode() in words:
                return int(name)
    return None


class PostgresSampler:
    """Of each node `postgres.connections` (client connections), `postgres.connections_used` (as a share of `max_connections`), and
    `postgres.lock_waits` (those that wait for a lock).
    """

    QUERY = """
    select count(*), count(*)::float / current_setting('max_connections')::int, count(*) filter (where wait_event_type = 'Lock') from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid()
    """

    MEASURES = ("postgres.connections", "postgres.connections_used", "postgres.lock_waits")

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._connections: dict[str, Any] = {}  # by node
        self._names: tuple[str, ...] = ()

    def sample(self) -> Iterator[Reading]:
        """A node that does not answer is unknown; the others are read all the same."""
        nodes = [node for node in self._reach.environment().nodes if node.kind == "postgres"]
        self._names = tuple(node.name for node in nodes)
        for node in nodes:
            found: tuple[float | None, ...] = (None,) * len(self.MEASURES)
            try:
                found = self._ask(node)
            except Exception:  # noqa: BLE001  (a node under a fault; the sample says that nothing is known)
                self._drop(node.name)
            for measure, value in zip(self.MEASURES, found, strict=True):
                yield Reading(measure, value, {"node": node.name})

    def _ask(self, node: Node) -> tuple[float, ...]:
        import psycopg

        if node.name not in self._connections:
            port = next(iter(node.ports.values()), 5432)
            self._connections[node.name] = psycopg.connect(
                host=node.address, port=port, user="postgres", dbname="postgres", connect_timeout=2, autocommit=True,
                application_name="envctl", options="-c statement_timeout=2000", tcp_user_timeout=2000,
            )
        return tuple(self._connections[node.name].execute(self.QUERY).fetchone())

    def _drop(self, name: str) -> None:
        connection = self._connections.pop(name, None)
        if connection is not None:
            connection.close()

    def unknown(self) -> Iterator[Reading]:
        """The measures of the nodes that were last there."""
        return (Reading(measure, None, {"node": name}) for name in self._names for measure in self.MEASURES)

    def close(self) -> None:
        """Closes the connections."""
        for name in tuple(self._connections):
            self._drop(name)
