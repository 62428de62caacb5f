"""Which components this run needs, each with the reason why it is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from envctl.model.topology import Topology

Why = Literal["changed", "needed", "scenario", "asked", "full"]


@dataclass(frozen=True, slots=True)
class Selection:
    """One component of the subset and the first reason that selected it.

    `because` is what the reason refers to: the changed files and fields, the components that need it and how, the scenario
    and what in it names the component.
    """

    component: str
    why: Why
    because: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What a plan is asked to be; empty and zero mean what the project says."""

    full: bool = False
    only: tuple[str, ...] = ()  # components in the place of what changed
    stubs: tuple[str, ...] = ()  # services that a stub answers for
    base: str = ""  # the branch or commit to compare with
    substrate: str = ""
    ttl_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Subset + substrate + environment id + lease; a pure value.  `digest` covers everything but the reasons and notes."""

    env_id: str
    project: Path  # root of the user's repository
    topology: Topology
    substrate: str
    selected: tuple[Selection, ...]  # in topology order
    stubbed: tuple[str, ...]  # called, left out, answered by a stub (unverified)
    left_out: tuple[str, ...]
    ttl_s: float
    labels: Mapping[str, str]  # envctl.dev/… → value
    source_digests: Mapping[str, str]  # component → content hash of its sources, configuration and build
    digest: str
    disks: Mapping[str, int] = field(default_factory=dict)  # component or node → size of its `/data`, where the scenario fills it
    notes: tuple[str, ...] = ()  # what a person should know about how the subset came about

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the selected components, in topology order."""
        return tuple(selection.component for selection in self.selected)

    @property
    def summary(self) -> str:
        """`9 of 14 components: orders changed; bus, shop-db needed; fraud stubbed (unverified)`."""
        reasons: dict[str, list[str]] = {}
        for selection in self.selected:
            reasons.setdefault(selection.why, []).append(selection.component)
        parts = [f"{', '.join(names[:3])}{' …' if len(names) > 3 else ''} {why}" for why, names in reasons.items()]
        parts += [f"{', '.join(self.stubbed)} stubbed (unverified)"] if self.stubbed else []
        return f"{len(self.selected)} of {len(self.topology.components)} components: {'; '.join(parts)}"
