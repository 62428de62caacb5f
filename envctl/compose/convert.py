"""Compose files → a topology: which services there are, what kind each is, how they find and wait for each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envctl.compose import engines, kafka
from envctl.compose.engines import Draft, StaysError
from envctl.compose.hosts import component_names
from envctl.compose.links import CONDITIONS, Import, each_of, needs, uses
from envctl.compose.programs import environment_of, program, resources
from envctl.compose.project import Project, load
from envctl.compose.report import Left, Report
from envctl.compose.storage import Places, mounts_of, relative
from envctl.compose.values import Cursor
from envctl.compose.writing import topology_text
from envctl.errors import Problem, SpecError


@dataclass(frozen=True, slots=True)
class Imported:
    """What Compose files became.  Nothing has been written yet."""

    name: str
    topology: str  # the text of topology.yaml
    files: Mapping[Path, str]  # what else is to be written, relative to the stack directory
    left: tuple[Left, ...]  # what was not carried over, in the order of the files


def import_compose(
    files: Sequence[Path], root: Path, environment: Mapping[str, str], *, directory: Path | None = None, profiles: Sequence[str] = (), name: str = ""
) -> Imported:
    """The topology for these Compose files, to be written to `root/stacks/NAME`.

    `environment`: variables for interpolation, before those of `.env`.  `profiles`: those that are on, besides COMPOSE_PROFILES.
    `name`: of the stack, in the place of the project's.  Raises SpecError with file and line of all that is wrong.
    """
    report = Report()
    project = load(files, directory, environment, report.unset)
    model = Cursor(project.model)
    on = {*profiles, *filter(None, environment.get("COMPOSE_PROFILES", "").split(","))}
    services, off = _chosen(model, on, report)
    own_name = model.get("name")
    found = Import(
        project, report, root.resolve(), _stack_name(project, name or own_name), services, component_names(services), {}, dict.fromkeys(off, ""), {}, {},
    )
    model.get("version")
    problems: list[Problem] = []
    for step in (_environments, _engines, _programs, needs, uses):
        for each in step(found):
            problems += each.problems
        if problems:
            raise SpecError(problems)
    if not found.drafts:
        raise model.entries()["services"].error("no service is on", "turn some on by --profile")
    _resources_used(found, model)
    text = topology_text(found.name, [_fields(draft) for draft in found.drafts.values()], [relative(file, found.stack) for file in files])
    made = {path: content for draft in found.drafts.values() for path, content in draft.made.items()}
    return Imported(found.name, text, made, report.finish(model))


def _stack_name(project: Project, name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", (name or project.directory.resolve().name).lower()).strip("-")
    return (slug if slug[:1].isalpha() else f"stack-{slug}")[:50].strip("-")


def _chosen(model: Cursor, on: set[str], report: Report) -> tuple[dict[str, Cursor], list[str]]:
    """The services that are on, and the names of those that only a profile turns on."""
    found: dict[str, Cursor] = {}
    off: list[str] = []
    for name, service in model.entries()["services"].entries().items():
        profiles = service.find("profiles")
        wanted = {each.text() for each in profiles.items()} if profiles else set()
        if wanted and not wanted & on and "*" not in on:
            off.append(name)
            report.tell(service, f"only with `--profile {min(wanted)}`")
        else:
            found[name] = service
    return found, off


def _environments(found: Import) -> list[SpecError]:
    def work(name: str, service: Cursor) -> None:
        found.environments[name] = environment_of(service, found.project.variables, found.report)

    return each_of(found.services, work)


def _engines(found: Import) -> list[SpecError]:
    """The services that are engines become their drafts."""
    brokers: list[kafka.Broker] = []
    keepers: list[str] = []

    def work(name: str, service: Cursor) -> None:
        kind, environment = engines.engine_kind(service, found.report), found.environments[name]
        draft = Draft(found.names[name], service, kind)
        try:
            if kind == "postgres":
                engines.postgres(draft, environment, found.stack, found.report)
            elif kind == "redis":
                engines.redis(draft, environment, found.report)
            elif kind == "kafka":
                kafka.check(broker := kafka.Broker(service, environment))
                brokers.append(broker)
                return
            else:
                keepers.extend([name] if kind == "zookeeper" else [])
                return
        except StaysError as error:
            found.report.note(service, f"it stays a service of its image: {error}")
            return
        found.drafts[draft.name] = draft

    errors = each_of(found.services, work)
    clusters = kafka.clusters_of(brokers, found.names, found.report)
    found.drafts.update({draft.name: draft for draft in clusters.drafts})
    found.gone |= clusters.gone
    found.hosts |= clusters.hosts
    _zookeepers(found, keepers, bool(brokers))
    engines_by_service = {draft.service.name: draft for draft in found.drafts.values()}
    return errors + each_of({name: found.services[name] for name in engines_by_service}, lambda name, _: _finish_engine(found, engines_by_service[name]))


def _zookeepers(found: Import, keepers: list[str], brokers: bool) -> None:
    """Leaves out the ZooKeepers that only brokers of Kafka use."""
    others = {name for name in found.services if name not in found.gone and name not in keepers}
    for name in keepers:
        users = [other for other in others if re.search(rf"(?<![\w.-]){re.escape(name)}:\d", " ".join(found.environments[other].values()))]
        if brokers and not users:
            found.gone[name] = ""
            found.report.tell(found.services[name], "Apache Kafka needs no ZooKeeper here (KRaft)")


def _finish_engine(found: Import, draft: Draft) -> None:
    """What all engines have in common."""
    members = [found.services[name] for name, component in found.gone.items() if component == draft.name] or [draft.service]
    for service in members:
        report = found.report
        report.reasons[service.at] = f"envctl sets up its own {draft.kind}"
        engines.ready_in_its_own_way(replace(draft, service=service), report)
        if files := service.find("env_file"):
            report.note(files, f"envctl sets up its own {draft.kind}: of these only the names of databases and users are taken")
        if (restart := service.find("restart")) and restart.value.data in ("always", "unless-stopped"):
            restart.mark()
        if ports := service.find("ports"):
            report.tell(ports, f"`envctl up` does not publish a {draft.kind}; components reach it under its name")
        for port in service.listed("expose"):
            port.mark()
    resources(draft)


def _programs(found: Import) -> list[SpecError]:
    """All other services become services or jobs."""
    awaited = {
        target
        for service in found.services.values()
        for target, entry in service.mapped("depends_on").items()
        if entry.kind == "mapping" and entry.get("condition") == CONDITIONS[-1]
    }
    volumes = Counter(mount.source for name, service in found.services.items() if name not in found.gone
                      for mount in mounts_of(service) if mount.kind == "volume" and mount.source)
    places = Places(found.root, Cursor(found.project.model), frozenset(name for name, count in volumes.items() if count > 1), found.project.variables)
    taken = {draft.service.name for draft in found.drafts.values()}

    def work(name: str, service: Cursor) -> None:
        if name not in taken and name not in found.gone:
            draft = Draft(found.names[name], service, "job" if name in awaited else "service")
            program(draft, found.environments[name], found.stack, places, found.report)
            found.drafts[draft.name] = draft

    errors = each_of(found.services, work)
    order = [found.gone.get(name) or found.names[name] for name in found.services]
    found.drafts = {name: found.drafts[name] for name in dict.fromkeys(order) if name in found.drafts}
    return errors


def _resources_used(found: Import, model: Cursor) -> None:
    """Volumes that say nothing of themselves are carried over with who uses them; what nobody uses is told as such."""
    programs = [draft.service for draft in found.drafts.values() if draft.kind in ("service", "job")]
    used = {("volumes", mount.source) for service in found.services.values() for mount in mounts_of(service)}
    used |= {(kind, _source(grant)) for service in programs for kind in ("secrets", "configs") for grant in service.listed(kind)}
    for kind in ("volumes", "secrets", "configs"):
        for name, resource in model.mapped(kind).items():
            driver = resource.entries().get("driver") if resource.kind == "mapping" else None
            if (kind, name) not in used:
                found.report.reasons[kind, name] = "nothing that is carried over uses it"
            elif resource.kind == "null":
                resource.mark()
            elif driver and driver.value.data == "local":
                driver.mark()


def _source(grant: Cursor) -> str:
    """Which secret or config a service gets; looking at it is not reading it."""
    data = grant.value.data
    found = data["source"].data if isinstance(data, dict) and "source" in data else data
    return found if isinstance(found, str) else ""


def _fields(draft: Draft) -> dict[str, Any]:
    needs = {"needs": draft.needs} if draft.needs else {}
    return {"name": draft.name, "kind": draft.kind, **needs, **draft.fields}
