"""Who needs and who calls whom: `depends_on`, `links`, and names of others in environments and commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from envctl.compose.engines import Draft
from envctl.compose.hosts import Host, Use, rewrite
from envctl.compose.ports import LAST, named
from envctl.compose.project import Project
from envctl.compose.report import Report
from envctl.compose.values import Cursor
from envctl.errors import SpecError
from envctl.spec.topology_rules import find_cycle

CONDITIONS = ("service_started", "service_healthy", "service_completed_successfully")


@dataclass(slots=True)
class Import:
    """What is known while it goes on."""

    project: Project
    report: Report
    root: Path
    name: str
    services: dict[str, Cursor]
    names: dict[str, str]  # service → component
    environments: dict[str, dict[str, str]]
    gone: dict[str, str]  # service → the component in its place; empty: none
    hosts: dict[str, Host]
    drafts: dict[str, Draft]  # by component

    @property
    def stack(self) -> Path:
        """The directory of the topology."""
        return self.root / "stacks" / self.name


def each_of(services: Mapping[str, Cursor], work: Callable[[str, Cursor], None]) -> list[SpecError]:
    """Does the work for every service; the errors of all of them."""
    errors: list[SpecError] = []
    for name, service in services.items():
        try:
            work(name, service)
        except SpecError as error:
            errors.append(error)
    return errors


def needs(found: Import) -> list[SpecError]:
    """What must be ready before."""

    def work(name: str, service: Cursor) -> None:
        component = found.gone.get(name) or found.names[name]
        draft = found.drafts.get(component)
        for target, entry in service.mapped("depends_on").items():
            condition = entry.get("condition") if entry.kind == "mapping" else ""
            required = entry.find("required") if entry.kind == "mapping" else None
            optional = required is not None and not required.true()
            if condition not in ("", *CONDITIONS):
                raise entry.error(f"found {condition!r}, allowed: {', '.join(CONDITIONS)}")
            if entry.kind == "mapping" and (restart := entry.find("restart")):
                found.report.tell(restart, "a component is not started again because one that it needs was")
            needed = _needed(found, target, entry, optional=optional)
            if needed and draft and needed != component and needed not in draft.needs:
                draft.needs.append(needed)
            _check_healthy(found, entry, condition, needed)
        for link in service.listed("links"):
            target, _, alias = link.text().partition(":")
            needed = _needed(found, target, link, optional=False)
            if needed and draft and needed != component and needed not in draft.needs:
                draft.needs.append(needed)
            if alias and alias != target:
                found.report.note(link, f"names are the same for all: {alias} is written {needed} in `env` and commands, nowhere else")

    errors = each_of(found.services, work)
    cycle = find_cycle({name: [need for need in draft.needs if need in found.drafts] for name, draft in found.drafts.items()})
    if cycle and not errors:
        errors.append(found.drafts[cycle[0]].service.error(f"services depend on each other in a circle: {' → '.join(cycle)}"))
    return errors


def _needed(found: Import, target: str, entry: Cursor, *, optional: bool) -> str:
    """The component that a service depends on; empty when that is left out."""
    if target in found.services:
        component = found.gone.get(target, found.names[target])
        if not component:
            found.report.note(entry, f"{target} is left out")
        return component
    if target in found.gone and optional:
        found.report.note(entry, f"{target} is left out")
        return ""
    if target in found.gone:
        raise entry.error(f"{target} is left out, because its profile is not on", "turn it on by --profile")
    if optional:
        found.report.note(entry, f"there is no service {target}")
        return ""
    raise entry.error(f"no service is called {target!r}")


def _check_healthy(found: Import, entry: Cursor, condition: str, needed: str) -> None:
    draft = found.drafts.get(needed)
    if draft and condition == "service_healthy" and draft.kind == "service" and "ready" not in draft.fields:
        found.report.note(entry, f"the Compose file does not say when {needed} is healthy: say it under `ready:`")


def uses(found: Import) -> list[SpecError]:
    """Names of other components in environments and commands are written as they are here, and become `calls` or `needs`."""
    for name in found.services:
        component = found.gone.get(name, found.names[name])
        if component:
            found.hosts.setdefault(name, Host(component, component))
            if component != name and name not in found.gone:
                found.report.note(found.services[name], f"it is called {component} here, which is written in the environments and commands of others, and nowhere else")
    shared = dict(found.hosts)
    for name, service in found.services.items():
        shared |= {alias: found.hosts[name] for alias in _aliases(service) if name in found.hosts and alias not in found.services}
    for draft in found.drafts.values():
        if draft.kind in ("service", "job"):
            _use(found, draft, {**shared, **_linked(found, draft.service)})
    needed = {name for draft in found.drafts.values() for name in draft.needs}
    for draft in found.drafts.values():
        if draft.kind not in ("service", "job") and draft.name not in needed:
            found.report.note(draft.service, "no service says that it uses it: name it under `needs` of those that do, or no subset has it")
    return []


def _aliases(service: Cursor) -> list[str]:
    """Further names under which a service is reached."""
    names = [cursor.value.data for key in ("container_name", "hostname") if (cursor := service.entries().get(key))]
    networks = service.find("networks")
    for network in networks.entries().values() if networks else ():
        aliases = network.find("aliases") if network.kind == "mapping" else None
        names += [each.value.data for each in aliases.items()] if aliases else []
    return [name for name in names if isinstance(name, str) and name]


def _linked(found: Import, service: Cursor) -> dict[str, Host]:
    pairs = [each.text().partition(":") for each in service.listed("links")]
    return {alias: found.hosts[target] for target, _, alias in pairs if alias and target in found.hosts}


def _use(found: Import, draft: Draft, hosts: Mapping[str, Host]) -> None:
    uses: list[Use] = []

    def written(text: str, key: str = "") -> str:
        changed, used = rewrite(text, hosts, key)
        uses.extend(used)
        other = [f"{use.was} is written {use.now}" for use in used if use.was != use.now]
        if other:
            at = draft.service.find("environment", key) if key else draft.service.find("command")
            found.report.note(at or draft.service, ", ".join(dict.fromkeys(other)))
        return changed

    if env := draft.fields.get("env"):
        draft.fields["env"] = {key: written(value, key) for key, value in env.items()}
    image = draft.fields["image"]
    for key in ("command", "entrypoint") if isinstance(image, dict) else ():
        if key in image:
            image[key] = [written(word) for word in image[key]]
    calls: dict[str, str] = {}
    for use in uses:
        other = found.drafts[use.host.component]
        if other is draft or other.kind == "job":
            continue
        if other.kind == "service" and use.port:
            _has_port(other, use.port)
        if other.name in draft.needs:
            continue
        if other.kind == "service" and draft.kind == "service":
            protocol = _protocol(other, use.port)
            calls[other.name] = protocol if calls.get(other.name, "tcp") == "tcp" else calls[other.name]
        elif other.kind != "service":
            draft.needs.append(other.name)
        else:
            found.report.note(draft.service, f"it uses {other.name}, and has it in no `depends_on`: add it to `needs`, unless that needs this job")
    if calls:
        draft.fields["calls"] = calls


def _has_port(draft: Draft, port: int) -> None:
    """A service has the ports at which others call it, also where the Compose files don't say so."""
    ports: dict[str, int] = draft.fields.get("ports", {})
    if port not in ports.values() and 0 < port <= LAST:
        draft.fields["ports"] = {each.name: each.number for each in named({**{number: name for name, number in ports.items()}, port: ""}, 0)}


def _protocol(other: Draft, port: int) -> str:
    ports = other.fields.get("ports", {})
    name = next((name for name, number in ports.items() if number == port), "http" if not port else "tcp")
    return name if name in ("http", "grpc") and name in ports else "tcp"
