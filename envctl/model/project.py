"""A project's defaults: what `envctl.yaml` at the root of the user's repository says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Suite:
    """How the scenarios of one suite are run."""

    inconclusive: Literal["fail", "retry", "warn"] = "retry"
    scenarios: tuple[str, ...] = ()  # empty: those that name the suite
    every: bool = False  # True: all scenarios of the project
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Waiver:
    """A finding of one scenario that somebody answers for until a day; it is shown and doesn't count."""

    scenario: str  # its name
    finding: str  # its id, such as "no-loss" or "slo:p95"
    owner: str
    reason: str
    expires: date  # the last day on which it holds


@dataclass(frozen=True, slots=True)
class Gate:
    """What the verdict is made of."""

    slo: Literal["all", "none"] = "all"
    stubs_unverified: Literal["warn", "fail", "ignore"] = "warn"
    waivers: tuple[Waiver, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """One user's repository."""

    root: Path
    stack: Path  # the stack directory, absolute
    base: str = "origin/main"
    substrate: str = "embedded"
    ttl_s: float = 7200.0
    suites: Mapping[str, Suite] = field(default_factory=dict)
    gate: Gate = Gate()

    @property
    def topology_file(self) -> Path:
        """The topology of the stack."""
        return self.stack / "topology.yaml"

    @property
    def scenarios(self) -> Path:
        """The directory of the scenario files."""
        return self.root / "scenarios"

    @property
    def seeds(self) -> Path:
        """The directory of the seeds, one directory each."""
        return self.root / "seeds"
