"""The plan for a checkout: what git says is put together with what was asked for."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import replace

from envctl.model.plan import Ask, Plan
from envctl.model.project import Project
from envctl.model.scenario import Scenario
from envctl.model.topology import Topology
from envctl.planner.changes import Changes, Repository, changes, repository
from envctl.planner.identity import environment_id
from envctl.planner.subset import Checkout, plan

_NOTHING = Ask()


def plan_project(
    project: Project,
    topology: Topology,
    scenario: Scenario | None = None,
    ask: Ask = _NOTHING,
    *,
    digests: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for this checkout, whose sources have these digests, against the base that is asked for.

    Where nothing changed and nothing is named, it is the full topology, with a note.  Raises UsageError as `plan` does, and
    for a named base that does not exist.
    """
    found = repository(project.root)
    changed = Changes() if ask.only else changes(project, ask.base)
    if ask.full:
        changed = replace(changed, unknown="")
    env_id = environment_id(project.root, found.name, found.ref)
    checkout = Checkout(env_id, changed, _labels(env_id, found, topology), digests or {})
    scenarios = (scenario,) if scenario else ()
    made = plan(project, topology, checkout, ask, scenarios)
    if made.selected:
        return made
    note = f"the full topology, because nothing changed against {changed.base} and nothing was asked for"
    made = plan(project, topology, checkout, replace(ask, full=True), scenarios)
    return replace(made, notes=(*made.notes, note))


def _labels(env_id: str, found: Repository, topology: Topology) -> dict[str, str]:
    labels = {
        "envctl.dev/env": env_id, "envctl.dev/repo": found.name, "envctl.dev/ref": found.ref,
        "envctl.dev/stack": topology.name, "envctl.dev/owner": _user(),
    }
    pull = found.ref.removeprefix("pr-")
    return {**labels, "envctl.dev/pr": pull} if pull.isdigit() and pull != found.ref else labels


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return "unknown"
