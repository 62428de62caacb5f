"""What happens to an environment, and what must hold: replayed traffic, a timeline of faults, conditions and checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Comparison = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Condition:
    """`measure(subject) comparison number unit [for duration]`, the one expression language.

    `threshold` is in base units: ratios as 0–1, times in seconds, everything else as it stands.
    """

    text: str
    measure: str  # "success_rate", "p50", "p95", "p99", "lag", "error_rate", "throughput", …
    subject: str  # "traffic", an operation, a consumer group, a node or component
    comparison: Comparison
    threshold: float
    hold_s: float = 0.0  # must hold without a break for this long
    line: int = 0
    quantity: str = ""  # "ratio", "time", "count", "rate"; empty: what is usual for the measure


@dataclass(frozen=True, slots=True)
class Measure:
    """A declared measure: one number, asked for every so often while a run goes on.  Exactly one of the sources is set.

    `sql`: the only value of the only row of a query on `component`/`database`.  `http`: of a GET on `component`, what `take` names
    (`response.status`, a field of the JSON such as `response.queue.depth`, or `latency` in seconds).  `command`: of a command in the first
    ready node of `component` (or in the node of that name), what `take` names: the number on `stdout`, or the exit `status`.
    """

    name: str
    sql: str = ""
    http: str = ""
    command: tuple[str, ...] = ()
    component: str = ""
    database: str = ""
    take: str = ""
    every_s: float = 1.0
    timeout_s: float = 1.0  # without an answer after this long the value is unknown
    line: int = 0


@dataclass(frozen=True, slots=True)
class Detect:
    """What has to notice a fault: one of the conditions `by` comes to hold, at most `within_s` after its effect began."""

    within_s: float | None = None  # None: it is measured, not judged
    by: tuple[Condition, ...] = ()  # none: the first violated condition of `steady` and `during`, or a tripped one of `stop`


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is replayed, and how fast."""

    file: Path
    to: str  # component that receives operations which name none
    rate_per_s: float | None  # None: the file's own offsets
    duration_s: float | None  # None: once through the file
    model: Literal["open", "closed"] = "open"
    in_order_by: str = ""  # name of the key whose operations keep their order
    timeout_s: float = 5.0  # an operation without an answer after this long has an unknown outcome
    receivers: tuple[str, ...] = ()  # components that operations of the file name themselves, or whose topics they write to
    line: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """A named stream of observations (key, id, order, value).

    Exactly one of the sources is set.  `operation`: acknowledged operations of that name, fields from `request.…`,
    `response.…`.  `topic`: every message of a topic, fields from `value.…`, `key`, `headers.…`.  `sql`: rows of a query on
    `component`/`database`, fields are columns.  `http`: a GET on `component` that answers a JSON list.
    `fields` maps `id`, `key`, `order`, `value` to such expressions.
    """

    name: str
    operation: str = ""
    topic: str = ""
    sql: str = ""
    http: str = ""
    component: str = ""
    database: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """One fault of the timeline.  It starts at `at_s`, or when the faults `after` have healed and recovered."""

    id: str  # unique in the scenario: `id:` in the file, else the fault's name, else name-2, …
    fault: str  # plug-in name, such as "packet-loss"
    at_s: float | None
    after: tuple[str, ...]  # ids of the faults whose recovery starts this one; empty when at_s is set
    for_s: float | None  # how long it is held; None: instantaneous
    params: Mapping[str, Any]  # parameters of the fault kind, checked by its own schema
    line: int = 0
    place: tuple[str | int, ...] = ()  # where its entry stands in the file; that of a repeated one is the same
    during: tuple[Condition, ...] = ()  # must hold while it acts, beside the scenario's own
    detect: Detect | None = None  # in place of the scenario's own
    recover_within_s: float | None = None  # in place of the scenario's own
    escalation: str = ""  # the escalation that it is a step of
    step: int = 0  # which one, from 1
    steps: int = 0  # of how many


@dataclass(frozen=True, slots=True)
class Limits:
    """Blast radius; checked before anything is applied, oversize is refused."""

    max_nodes: int | None = None
    max_zones: int | None = None
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class CheckSpec:
    """One check by its plug-in name, with parameters checked by its own schema."""

    id: str
    check: str
    params: Mapping[str, Any]
    line: int = 0


@dataclass(frozen=True, slots=True)
class Slo:
    """Objectives over the replayed traffic, and over all faults.  Latencies count from the intended start, in seconds, by percentile."""

    availability: float | None = None  # 0–1
    latency_s: Mapping[str, float] = field(default_factory=dict)  # {"p95": 0.8}
    line: int = 0
    detect_s: float | None = None  # each fault is noticed within
    recover_s: float | None = None  # the steady state holds again within, from each fault's healing


@dataclass(frozen=True, slots=True)
class Scenario:
    """One `scenarios/NAME.yaml`."""

    name: str
    file: Path
    traffic: Traffic
    stack: str = ""  # name of the topology it is for; empty: the project's
    owner: str = ""
    description: str = ""
    suites: tuple[str, ...] = ()
    rng_seed: int = 0
    seed: str = ""  # name of a seed, or empty
    powers: tuple[str, ...] = ()  # what it needs of a substrate that not every one has
    takes: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ()  # services that are left out and answered by a stub
    streams: Mapping[str, Stream] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    steady: tuple[Condition, ...] = ()
    faults: tuple[FaultSpec, ...] = ()
    limits: Limits = Limits()
    stop: tuple[Condition, ...] = ()
    during: tuple[Condition, ...] = ()  # must hold while faults act
    detect: Detect = Detect()
    recover_within_s: float = 30.0
    checks: tuple[CheckSpec, ...] = ()
    slo: Slo = Slo()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them, wherever they stand."""
        own = (condition for fault in self.faults for condition in (*fault.during, *(fault.detect.by if fault.detect else ())))
        return (*self.steady, *self.stop, *self.during, *self.detect.by, *own)
