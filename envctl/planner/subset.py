"""The subset of a topology that a run needs, by the rules of `docs/adr/0001-subset-rules.md`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from envctl.errors import UsageError
from envctl.model.plan import Ask, Plan, Selection, Why
from envctl.model.project import Project
from envctl.model.scenario import Scenario
from envctl.model.topology import Service, Topology
from envctl.planner.changes import Changes
from envctl.planner.identity import configuration, plan_digest
from envctl.planner.reasons import (
    Reason,
    changed_configuration,
    changed_sources,
    fed_by_changes,
    requirements,
    scenario_names,
)
from envctl.spec.document import did_you_mean

LEAST_TTL_S = 10.0  # the moments between two commands that use an environment must not end it
_SHOWN = 5  # unclaimed files named in a note


@dataclass(frozen=True, slots=True)
class Checkout:
    """What is known of a checkout besides its project's files."""

    env_id: str
    changed: Changes = field(default_factory=Changes)
    labels: Mapping[str, str] = field(default_factory=dict)
    source_digests: Mapping[str, str] = field(default_factory=dict)  # component → content hash


@dataclass(slots=True)
class _Subset:
    """Selected components with their first reason, and all that it refers to."""

    topology: Topology
    why: dict[str, Why] = field(default_factory=dict)
    because: dict[str, dict[str, None]] = field(default_factory=dict)

    def add(self, why: Why, reasons: Iterable[Reason]) -> None:
        """Selects components; a later reason of another kind changes nothing."""
        for name, because in reasons:
            if self.why.setdefault(name, why) == why:
                self.because.setdefault(name, {})[because] = None

    def reason(self, name: str) -> str:
        """Why a component is in, in a few words."""
        return f"{self.why[name]}, {next(iter(self.because[name]))}"

    def selections(self) -> tuple[Selection, ...]:
        """What is selected, in the order of the topology."""
        return tuple(Selection(name, self.why[name], tuple(self.because[name])) for name in self.topology.components if name in self.why)


def plan(project: Project, topology: Topology, checkout: Checkout, ask: Ask, scenarios: Sequence[Scenario] = ()) -> Plan:
    """The plan: pure, without a look at files or git; the same input gives the same plan.

    Services that are asked to be stubbed (and those of the scenarios, unless the full topology is asked for) are answered by
    stubs where something calls them, unless they changed.  Raises UsageError for unknown names, for stubs that can't be and
    for a time to live that is too short.
    """
    _check_names(topology, ask.only, ask.stubs)
    subset = _Subset(topology)
    changes, notes = _changes(project, topology, checkout.changed)
    subset.add("changed", changes)
    stubbable = {*ask.stubs, *(name for each in scenarios if not ask.full for name in each.stubs)}
    for scenario in scenarios:
        subset.add("scenario", scenario_names(topology, scenario))
    subset.add("asked", [(name, "asked for") for name in ask.only])
    notes += [f"{name} runs itself and no stub answers for it: {subset.reason(name)}" for name in sorted(stubbable & set(subset.why))]
    stubbable -= set(subset.why)
    subset.add("needed", [reason for reason in fed_by_changes(topology, changes) if reason[0] not in stubbable])
    stubbed = _close(subset, stubbable)
    if ask.full or checkout.changed.unknown:
        subset.add("full", [(name, "the full topology") for name in topology.components if name not in stubbable])
        stubbed = _close(subset, stubbable)
    inside = [name for name in topology.components if name in subset.why or name in stubbed]
    rest = {
        "substrate": ask.substrate or project.substrate, "ttl_s": _ttl_s(ask, project), "env_id": checkout.env_id,
        "labels": dict(checkout.labels), "source_digests": {name: checkout.source_digests.get(name, "") for name in inside},
    }
    return _made(project, subset, stubbed, rest, notes)


def _ttl_s(ask: Ask, project: Project) -> float:
    ttl_s = ask.ttl_s or project.ttl_s
    if ttl_s < LEAST_TTL_S:
        hint = "give a longer --ttl" if ask.ttl_s else "raise `ttl:` in envctl.yaml"
        raise UsageError(f"an environment lives at least {LEAST_TTL_S:.0f} s after its last use, not {ttl_s:g} s", hint=hint)
    return ttl_s


def _check_names(topology: Topology, asked: Sequence[str], stubs: Sequence[str]) -> None:
    for name in (*asked, *stubs):
        if name not in topology.components:
            raise UsageError(f"no component is called {name!r}", hint=did_you_mean(name, topology.components))
    for name in stubs:
        component = topology.components[name]
        if name in asked:
            raise UsageError(f"{name} is asked for and to be stubbed", hint="leave it in one of them")
        if not isinstance(component, Service) or not component.stub:
            raise UsageError(f"no stub can answer for {name}", hint="only for a service that names its examples by `stub: FILE`")


def _changes(project: Project, topology: Topology, changed: Changes) -> tuple[list[Reason], list[str]]:
    """What changed, and what should be known about it."""
    notes = [f"the full topology, because what changed is unknown: {changed.unknown}"] if changed.unknown else []
    sources, unclaimed = changed_sources(topology, project.root, changed.files)
    if unclaimed:
        more = f" and {len(unclaimed) - _SHOWN} more" if len(unclaimed) > _SHOWN else ""
        files = ", ".join(map(str, unclaimed[:_SHOWN]))
        notes.append(f"{files}{more} changed, but no component claims it; add it to the `paths` of those that use it")
    if changed.topology:
        gone = [name for name in changed.topology.components if name not in topology.components]
        notes += [f"{name} is no longer in the topology" for name in gone]
    return [*sources, *changed_configuration(topology, changed)], notes


def _close(subset: _Subset, stubbable: set[str]) -> tuple[str, ...]:
    """Adds what the selected components can't do without; returns the stubs that are called, in the topology's order."""
    topology, called = subset.topology, set()
    waiting = [name for name in topology.components if name in subset.why]
    seen = set(waiting)
    while waiting:
        for target, because in requirements(topology, topology.components[waiting.pop(0)]):
            if target in stubbable:
                called.add(target)
                continue
            subset.add("needed", [(target, because)])
            if target not in seen:
                seen.add(target)
                waiting.append(target)
    return tuple(name for name in topology.components if name in called)


def _made(project: Project, subset: _Subset, stubbed: tuple[str, ...], rest: dict[str, object], notes: list[str]) -> Plan:
    topology, selected = subset.topology, subset.selections()
    inside = {*subset.why, *stubbed}
    components = [configuration(each, topology.zones) for name, each in topology.components.items() if name in inside]
    digest = plan_digest([topology.name, [each.component for each in selected], stubbed, components, rest])
    left_out = tuple(name for name in topology.components if name not in inside)
    return Plan(
        project=project.root, topology=topology, selected=selected, stubbed=stubbed, left_out=left_out, digest=digest,
        notes=tuple(notes), **rest,  # type: ignore[arg-type]  # the named rest of Plan, as made in `plan`
    )
