"""What a report says, as values: built once from the record, then written in four forms.

Times are seconds since the run's start; None is unknown.  `docs/report.md` describes these fields as `report/v1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from envctl.model.verdict import Finding, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What ran."""

    id: str
    scenario: str
    description: str
    owner: str
    stack: str
    commit: str
    branch: str
    seed: str
    rng_seed: int
    repetition: int
    started_at: str  # ISO 8601, UTC
    duration_s: float | None
    whole: bool  # the run got as far as its own end
    machine: Mapping[str, str | int | float]
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The run in numbers.  Latencies count from the intended start; those of unanswered operations are unbounded (None)."""

    operations: int
    ok: int
    failed: int
    unknown: int
    unsent: int
    success: float | None  # of those that objectives count: all that were sent, and those whose turn never came
    p50_s: float | None
    p95_s: float | None
    p99_s: float | None
    rate_per_s: float | None
    peak_lag: Mapping[str, int]  # by consumer group
    spans: int
    traces: int
    late_p99_s: float | None  # how late the driver itself started operations


@dataclass(frozen=True, slots=True)
class Series:
    """One line or row of bars: a value for each bucket, None where nothing is known."""

    name: str
    values: tuple[float | None, ...]
    shape: Literal["line", "bar"] = "line"


@dataclass(frozen=True, slots=True)
class Track:
    """Series with one unit and one axis.  `note` tells what is measured, or why there is nothing."""

    name: str
    title: str
    unit: str  # "s", "/s", "cores", …
    series: tuple[Series, ...]
    note: str = ""
    limit: float | None = None  # an objective to draw


@dataclass(frozen=True, slots=True)
class Window:
    """A fault on the timeline: it acted from `start_s`, was gone at `end_s`, the system had recovered at `recover_s`."""

    id: str
    label: str
    outcome: Outcome | None
    start_s: float
    heal_s: float | None
    end_s: float | None
    recover_s: float | None


@dataclass(frozen=True, slots=True)
class Marker:
    """Something that happened at one instant."""

    kind: Literal["generation", "restart", "stop", "detection"]
    at_s: float
    label: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """Tracks over the same buckets; bucket i spans [i · bucket_s, (i + 1) · bucket_s)."""

    bucket_s: float
    end_s: float
    tracks: tuple[Track, ...] = ()
    windows: tuple[Window, ...] = ()
    markers: tuple[Marker, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of the scenario: what was asked, what was measured, how the system took it.

    `detect_s` is from its effect until the first condition told of it, `symptom_s` from just before it acted until the first operation under it
    was known to have failed, to be unanswered, or to be slower than the scenario's strictest latency limit.  `recover_s` is from the healing
    until the steady state held.
    """

    id: str
    fault: str
    outcome: Outcome | None
    asked: str
    mechanism: str  # that was chosen here, where its kind has several; empty: it has one
    measured: str
    title: str
    start_s: float | None
    end_s: float | None
    step: str  # of an escalation: "2 of 3 of growing"
    detect_s: float | None  # None: no condition told of it, or none was asked, or it never acted
    detected_by: str  # the condition, or why there is none
    symptom_s: float | None  # None: no operation was seen to suffer, or it never acted
    symptom: str
    tolerated: str  # how what must hold meanwhile held; empty: nothing had to
    recover_s: float | None
    stages: tuple[tuple[str, bool, float, str], ...]  # (stage, ok, at, summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """One objective with its error budget: how many operations may be bad, and how many were."""

    id: str
    outcome: Outcome
    title: str
    asked: str
    seen: str
    allowed: int | None
    used: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """A node as it was when the run began, and what happened to it since."""

    name: str
    component: str
    kind: str
    zone: str
    version: str
    restarts: int
    exits: str  # "137 at 23.90 s"
    peak_cpu: float | None  # cores
    peak_memory: float | None  # bytes
    log: str  # path relative to the run, if there is one


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A span of a waterfall.  `wait_s` is how long its message lay in the topic; `depth` its place in the tree."""

    span_id: str
    name: str
    service: str
    node: str
    kind: str
    depth: int
    start_s: float  # since the trace's first span
    duration_s: float
    error: str
    orphan: bool
    messaging: str  # "orders.placed/2@311"
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceView:
    """A trace worth looking at, and why."""

    trace_id: str
    why: str
    operation: str
    at_s: float
    length_s: float
    bars: tuple[Bar, ...]
    left_out: int  # spans that are not shown


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRow:
    """A component of the topology: whether it took part, and why."""

    name: str
    kind: str
    part: Literal["in", "stubbed", "out"]
    why: str
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """One component uses another: it needs it, calls it (`via` is the protocol), or reads what it writes (`via` is the topic)."""

    source: str
    target: str
    kind: Literal["needs", "calls", "sends"]
    via: str = ""


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file of the run's directory."""

    path: str
    what: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMortem:
    """The known half of a post-mortem."""

    tried: tuple[str, ...]
    expected: tuple[str, ...]
    seen: tuple[str, ...]
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that is told about one run.  `outcome` None: not judged.  `gaps` is what the record lacks, in words."""

    run: Run
    outcome: Outcome | None
    findings: tuple[Finding, ...]
    unverified: tuple[str, ...]
    notes: tuple[str, ...]
    reproduce: str
    gaps: tuple[str, ...]
    figures: Figures
    timeline: Timeline
    faults: tuple[Fault, ...]
    objectives: tuple[Objective, ...]
    nodes: tuple[NodeRow, ...]
    components: tuple[ComponentRow, ...]
    links: tuple[Link, ...]
    traces: tuple[TraceView, ...]
    cost: Mapping[str, tuple[float, float]]  # role of envctl → (mean, peak) cores
    files: tuple[FileRow, ...]
    post_mortem: PostMortem
