"""The node agents of a cluster: the objects that bring them there and take them away, and how a keeper speaks to one.

Each version of envctl has agents of its own, whose environments bear its label on their namespaces.  Beside each other they
don't meet: each touches only pods of its own environments, and goes with the last of them.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Mapping
from typing import Any

from envctl.errors import ResourceError
from envctl.substrates.keeper import wire
from envctl.substrates.kubernetes.api import Api, MissingError, Object
from envctl.substrates.kubernetes.census import in_cluster
from envctl.substrates.kubernetes.identity import AGENT, AGENT_OF, AGENT_PORT, AGENTS, ENV, NEXT_AGENT, PART, agent_of
from envctl.waiting import until

_CONNECT_S, _END_S = 10.0, 120.0
_TRIES = 3
_NAME, _PART = "envctl-agent", "agent"
_WANTED = "envctl.dev/wanted"  # annotation: by whom last


def open_agent(host: str, request: Mapping[str, Any]) -> wire.Lines:
    """A connection to the agent of a node, by its pod's address, with a request sent.  Raises OSError when nobody listens."""
    sock = socket.create_connection((host, AGENT_PORT), timeout=_CONNECT_S)
    sock.settimeout(None)  # of what follows, each caller knows how long it may take
    lines = wire.Lines(sock)
    lines.send(request)
    return lines


def name_of(version: str) -> str:
    """What the objects of the agents of a version are called."""
    return f"{_NAME}-{version}"


def selector(version: str = "") -> str:
    """By which the agents of a version are found, or those of all."""
    return f"{PART}={_PART},{AGENT}={version}" if version else f"{PART}={_PART}"


def ensure_agents(cluster: Api, image: str) -> None:
    """Those of this image, on every machine.  Some environment's namespace must bear their label already, or they may be taken for left over.

    Raises ResourceError where those that were there do not end.
    """
    for tries_left in reversed(range(_TRIES)):
        await_end(cluster)
        try:
            _apply(cluster, image)
        except ResourceError:  # somebody ended the last environment just now
            if not tries_left or not ends(cluster):
                raise
        else:
            return


def await_end(cluster: Api) -> None:
    """Returns when the agents' namespace is not about to end.  Raises ResourceError with what blocks it."""
    if not until(lambda: not ends(cluster), _END_S, poll_s=0.2) and (left := in_cluster(cluster, AGENTS, ())):
        raise ResourceError(f"the node agents that there were do not end within {_END_S:g} s: {left[0]}", hint=f"`kubectl get namespace {AGENTS} -o yaml` says more of it")


def _apply(cluster: Api, image: str) -> None:
    """The role is of the namespace, all else of the role: each takes with it what is its own."""
    namespace, role, *others = agent_objects(image)
    for thing in (namespace, role):
        thing["metadata"]["annotations"] = {_WANTED: uuid.uuid4().hex}  # whoever was about to end it finds it changed
    role["metadata"]["ownerReferences"] = [_reference(cluster.apply(namespace))]
    owner = _reference(cluster.apply(role))
    for thing in others:
        thing["metadata"]["ownerReferences"] = [owner]
        cluster.apply(thing)


def _reference(thing: Object) -> Object:
    return {"apiVersion": thing["apiVersion"], "kind": thing["kind"], **{name: thing["metadata"][name] for name in ("name", "uid")}}


def end_unused(cluster: Api, version: str = "") -> bool:
    """Begins the end of the agents of a version, or of each, that has no environment any more; of their namespace, with all, when there is none at all.

    Whether the latter.  What somebody asks for meanwhile stays.
    """
    try:
        namespace = cluster.get("Namespace", AGENTS)
        roles = [cluster.get("ClusterRole", name_of(version))] if version else cluster.find("ClusterRole", labels=selector())
    except MissingError:
        return False
    if not cluster.find("Namespace", labels=ENV, most=1):
        return cluster.delete_unchanged("Namespace", namespace)  # alone: an agent that ended its role first might not do this any more
    for role in roles:
        one = role["metadata"]["labels"].get(AGENT)
        if one and not _is_used(cluster, one):
            cluster.delete_unchanged("ClusterRole", role)
    return False


def _is_used(cluster: Api, version: str) -> bool:
    """Whether an environment has these agents, or is about to.  Asked in this order: its keeper says the former before it takes back the latter."""
    return any(cluster.find("Namespace", labels=f"{label}={version}", most=1) for label in (NEXT_AGENT, AGENT))


def uses(space: Object, version: str) -> bool:
    """Whether an environment's namespace says so."""
    labels = space["metadata"]["labels"]
    return version in (labels.get(AGENT), labels.get(NEXT_AGENT))


def ends(cluster: Api) -> bool:
    """Whether their namespace is there and is to go."""
    try:
        return bool(cluster.get("Namespace", AGENTS)["status"].get("phase") != "Active")
    except MissingError:
        return False


def agent_objects(image: str) -> list[Object]:
    """The namespace of the agents, what those of an image may ask of the API, and one on every node."""
    group, name, labels = "rbac.authorization.k8s.io", name_of(agent_of(image)), _labels(image)
    rules = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "delete"]},
        {"apiGroups": [group], "resources": ["clusterroles"], "resourceNames": [name], "verbs": ["get", "delete"]},  # its own end
    ]
    metadata = {"name": name, "labels": labels}
    here = {**metadata, "namespace": AGENTS}
    privileged = {PART: _PART, "pod-security.kubernetes.io/enforce": "privileged"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENTS, "labels": privileged}},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {**metadata}, "rules": rules},
        {"apiVersion": f"{group}/v1", "kind": "ClusterRoleBinding", "metadata": {**metadata}, "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
         "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": AGENTS}]},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**here}},
        # Where the agents are is no secret; what they do, they do for keepers only.
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": {**here}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]},
        {"apiVersion": f"{group}/v1", "kind": "RoleBinding", "metadata": {**here}, "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
         "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:serviceaccounts"}]},
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {**here}, "spec": {
            "podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [{
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {PART: "keeper"}}}],
                "ports": [{"port": AGENT_PORT, "protocol": "TCP"}],
            }],
        }},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {**here}, "spec": {
            "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": _pod(image, name)},
        }},
    ]


def _labels(image: str) -> dict[str, str]:
    return {PART: _PART, AGENT: agent_of(image)}


def _pod(image: str, account: str) -> Object:
    fields = {"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name"}
    container = {
        "name": "agent", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-P", "-m", "envctl.substrates.kubernetes.agent"],
        "env": [
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
            {"name": AGENT_OF, "value": agent_of(image)},
        ],
        "ports": [{"containerPort": AGENT_PORT}],
        "readinessProbe": {"tcpSocket": {"port": AGENT_PORT}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
        "volumeMounts": [{"name": "groups", "mountPath": "/sys/fs/cgroup"}],
    }
    return {
        "serviceAccountName": account, "hostPID": True, "enableServiceLinks": False, "terminationGracePeriodSeconds": 5,
        "tolerations": [{"operator": "Exists"}], "containers": [container],
        "volumes": [{"name": "groups", "hostPath": {"path": "/sys/fs/cgroup", "type": "Directory"}}],
    }
