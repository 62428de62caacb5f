"""What a pod template says: what its pods refer to, and how their own container is reached, proved and limited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envctl.model.topology import Declared, Probe, Resources
from envctl.spec.document import Location
from envctl.spec.units import quantity

DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
_KINDS = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret", "configMapRef": "ConfigMap", "secretRef": "Secret"}


@dataclass(frozen=True, slots=True)
class Reference:
    """An object that pods refer to by name, and where in the template.  `variable` is (container, variable), if it is for one."""

    kind: str
    name: str
    at: Location
    needed: bool = True
    variable: tuple[str, str] | None = None


def references(template: Mapping[str, Any]) -> Iterator[Reference]:
    """Everything that a template (of the right structure) refers to."""
    pod = template["spec"]
    account = pod.get("serviceAccountName") or pod.get("serviceAccount") or "default"
    yield Reference("ServiceAccount", account, ("spec", "serviceAccountName"), account != "default")
    for index, secret in enumerate(pod.get("imagePullSecrets", ())):
        yield Reference("Secret", secret.get("name", ""), ("spec", "imagePullSecrets", index), needed=False)
    for index, volume in enumerate(pod.get("volumes", ())):
        yield from _of_volume(volume, ("spec", "volumes", index))
    for where in ("initContainers", "containers"):
        for index, container in enumerate(pod.get(where, ())):
            yield from _of_container(container, ("spec", where, index))


def _of_volume(volume: Mapping[str, Any], at: Location) -> Iterator[Reference]:
    if claim := volume.get("persistentVolumeClaim"):
        yield Reference("PersistentVolumeClaim", claim["claimName"], at)
    sources = ((volume, at), *((each, (*at, "projected", "sources", index)) for index, each in enumerate(volume.get("projected", {}).get("sources", ()))))
    for source, where in sources:
        for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if (found := source.get(field)) is not None:
                yield Reference(kind, found.get("name") or found.get("secretName", ""), (*where, field), not found.get("optional", False))


def _of_container(container: Mapping[str, Any], at: Location) -> Iterator[Reference]:
    for index, variable in enumerate(container.get("env", ())):
        for word, source in variable.get("valueFrom", {}).items():
            if word in _KINDS:
                where = (*at, "env", index, "valueFrom", word)
                yield Reference(_KINDS[word], source.get("name", ""), where, not source.get("optional", False), (container["name"], variable["name"]))
    for index, source in enumerate(container.get("envFrom", ())):
        for word in source.keys() & _KINDS.keys():
            yield Reference(_KINDS[word], source[word].get("name", ""), (*at, "envFrom", index, word), not source[word].get("optional", False))


def main_container(template: Mapping[str, Any], *names: str) -> str:
    """The container of the component itself: the annotated one, else the first of these names that one has, else the first."""
    annotated = template.get("metadata", {}).get("annotations", {}).get(DEFAULT_CONTAINER, "")
    containers = [each["name"] for each in template["spec"]["containers"]]
    return next((name for name in (annotated, *names, "main") if name in containers), str(containers[0]))


def container_of(template: Mapping[str, Any], name: str) -> Any:
    """The container of that name, among the init containers too."""
    pod = template["spec"]
    return next(each for each in (*pod["containers"], *pod.get("initContainers", ())) if each["name"] == name)


def declared(template: Mapping[str, Any], name: str, replicas: int, services: Sequence[Mapping[str, Any]]) -> Declared:
    """What a template says of its container `name`.  Ports without a name get it from the Services that lead to them."""
    container = container_of(template, name)
    limits = container.get("resources", {}).get("limits", {})
    memory = limits.get("memory")
    resources = Resources(
        quantity(str(limits["cpu"])) if "cpu" in limits else None, int(quantity(str(memory))) if memory is not None else None
    )
    grace_s = float(template["spec"].get("terminationGracePeriodSeconds", 30))
    return Declared(max(replicas, 1), _ports(container, services), ready_of(container), resources, grace_s)


def _ports(container: Mapping[str, Any], services: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    names = {
        port.get("targetPort", port["port"]): port["name"]
        for service in services for port in service["spec"].get("ports", ()) if "name" in port
    }
    found: dict[str, int] = {}
    for port in container.get("ports", ()):
        number = port["containerPort"]
        if port.get("protocol", "TCP") == "TCP" and number not in found.values():
            found[port.get("name") or names.get(number) or f"port-{number}"] = number
    return found


def ready_of(container: Mapping[str, Any]) -> Probe | None:
    """Its readiness probe; of one over HTTPS, that its port accepts."""
    probe = container.get("readinessProbe", {})
    named = {each.get("name"): each["containerPort"] for each in container.get("ports", ())}
    kind = next((word for word in ("httpGet", "grpc", "tcpSocket", "exec") if word in probe), "")
    if kind == "exec":
        return Probe("exec", command=tuple(probe["exec"]["command"]))
    if not kind:
        return None
    asked = probe[kind]
    port = asked["port"]
    number = int(port) if isinstance(port, int) or port.isdecimal() else named.get(port, 0)
    if kind == "grpc":
        return Probe("grpc", number, asked.get("service", ""))
    if kind == "httpGet" and asked.get("scheme", "HTTP") == "HTTP":
        return Probe("http", number, asked.get("path", "/"))
    return Probe("tcp", number)
