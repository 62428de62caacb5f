"""`pass`, `fail` or `inconclusive`, with the findings that led to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from envctl.errors import Exit

Outcome = Literal["pass", "fail", "inconclusive"]

EXITS: Mapping[Outcome, Exit] = {"pass": Exit.PASS, "fail": Exit.FAIL, "inconclusive": Exit.INCONCLUSIVE}
"""The exit code of a process that was asked for a verdict."""


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """`fail > inconclusive > pass`; of nothing it is `inconclusive`, because no evidence is never a pass."""
    seen = set(outcomes)
    if "fail" in seen:
        return "fail"
    return "pass" if seen == {"pass"} else "inconclusive"


@dataclass(frozen=True, slots=True)
class Evidence:
    """One instance of what a finding is about: an operation, a message, a trace.

    `summary` is one line (or a few) a person can act on.
    """

    summary: str
    ids: tuple[str, ...] = ()
    at_ns: int | None = None
    faults: tuple[str, ...] = ()  # ids of the faults whose windows it overlaps
    traces: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check, objective, fault or condition says about a run."""

    id: str  # as in the scenario, such as "no-loss" or "no-loss-2"; "fault:packet-loss"; "slo:p95"
    check: str
    outcome: Outcome
    title: str  # "3 of 1,498 accepted orders were never settled"
    group: Literal["check", "slo", "fault", "steady", "telemetry", "run"] = "check"
    evidence: tuple[Evidence, ...] = ()  # the first few, worst first
    total: int = 0  # how many instances there are in all
    stats: Mapping[str, Any] = field(default_factory=dict)
    waived: str = ""  # "owner until 2026-12-01: reason"; a waived finding is shown and doesn't count
    fixed: bool = False  # it follows from the scenario and the project's settings alone: no other run can say more


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer of a run."""

    outcome: Outcome
    findings: tuple[Finding, ...]
    unverified: tuple[str, ...] = ()  # stubbed components
    notes: tuple[str, ...] = ()
    reproduce: str = ""  # the one command that runs the same again

    @property
    def fixed(self) -> tuple[str, ...]:
        """The findings because of which every run of the scenario is inconclusive, at best."""
        return tuple(each.id for each in self.findings if each.fixed and each.outcome == "inconclusive" and not each.waived)
