"""The plan for a checkout: what git says is put together with what was asked for."""

from __future__ import annotations

import getpass
from collections.abc import Mapping, Sequence
from dataclasses import replace

from envctl.model.plan import Plan
from envctl.model.project import Project
from envctl.model.scenario import Scenario
from envctl.model.topology import Topology
from envctl.planner.changes import Changes, Repository, changes, repository
from envctl.planner.identity import environment_id
from envctl.planner.subset import plan


def plan_project(
    project: Project,
    topology: Topology,
    scenario: Scenario | None = None,
    *,
    asked: Sequence[str] = (),
    stubs: Sequence[str] = (),
    full: bool = False,
    base: str = "",
    substrate: str = "",
    ttl_s: float = 0.0,
    digests: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for this checkout against `base` (empty: the project's).

    `asked` components stand in the place of what changed.  Where nothing changed and nothing is named, it is the full
    topology, with a note.  Raises UsageError for unknown names and for a named base that does not exist.
    """
    checkout = repository(project.root)
    changed = Changes() if asked else changes(project, base)
    if full and changed.unknown:
        changed = Changes()
    options = {
        "env_id": environment_id(project.root, checkout.name, checkout.ref), "asked": asked, "stubs": stubs, "changed": changed,
        "scenarios": (scenario,) if scenario else (), "source_digests": digests, "substrate": substrate, "ttl_s": ttl_s,
    }
    options["labels"] = _labels(str(options["env_id"]), checkout, topology)
    made = plan(project, topology, full=full, **options)  # type: ignore[arg-type]
    if made.selected:
        return made
    note = f"the full topology, because nothing changed against {changed.base} and nothing was asked for"
    made = plan(project, topology, full=True, **options)  # type: ignore[arg-type]
    return replace(made, notes=(*made.notes, note))


def _labels(env_id: str, checkout: Repository, topology: Topology) -> dict[str, str]:
    labels = {
        "envctl.dev/env": env_id, "envctl.dev/repo": checkout.name, "envctl.dev/ref": checkout.ref,
        "envctl.dev/stack": topology.name, "envctl.dev/owner": _user(),
    }
    pull = checkout.ref.removeprefix("pr-")
    return {**labels, "envctl.dev/pr": pull} if pull.isdigit() and pull != checkout.ref else labels


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        return "unknown"
