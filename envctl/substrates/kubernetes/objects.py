"""What an environment is as objects of Kubernetes, and what all objects have in common: pure data, applied here or by Pulumi, the same either way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from envctl.substrates.keeper.place import DIRECTORY, KEEPER_PORT, PLACE_OF, TOKEN
from envctl.substrates.kubernetes import chaos_mesh
from envctl.substrates.kubernetes.identity import AGENT_OF, AGENT_PORT, PART, PLACE, Identity, agent_of
from envctl.substrates.kubernetes.volume import VOLUME
from envctl.substrates.kubernetes.ways import Ways

Object = dict[str, Any]
WORKLOADS = ("Deployment", "StatefulSet", "Job")
UNMOVED = {  # a pod that an autoscaler moves to save a machine is a fault that nobody asked for
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true",
}
SKIP_AWAIT = {"pulumi.com/skipAwait": "true"}  # readiness is waited for by the environment's keeper, with the node's last words
KEEPER_USER = 65532
_KEEPER_VOLUME = "4Gi"
OURS = ("keeper", "notes", "limits", "telemetry", "nothing", "within")
QUOTA: Mapping[str, str] = {
    "pods": "200", "persistentvolumeclaims": "100", "services.loadbalancers": "0", "services.nodeports": "0",
    "count/horizontalpodautoscalers.autoscaling": "0",  # a workload is one node, and held down where a fault says so
}
# What a node is given at least: with less it starves beside busy neighbours, with more fewer environments fit.
REQUEST_CPUS, REQUEST_BYTES = 0.1, 64 << 20
CONFINED: Mapping[str, Any] = {  # as the Pod Security Standard `restricted` asks
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"},
}


def environment_objects(
    identity: Identity, directory: Path, image: str, quota: Mapping[str, str] = QUOTA, storage: str | None = "",
    by_chaos_mesh: bool = False, ways: Ways = Ways(),
) -> list[Object]:
    """The namespace, what limits it, and its keeper, the last; of the keeper's secret only the name.

    `storage`: the class of the volume that the keeper's files are on, empty for the cluster's own choice; None: they are the pod's.
    `by_chaos_mesh`: the keeper has Chaos Mesh do what it can.  `ways`: where names and the API are in this cluster.
    """
    return [
        namespace_object(identity),
        object_of(identity, "v1", "ResourceQuota", "limits", {"spec": {"hard": dict(quota)}}),
        object_of(identity, "v1", "LimitRange", "limits", {"spec": {"limits": [{
            "type": "Container", "defaultRequest": {"cpu": f"{round(REQUEST_CPUS * 1000)}m", "memory": str(REQUEST_BYTES)}, "default": {"memory": "2Gi"},
        }]}}),
        *_policies(identity, ways),
        *_rights(identity, [chaos_mesh.RIGHTS] if by_chaos_mesh else []),
        _telemetry(identity),
        *([] if storage is None else [_claim(identity, storage)]),
        _keeper(identity, directory, image, by_chaos_mesh, {"emptyDir": {}} if storage is None else {"persistentVolumeClaim": {"claimName": "keeper"}}),
    ]


def namespace_object(identity: Identity) -> Object:
    """The namespace.  Which agents its keeper speaks to is not Pulumi's to say: it would be said before there is that keeper."""
    return {
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": identity.namespace, "annotations": {PLACE: identity.place},
            "labels": identity.labels() | {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"},
        },
    }


def object_of(identity: Identity, version: str, kind: str, name: str, more: Object, **labels: Any) -> Object:
    """An object in the namespace."""
    return {
        "apiVersion": version, "kind": kind,
        "metadata": {"name": name, "namespace": identity.namespace, "labels": identity.labels(**labels)}, **more,
    }


def _telemetry(identity: Identity) -> Object:
    """The name under which nodes reach what runs beside the keeper, and other pods of envctl's the keeper itself."""
    named = (("otlp-grpc", 4317), ("otlp-http", 4318), ("keeper", KEEPER_PORT))
    ports = [{"name": name, "port": port, "targetPort": port} for name, port in named]
    thing = object_of(identity, "v1", "Service", "telemetry", {"spec": {"selector": {PART: "keeper"}, "ports": ports}}, part="keeper")
    thing["metadata"]["annotations"] = dict(SKIP_AWAIT)  # a service is awaited for ten seconds at least
    return thing


def _policies(identity: Identity, ways: Ways) -> Iterator[Object]:
    """Nothing goes in or out but within the namespace, to the names of services, and the keeper's own ways."""
    resolvers = [{"ipBlock": {"cidr": f"{address}/{128 if ':' in address else 32}"}} for address in ways.resolvers]
    names: list[Object] = [
        {"to": [{"namespaceSelector": {}}, *resolvers], "ports": _ports(53, "UDP", "TCP")},
        {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}], "ports": _ports(5353, "UDP", "TCP")},
    ]
    api = [way for port in ways.api_ports for way in _ports(port, "TCP")]
    specs: Mapping[str, Object] = {
        "nothing": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "within": {
            "podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{"from": [{"podSelector": {}}]}],
            "egress": [{"to": [{"podSelector": {}}]}, *names],
        },
        "keeper": {"podSelector": {"matchLabels": {PART: "keeper"}}, "policyTypes": ["Egress"], "egress": [{"ports": [*api, *_ports(AGENT_PORT, "TCP")]}]},
    }
    for name, spec in specs.items():
        yield object_of(identity, "networking.k8s.io/v1", "NetworkPolicy", name, {"spec": spec})


def _ports(port: int, *protocols: str) -> list[Object]:
    return [{"port": port, "protocol": protocol} for protocol in protocols]


def _rights(identity: Identity, more: Sequence[Mapping[str, Any]]) -> Iterator[Object]:
    """What the keeper may do: look at pods and their logs, start and stop workloads, keep notes, and end its own namespace."""
    group = "rbac.authorization.k8s.io"
    yield object_of(identity, "v1", "ServiceAccount", "keeper", {}, part="keeper")
    yield object_of(identity, f"{group}/v1", "Role", "keeper", {"rules": [
        {"apiGroups": [""], "resources": ["pods", "events", "configmaps"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["notes"], "verbs": ["patch"]},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "deployments/scale", "statefulsets/scale"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": ["get", "list"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list"]},
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [identity.namespace], "verbs": ["get", "patch", "delete"]},
        *more,
    ]}, part="keeper")
    yield object_of(identity, f"{group}/v1", "RoleBinding", "keeper", {
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "keeper"},
        "subjects": [{"kind": "ServiceAccount", "name": "keeper", "namespace": identity.namespace}],
    }, part="keeper")


def _claim(identity: Identity, storage: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": _KEEPER_VOLUME}}}
    thing = object_of(identity, "v1", "PersistentVolumeClaim", "keeper", {"spec": spec | ({"storageClassName": storage} if storage else {})}, part="keeper")
    thing["metadata"]["annotations"] = dict(SKIP_AWAIT)  # it is bound when the keeper's pod has a machine
    return thing


def _keeper(identity: Identity, directory: Path, image: str, by_chaos_mesh: bool, volume: Object) -> Object:
    labels = identity.labels("keeper")
    variables = {DIRECTORY: str(directory), PLACE_OF: identity.place, AGENT_OF: agent_of(image), "HOME": "/var/tmp"}  # noqa: S108 - a container of ours, where nobody else is
    variables |= {chaos_mesh.SETTING: "1"} if by_chaos_mesh else {}
    container = {
        "name": "keeper", "image": image, "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-P", "-m", "envctl.substrates.kubernetes.keeper"],
        "env": [
            *({"name": name, "value": value} for name, value in variables.items()),
            {"name": TOKEN, "valueFrom": {"secretKeyRef": {"name": "keeper", "key": "token"}}},
        ],
        "ports": [{"containerPort": KEEPER_PORT}], "readinessProbe": {"tcpSocket": {"port": KEEPER_PORT}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}}, "securityContext": {**CONFINED, "runAsUser": KEEPER_USER},
        "volumeMounts": [{"name": "kept", "mountPath": str(VOLUME)}],
    }
    pod = {
        "serviceAccountName": "keeper", "enableServiceLinks": False, "terminationGracePeriodSeconds": 2, "containers": [container],
        "securityContext": {"fsGroup": KEEPER_USER, "fsGroupChangePolicy": "OnRootMismatch"}, "volumes": [{"name": "kept", **volume}],
    }
    return {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "keeper", "namespace": identity.namespace, "labels": labels, "annotations": dict(SKIP_AWAIT)},
        "spec": {
            "replicas": 1, "strategy": {"type": "Recreate"}, "selector": {"matchLabels": {PART: "keeper"}},
            "template": {"metadata": {"labels": labels, "annotations": dict(UNMOVED)}, "spec": pod},
        },
    }


def token_object(identity: Identity, token: str) -> Object:
    """What every request to the keeper must bear; never part of Pulumi's state."""
    return object_of(identity, "v1", "Secret", "keeper", {"stringData": {"token": token}}, part="keeper")


def notes_object(identity: Identity) -> Object:
    """Where notes are kept."""
    return object_of(identity, "v1", "ConfigMap", "notes", {}, part="keeper")


def literal(words: Any) -> list[str]:
    """Words of a command: Kubernetes would replace `$(NAME)`."""
    return [str(word).replace("$(", "$$(") for word in words]
