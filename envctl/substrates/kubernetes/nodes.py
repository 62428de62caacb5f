"""What a node is as objects of Kubernetes: its variables, files, names and workload."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from envctl.engines.containers import OWN_IMAGE
from envctl.errors import ResourceError
from envctl.model.environment import NodeSpec
from envctl.model.topology import Probe
from envctl.substrates.kubernetes.identity import COMPONENT, DIGEST, MAIN, NODE, SPEC, ZONE, Identity
from envctl.substrates.kubernetes.objects import (
    CONFINED,
    KEEPER_USER,
    OURS,
    REQUEST_BYTES,
    REQUEST_CPUS,
    SKIP_AWAIT,
    UNMOVED,
    Object,
    literal,
    object_of,
)

_FILES_MAX = 1 << 20  # bytes in a ConfigMap
_VOLUME = "1Gi"


def node_objects(identity: Identity, spec: NodeSpec, image: Any) -> list[Object]:
    """The node's variables, files, names and workload.  `image` may be a reference to come."""
    labels = {NODE: spec.name, COMPONENT: spec.component}
    made = [_own(identity, spec, thing) for thing in spec.objects]
    named = {thing["metadata"]["name"] for thing in made if thing["kind"] == "Service"}
    names = {spec.component: {COMPONENT: spec.component}, spec.name: {NODE: spec.name}}
    made += [_names(identity, name, selector) for name, selector in names.items() if name not in named]
    if spec.template is not None:
        return [*made, _workload(identity, spec, image)]
    if spec.env:
        made.append(object_of(identity, "v1", "Secret", spec.name, {"stringData": dict(spec.env)}, part="node", **labels))
    if spec.files:
        made.append(object_of(identity, "v1", "ConfigMap", spec.name, {"binaryData": _contents(spec)}, part="node", **labels))
    return [*made, _workload(identity, spec, image)]


def _own(identity: Identity, spec: NodeSpec, thing: Mapping[str, Any]) -> Object:
    """An object of the user's, as this environment's; a claim is one node's and goes with it."""
    metadata = thing["metadata"]
    if metadata["name"] in OURS:
        raise ResourceError(f"{thing['kind']} {metadata['name']} of {spec.component} has a name that is envctl's in every environment", hint="rename it")
    node = {NODE: spec.name} if thing["kind"] == "PersistentVolumeClaim" and metadata["name"].endswith(f"-{spec.name.rpartition('-')[2]}") else {}
    labels = {**metadata.get("labels", {}), **identity.labels("node", **node)}
    annotations = {**metadata.get("annotations", {}), **SKIP_AWAIT}
    return {**thing, "metadata": {**metadata, "namespace": identity.namespace, "labels": labels, "annotations": annotations}}


def _names(identity: Identity, name: str, selector: Mapping[str, str]) -> Object:
    """A headless service: the name leads to the pods themselves, ready or not, as names do on other substrates."""
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": dict(selector)}
    thing = object_of(identity, "v1", "Service", name, {"spec": spec}, part="node")
    thing["metadata"]["annotations"] = dict(SKIP_AWAIT)
    return thing


def workload_kind(spec: NodeSpec) -> str:
    """Which kind of workload a node is."""
    return "Job" if spec.one_shot else "StatefulSet" if spec.volumes and spec.template is None else "Deployment"


def _workload(identity: Identity, spec: NodeSpec, image: Any) -> Object:
    labels = identity.labels("node", **{NODE: spec.name, COMPONENT: spec.component})
    metadata = {
        "name": spec.name, "namespace": identity.namespace, "labels": labels,
        "annotations": {**SKIP_AWAIT, DIGEST: spec.digest, SPEC: json.dumps(asdict(_told(spec)), default=str)},
    }
    # The digest is in the template, too: another one means another pod, also where all that differs is in a Secret.
    template: Object = {"metadata": {"labels": labels, "annotations": {**UNMOVED, DIGEST: spec.digest}}, "spec": _pod(spec, image)}
    if spec.template is not None:
        theirs = spec.template.get("metadata", {})
        template["metadata"] = {name: {**theirs.get(name, {}), **ours} for name, ours in template["metadata"].items()}
        template["spec"] = {**_their_pod(spec.template["spec"], image), **_zone(spec)}
    kind = workload_kind(spec)
    more: Object = {"replicas": 1, "selector": {"matchLabels": {NODE: spec.name}}}
    if kind == "Job":
        more = {"backoffLimit": 0}
        template["spec"]["restartPolicy"] = "Never"
    elif kind == "Deployment":
        more["strategy"] = {"type": "Recreate"}
    else:
        claims = [{
            "metadata": {"name": f"volume-{index}", "labels": labels},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _VOLUME}}},
        } for index, _ in enumerate(spec.volumes)]
        more |= {"serviceName": spec.name, "volumeClaimTemplates": claims,
                 "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}
    version = "batch/v1" if kind == "Job" else "apps/v1"
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {**more, "template": template}}


def _told(spec: NodeSpec) -> NodeSpec:
    """What a keeper has to know of a node; its variables are in a Secret, and have no place where everybody reads."""
    return replace(spec, env={}, files={}, objects=(), template=None if spec.template is None else {}, build=None)


def _pod(spec: NodeSpec, image: Any) -> Object:
    user, group = _user(spec)
    return {
        "hostname": spec.name, "shareProcessNamespace": spec.init, "automountServiceAccountToken": False, "enableServiceLinks": False,
        "terminationGracePeriodSeconds": math.ceil(spec.stop_grace_s) + 1, "containers": [_container(spec, image)],
        **({"securityContext": {"fsGroup": group or user}} if group or user else {}),
        **_zone(spec), "volumes": [each for each, _ in _mounted(spec)],
    }


def _their_pod(pod: Mapping[str, Any], image: Any) -> Object:
    """A pod of the user's manifests, confined where they leave it open; what they say otherwise is for the cluster to refuse."""
    made = copy.deepcopy(dict(pod))
    for container in (*made.get("initContainers", ()), *made["containers"]):
        container["securityContext"] = {**CONFINED, **container.get("securityContext", {})}
        if container["name"] == MAIN:
            container["image"] = image
    return made


def _zone(spec: NodeSpec) -> Object:
    """In its zone where the cluster has one of that name."""
    if not spec.zone:
        return {}
    there = {"key": ZONE, "operator": "In", "values": [spec.zone]}
    term = {"weight": 100, "preference": {"matchExpressions": [there]}}
    return {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}}


def _user(spec: NodeSpec) -> tuple[int | None, int | None]:
    """User and group where they are numbers; names are known only to the image."""
    if spec.image == OWN_IMAGE:
        return KEEPER_USER, None
    user, _, group = spec.user.partition(":")
    return (int(user) if user.isdigit() else None), (int(group) if group.isdigit() else None)


def _container(spec: NodeSpec, image: Any) -> Object:
    user, group = _user(spec)
    entry = None if spec.entrypoint is None else [*spec.entrypoint]
    claims = [{"name": f"volume-{index}", "mountPath": path} for index, path in enumerate(spec.volumes)]
    made: Object = {
        "name": MAIN, "image": image, "imagePullPolicy": "IfNotPresent", "resources": _resources(spec),
        "securityContext": {**CONFINED, **({"runAsUser": user} if user is not None else {}), **({"runAsGroup": group} if group is not None else {})},
        "volumeMounts": [*claims, *(mount for _, mount in _mounted(spec))],
    }
    if entry:
        made["command"] = literal(entry)
    if spec.command:
        made["args" if entry or entry is None else "command"] = literal(spec.command)
    if spec.env:
        made["envFrom"] = [{"secretRef": {"name": spec.name}}]
    if spec.cwd != "/":
        made["workingDir"] = spec.cwd
    if spec.ports:
        made["ports"] = [{"name": name[:15].rstrip("-"), "containerPort": port} for name, port in spec.ports.items()]
    if (probe := _probe(spec.ready)) and not spec.one_shot:
        made["startupProbe"] = {**probe, "periodSeconds": 1, "failureThreshold": 3600}  # how long it may take is not the kubelet's to say
        made["readinessProbe"] = {**probe, "periodSeconds": 5}
    return made


def _resources(spec: NodeSpec) -> Object:
    limits: dict[str, Any] = {}
    if spec.resources.memory_bytes is not None:
        limits["memory"] = str(spec.resources.memory_bytes)
    if spec.resources.cpus is not None:
        limits["cpu"] = f"{round(spec.resources.cpus * 1000)}m"
    cpus, memory = spec.resources.cpus, spec.resources.memory_bytes  # what is asked for is no more than what is allowed
    requests = {
        "cpu": limits["cpu"] if cpus is not None and cpus < REQUEST_CPUS else f"{round(REQUEST_CPUS * 1000)}m",
        "memory": str(min(memory or REQUEST_BYTES, REQUEST_BYTES)),
    }
    return {"limits": limits, "requests": requests} if limits else {}


def _probe(probe: Probe | None) -> Object | None:
    """The probe as the kubelet knows it; a log can't be asked by it."""
    if probe is None or probe.kind == "log":
        return None
    if probe.kind == "exec":
        return {"exec": {"command": list(probe.command)}, "timeoutSeconds": 5}
    if probe.kind == "grpc":
        return {"grpc": {"port": probe.port, **({"service": probe.target} if probe.target else {})}, "timeoutSeconds": 5}
    if probe.kind == "tcp":
        return {"tcpSocket": {"port": probe.port}}
    return {"httpGet": {"port": probe.port, "path": probe.target or "/"}, "timeoutSeconds": 5}


def _shown(spec: NodeSpec) -> Iterator[tuple[int, str, str, Path]]:
    """Each file to be shown: number of its target, the target, path below it (empty where the target is the file), source."""
    for number, (target, source) in enumerate(sorted(spec.files.items())):
        if source.is_dir():
            for file in sorted(path for path in source.rglob("*") if path.is_file()):
                yield number, target, str(file.relative_to(source)), file
        else:
            yield number, target, "", source


def _key(number: int, below: str) -> str:
    return f"{number}.{''.join(char if char.isalnum() or char in '-_.' else f'_{ord(char):x}_' for char in below)}"


def _contents(spec: NodeSpec) -> dict[str, str]:
    contents = {_key(number, below): file.read_bytes() for number, _, below, file in _shown(spec)}
    if (size := sum(map(len, contents.values()))) > _FILES_MAX:
        raise ResourceError(f"the files shown to {spec.name} have {size:,} bytes, a cluster keeps {_FILES_MAX:,}", hint="put them into the image")
    return {key: base64.b64encode(content).decode() for key, content in contents.items()}


def _mounted(spec: NodeSpec) -> Iterator[tuple[Object, Object]]:
    """A volume for each target, and where it is mounted."""
    for number, (target, source) in enumerate(sorted(spec.files.items())):
        files = [(below or source.name, _key(number, below), file) for each, _, below, file in _shown(spec) if each == number]
        items = [{"key": key, "path": path, "mode": 0o555 if file.stat().st_mode & 0o111 else 0o444} for path, key, file in files]
        mount: Object = {"name": f"files-{number}", "mountPath": target, "readOnly": True}
        if not source.is_dir():
            mount["subPath"] = source.name
        yield {"name": f"files-{number}", "configMap": {"name": spec.name, "items": items}}, mount
