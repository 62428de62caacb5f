"""One line of a run's record.  `docs/record.md` is the format's description; these are its typed forms.

Every event has `seq` (1, 2, …, in the order of writing), `at_ns` (nanoseconds since the run's start on the monotonic
clock) and `kind`.  Events are written as one JSON object a line with the names of these fields; fields that are None are
left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the run began or ended (`up`, `seed`, `steady`, `traffic`, `settle`, …)."""

    kind: Literal["step"] = "step"
    at_ns: int
    name: str
    edge: Literal["begin", "end"]
    ok: bool | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One edge of an operation.

    `type`: `invoke`, then exactly one of `ok`, `fail` (known not to have happened) or `info` (unknown outcome).  `process`
    is the logical client; `op` joins the two edges; `due_ns` is the intended start, from which latency counts.
    `value` of `invoke` is the request {"method", "path", "headers", "body"}, of a completion {"status", "body"} or {"error"}.
    """

    kind: Literal["op"] = "op"
    at_ns: int
    op: int
    process: str
    type: Literal["invoke", "ok", "fail", "info"]
    f: str  # name of the operation, such as "place_order"
    key: str | None = None
    value: Any = None
    due_ns: int | None = None  # on invoke
    target: str | None = None  # on invoke: component that is asked
    trace_id: str | None = None  # 32 hex digits


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultEdge:
    """A stage of a fault's contract was passed (`ok`) or not.

    Stages in order: probe, journal, apply, verify, hold, heal, absent, recover.  Beside them stand `detect` (what told of it first, whenever that
    was) and `during` (whether what must hold while it acts did).
    """

    kind: Literal["fault"] = "fault"
    at_ns: int
    id: str
    fault: str
    edge: Literal["probe", "journal", "apply", "verify", "hold", "heal", "absent", "recover", "detect", "during"]
    ok: bool
    summary: str = ""  # one line for a person, such as "19.8 % of 4,210"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One value of a measure.

    Names used: `kafka.consumer_group.lag` (attrs: group, topic, partition, end, committed), `kafka.group.generation`
    (group), `process.cpu` (node; cores), `process.memory` (node; bytes), `postgres.connections` (node), `host.cpu`,
    `envctl.cpu` (role: driver, sampler, injector, intake; cores).
    `value` None means unknown (a group that never committed has an unknown lag, never 0).
    """

    kind: Literal["sample"] = "sample"
    at_ns: int
    measure: str
    value: float | None
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One element of a named stream: something that is, or was, in a topic, a table, or an answer."""

    kind: Literal["observation"] = "observation"
    at_ns: int  # when it was read; for messages, when they were written (broker time, moved to the run's clock)
    stream: str
    id: str | None = None
    key: str | None = None
    order: int | float | None = None
    value: Any = None
    source: Mapping[str, Any] = field(default_factory=dict)  # topic, partition, offset | component, database | trace_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """Something worth keeping that is none of the above (a node's restart, a stop condition, an error's traceback)."""

    kind: Literal["log"] = "log"
    at_ns: int
    level: Literal["debug", "info", "warning", "error"]
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


Event = Step | Op | FaultEdge | Sample | Observation | Log
