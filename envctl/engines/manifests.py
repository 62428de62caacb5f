"""Nodes that are made of Kubernetes manifests: the pod template as it is in production, with what the topology says over it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from envctl.engines.base import Site
from envctl.engines.containers import build_of, sealed_container
from envctl.engines.references import endpoints, resolve
from envctl.model.environment import NodeSpec
from envctl.model.topology import Job, Manifests, Probe, Resources, Service
from envctl.spec.pods import DEFAULT_CONTAINER, container_of, ready_of
from envctl.spec.units import quantity

MAIN = "main"
"""What the component's own container is called in every pod."""

_ACTIONS = {"http": "httpGet", "grpc": "grpc", "tcp": "tcpSocket", "exec": "exec"}


def of_manifests(component: Service | Job, manifests: Manifests, site: Site, bare: NodeSpec, index: int) -> NodeSpec:
    """A component's node of that index; `bare` is what it would be whatever it is made of."""
    template: dict[str, Any] = copy.deepcopy(dict(manifests.template))
    container = container_of(template, manifests.container)
    for name, reference in manifests.images.items():
        each = container_of(template, name)
        each["image"] = _reference(each["image"], reference)
    if component.image:
        container["image"] = component.image.reference or component.name
        container.pop("imagePullPolicy", None)
    claims = tuple(_own_claims(manifests, template, index))
    _number(manifests, template, index)
    known = endpoints(site.topology)
    _set_env(container, {**bare.env, **{key: resolve(value, known) for key, value in component.env.items()}})
    _limit(container, component.resources)
    _prove(container, bare.ready)
    if template["spec"].get("terminationGracePeriodSeconds", 30) != bare.stop_grace_s:
        template["spec"]["terminationGracePeriodSeconds"] = max(1, round(bare.stop_grace_s))
    _call_main(template, manifests.container)
    spec = replace(
        bare, template=template, objects=(*(_reached(each, bare) for each in manifests.objects), *claims), image=container["image"],
        build=build_of(site.topology, component.image) if component.image else None, command=tuple(container.get("args", ())),
        entrypoint=tuple(container["command"]) if "command" in container else None, cwd=container.get("workingDir", "/"), env=dict(_plain(container)),
    )
    return sealed_container(spec)


def _reference(image: str, wanted: str) -> str:
    """An image's reference, or its own with another tag (`:TAG`) or digest (`@DIGEST`)."""
    if not wanted.startswith((":", "@")):
        return wanted
    bare = image.partition("@")[0]
    path, slash, last = bare.rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}{wanted}"


def _set_env(container: dict[str, Any], wanted: Mapping[str, str]) -> None:
    """Sets variables of a container, those that are there in their place: later ones may refer to them.

    Kubernetes replaces `$(NAME)` in values, unless the dollar is doubled.
    """
    given = {name: {"name": name, "value": value.replace("$(", "$$(")} for name, value in wanted.items()}
    there = {each["name"] for each in container.get("env", ())}
    container["env"] = [
        *(given.get(each["name"], each) for each in container.get("env", ())), *(each for name, each in given.items() if name not in there),
    ]


def _plain(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for each in container["env"]:
        if "valueFrom" not in each:
            yield each["name"], each.get("value", "").replace("$$(", "$(")


def _limit(container: dict[str, Any], wanted: Resources) -> None:
    """Sets limits that differ from the container's own; what it requests is no more than they are."""
    resources: dict[str, dict[str, Any]] = container.setdefault("resources", {})
    for name, value in (("cpu", wanted.cpus), ("memory", wanted.memory_bytes)):
        limits, requests = resources.get("limits", {}), resources.get("requests", {})
        if value is None or (name in limits and quantity(str(limits[name])) == value):
            continue
        resources["limits"] = {**limits, name: f"{round(value * 1000)}m" if name == "cpu" else str(value)}
        if name in requests and quantity(str(requests[name])) > value:
            requests[name] = resources["limits"][name]


def _prove(container: dict[str, Any], wanted: Probe | None) -> None:
    """Sets the readiness probe where the topology has another than the manifests; one of logs is left to the substrate."""
    if wanted is None or wanted == ready_of(container):
        return
    action: dict[str, Any] = {"port": wanted.port}
    if wanted.kind == "exec":
        action = {"command": list(wanted.command)}
    elif wanted.kind != "tcp":
        action["path" if wanted.kind == "http" else "service"] = wanted.target
    container.pop("readinessProbe", None)
    if wanted.kind in _ACTIONS:
        container["readinessProbe"] = {_ACTIONS[wanted.kind]: action, "periodSeconds": 1, "successThreshold": max(1, math.ceil(wanted.healthy_for_s))}


def _own_claims(manifests: Manifests, template: Mapping[str, Any], index: int) -> Iterator[Mapping[str, Any]]:
    """The claims that only this node has, under the names that a StatefulSet gives them; its pod has them as volumes."""
    for claim in manifests.claims:
        volume = claim["metadata"]["name"]
        name = f"{volume}-{manifests.ordinals[0] if manifests.ordinals else ''}-{index}"
        others = [each for each in template["spec"].get("volumes", ()) if each["name"] != volume]
        template["spec"]["volumes"] = [*others, {"name": volume, "persistentVolumeClaim": {"claimName": name}}]
        yield {**claim, "metadata": {**claim["metadata"], "name": name}}


def _number(manifests: Manifests, template: dict[str, Any], index: int) -> None:
    """Gives a pod the name, in its own eyes and in the DNS, and the labels that it has in a StatefulSet (its documentation, "Pod Identity")."""
    if not manifests.ordinals:
        return
    workload, service = manifests.ordinals
    name, pod = f"{workload}-{index}", template["spec"]
    pod |= {"hostname": name, **({"subdomain": service} if service else {})}
    labels = template["metadata"].setdefault("labels", {})
    labels |= {"statefulset.kubernetes.io/pod-name": name, "apps.kubernetes.io/pod-index": str(index)}
    for variable in (each for where in ("initContainers", "containers") for container in pod.get(where, ()) for each in container.get("env", ())):
        if variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "metadata.name":
            del variable["valueFrom"]
            variable["value"] = name


def _call_main(template: dict[str, Any], name: str) -> None:
    """Calls the container of that name `main`, and one that is called so by its name; and so does who refers to them."""
    names = {name: MAIN, MAIN: name}
    for container in (*template["spec"]["containers"], *template["spec"].get("initContainers", ())):
        container["name"] = names.get(container["name"], container["name"])
    annotations = template["metadata"].get("annotations", {})
    if DEFAULT_CONTAINER in annotations:
        annotations[DEFAULT_CONTAINER] = MAIN
    _rename(template["spec"], names)


def _rename(value: Any, names: Mapping[str, str]) -> None:
    if isinstance(value, dict) and isinstance(named := value.get("containerName"), str):
        value["containerName"] = names.get(named, named)
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _rename(each, names)


def _reached(each: Mapping[str, Any], bare: NodeSpec) -> Mapping[str, Any]:
    """An object; of the Service by which a component is known, with the ports that others find it at."""
    if each["kind"] != "Service" or each["metadata"]["name"] != bare.component or each["spec"].get("clusterIP") == "None":
        return each
    ports = [{"name": f"port-{port['port']}", **port} for port in each["spec"].get("ports", ())]
    there = {port["port"] for port in ports}
    ports += [{"name": f"port-{number}", "port": number, "targetPort": number} for number in bare.ports.values() if number not in there]
    return {**each, "spec": {**each["spec"], "ports": ports}}
