"""Asks for the measures that a scenario declares: a query, an answer, a command.

One that can't be measured in its time is unknown: it raises, and its sampler leaves a sample without a value.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from envctl.errors import ResourceError
from envctl.model.environment import Node
from envctl.model.scenario import Measure, Scenario
from envctl.model.topology import Topology
from envctl.record import pick
from envctl.runner.collect import connected
from envctl.runner.sampled import VALUE
from envctl.spec.conditions import subject_of
from envctl.substrates.base import Reach
from envctl.telemetry.lag import DepthSampler
from envctl.telemetry.reading import Reading
from envctl.telemetry.samplers import Sampler, subscriptions_of

MOST = 1 << 20  # bytes of an answer
REFUSED = 400  # from this status on an answer is an error
DEPTH_EVERY_S = 1.0


def samplers_of(scenario: Scenario, reach: Reach, topology: Topology, bootstrap: str) -> Iterator[tuple[Sampler, float]]:
    """What the scenario's conditions need beside what every run samples, and how often each is asked."""
    for measure in scenario.measures.values():
        yield MeasureSampler(measure, reach, topology), measure.every_s
    read = {topic for _, topic in subscriptions_of(topology)}
    unread = sorted({c.subject for c in scenario.conditions if subject_of(c) == "topic"} - read)
    if bootstrap and unread:
        yield DepthSampler(bootstrap, unread), DEPTH_EVERY_S


@dataclass(slots=True)
class MeasureSampler:
    """`value` of one declared measure."""

    measure: Measure
    reach: Reach
    topology: Topology

    def sample(self) -> Iterator[Reading]:
        """Its number.  Raises whatever keeps it from being known, ResourceError when that is no number."""
        ask: Callable[[], Any] = self._row if self.measure.sql else self._answer if self.measure.http else self._output
        begun = time.monotonic()
        value = ask()
        if time.monotonic() - begun > self.measure.timeout_s:
            raise TimeoutError(f"{self.measure.name} took {time.monotonic() - begun:.1f} s")
        if isinstance(value, str):
            value = float(value)
        if not isinstance(value, bool | int | float | Decimal):
            raise ResourceError(f"{self.measure.name} is {value!r}, a number is needed")
        yield Reading(VALUE, float(value), {"name": self.measure.name})

    def unknown(self) -> Iterator[Reading]:
        """Without a value."""
        yield Reading(VALUE, None, {"name": self.measure.name})

    def close(self) -> None:
        """Nothing is held: a connection that is kept would be cut by the faults that it is to tell of."""

    def _row(self) -> Any:
        timeout_s = self.measure.timeout_s
        with connected(self.topology, self.measure, timeout_s=timeout_s) as connection:
            rows = connection.execute(self.measure.sql.encode()).fetchmany(2)
        if len(rows) != 1 or len(rows[0]) != 1:
            raise ResourceError(f"{self.measure.name}: the query answers {len(rows)} rows, one row of one number is needed")
        return rows[0][0]

    def _answer(self) -> Any:
        node = self._node()
        port = node.ports.get("http") or next(iter(node.ports.values()))
        begun = time.monotonic()
        status, body = _get(node.address, port, self.measure.http, begun + self.measure.timeout_s)
        if status >= REFUSED and self.measure.take != "response.status":
            raise ResourceError(f"{self.measure.component} answered {self.measure.http} with status {status}")
        response = {"status": status, "body": _json(body)}
        return pick(self.measure.take, {"response": response, "latency": time.monotonic() - begun})

    def _output(self) -> Any:
        done = self.reach.run(self._node().name, self.measure.command, timeout_s=self.measure.timeout_s)
        if self.measure.take == "status":
            return done.status
        if done.status:
            raise ResourceError(f"{' '.join(self.measure.command)} ended with status {done.status}: {done.stderr.strip()[-200:]}")
        return done.stdout.strip()

    def _node(self) -> Node:
        """The node of that name, or the first ready one of that component.  Raises ResourceError."""
        name = self.measure.component
        for node in self.reach.environment().nodes:
            if node.name == name or (node.component == name and node.state == "ready"):
                return node
        raise ResourceError(f"no node of {name} is ready")


def _get(host: str, port: int, path: str, deadline: float) -> tuple[int, bytes]:
    """Status and body of a GET.  Raises TimeoutError when it has not ended by the deadline, however it dribbles."""
    connection = http.client.HTTPConnection(host, port, timeout=_left(deadline))
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        body = b""
        while len(body) < MOST and (piece := answer.read1(65536)):
            body += piece
            if connection.sock is not None:
                connection.sock.settimeout(_left(deadline))
        _left(deadline)
        return answer.status, body
    finally:
        connection.close()


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no answer in its time")
    return left


def _json(body: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(body or b"null")
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
