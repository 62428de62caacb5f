"""The node agents of a cluster: the objects that bring them there, and how a keeper speaks to one."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from envctl.substrates.keeper import wire
from envctl.substrates.kubernetes.identity import AGENT_PORT, AGENTS, PART

_CONNECT_S = 10.0
NAME = "envctl-agent"
LABELS = {PART: "agent"}
Object = dict[str, Any]


def open_agent(host: str, request: Mapping[str, Any]) -> wire.Lines:
    """A connection to the agent of a node, by its pod's address, with a request sent.  Raises OSError when nobody listens."""
    sock = socket.create_connection((host, AGENT_PORT), timeout=_CONNECT_S)
    sock.settimeout(None)  # of what follows, each caller knows how long it may take
    lines = wire.Lines(sock)
    lines.send(request)
    return lines


def agent_objects(image: str) -> list[Object]:
    """The namespace of the agents, what they may ask of the API, and one on every node."""
    group = "rbac.authorization.k8s.io"
    rules = [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "delete"]},
    ]
    return [
        _object("v1", "Namespace", AGENTS, {}, namespace=None, **{"pod-security.kubernetes.io/enforce": "privileged"}),
        _object("v1", "ServiceAccount", NAME, {}),
        _object(f"{group}/v1", "ClusterRole", NAME, {"rules": rules}, namespace=None),
        _object(f"{group}/v1", "ClusterRoleBinding", NAME, {
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": AGENTS}],
        }, namespace=None),
        # Where the agents are is no secret; what they do, they do for keepers only.
        _object(f"{group}/v1", "Role", "find", {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}),
        _object(f"{group}/v1", "RoleBinding", "find", {
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "find"},
            "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:serviceaccounts"}],
        }),
        _object("networking.k8s.io/v1", "NetworkPolicy", NAME, {"spec": {
            "podSelector": {"matchLabels": LABELS}, "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {PART: "keeper"}}}],
                "ports": [{"port": AGENT_PORT, "protocol": "TCP"}],
            }],
        }}),
        _object("apps/v1", "DaemonSet", NAME, {"spec": {
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": _pod(image)},
        }}),
    ]


def _object(version: str, kind: str, name: str, more: Object, *, namespace: str | None = AGENTS, **labels: str) -> Object:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **place, "labels": {**LABELS, **labels}}, **more}


def _pod(image: str) -> Object:
    fields = {"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name"}
    container = {
        "name": "agent", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-P", "-m", "envctl.substrates.kubernetes.agent"],
        "env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()],
        "ports": [{"containerPort": AGENT_PORT}],
        "readinessProbe": {"tcpSocket": {"port": AGENT_PORT}, "periodSeconds": 2},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {"privileged": True, "runAsUser": 0, "runAsGroup": 0},
        "volumeMounts": [{"name": "groups", "mountPath": "/sys/fs/cgroup"}],
    }
    return {
        "serviceAccountName": NAME, "hostPID": True, "enableServiceLinks": False, "terminationGracePeriodSeconds": 5,
        "tolerations": [{"operator": "Exists"}], "containers": [container],
        "volumes": [{"name": "groups", "hostPath": {"path": "/sys/fs/cgroup", "type": "Directory"}}],
    }
