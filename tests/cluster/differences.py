"""What Pulumi's plug-in for Kubernetes takes for a change of an object, and which of them replace it.

After its release 4.34: https://github.com/pulumi/pulumi-kubernetes, provider/pkg/provider/diff.go.  It brings both sides into the form of the
types that it knows; this compares numbers, quantities and empty values by what they mean.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

from cluster.api import Object

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""A value that the engine doesn't know yet."""

_OF_SERVER = ("creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields", "resourceVersion", "uid")
_POD = "affinity automountServiceAccountToken containers dnsConfig dnsPolicy hostAliases hostIPC hostNetwork hostPID hostname imagePullSecrets"
_POD += " initContainers nodeName nodeSelector priorityClassName restartPolicy runtimeClassName schedulerName securityContext serviceAccount"
_POD += " serviceAccountName shareProcessNamespace subdomain terminationGracePeriodSeconds volumes"
_VOLUME = "awsElasticBlockStore azureDisk azureFile cephfs csi fc flexVolume gcePersistentDisk hostPath iscsi local nfs rbd"
_REPLACING = {
    "apps/v1/Deployment": "spec.selector",
    "apps/v1/DaemonSet": "spec.selector",
    "apps/v1/StatefulSet": "spec.podManagementPolicy spec.revisionHistoryLimit spec.selector spec.serviceName spec.volumeClaimTemplates",
    "batch/v1/Job": "spec.completions spec.parallelism spec.selector spec.template",
    "v1/Pod": " ".join(f"spec.{name}" for name in _POD.split()),
    "v1/PersistentVolume": " ".join(f"spec.{name}" for name in _VOLUME.split()),
    "v1/PersistentVolumeClaim": "spec.accessModes spec.selector spec.storageClassName spec.volumeName",
    "v1/ResourceQuota": "spec.scopes",
    "v1/Service": "spec.clusterIP",
    "rbac.authorization.k8s.io/v1/ClusterRoleBinding": "roleRef",
    "rbac.authorization.k8s.io/v1/RoleBinding": "roleRef",
    "storage.k8s.io/v1/StorageClass": "parameters provisioner",
}


def changed(live: Object, before: Object, after: Object) -> list[str]:
    """The paths that differ between what was asked for, as it lives, and what is asked for now."""
    known = prune(_comparable(live), _comparable(before))
    return sorted(".".join(path) for path in _paths(known, _comparable(after)))


def replacing(paths: list[str], after: Object, *, secrets_change: bool, maps_change: bool) -> list[str]:
    """Those that can't be changed on a living object, or that the provider's options don't let it change."""
    kind = f"{after['apiVersion']}/{after['kind']}"
    names = ["metadata.name", "metadata.namespace", *_REPLACING.get(kind, "").split()]
    if kind == "v1/Secret":
        names += ["type"] if secrets_change and not after.get("immutable") else ["type", "data", "stringData"]
    if kind == "v1/ConfigMap" and (not maps_change or after.get("immutable")):
        names += ["data", "binaryData"]
    return [path for path in paths if any(path == name or path.startswith(f"{name}.") or name.startswith(f"{path}.") for name in names)]


def prune(live: Any, asked: Any) -> Any:
    """Of a living object, what was asked for."""
    if isinstance(live, dict) and isinstance(asked, dict):
        return {name: prune(live[name], value) for name, value in asked.items() if name in live}
    if isinstance(live, list) and isinstance(asked, list):
        return [prune(one, asked[at]) if at < len(asked) else one for at, one in enumerate(live)]
    return live


def plain(value: Any) -> Any:
    """Properties of the engine as JSON has them: whole numbers are integers, what is null is absent."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _comparable(one: Object) -> Object:
    metadata = {name: value for name, value in one.get("metadata", {}).items() if name not in _OF_SERVER}
    whole = {**one, "metadata": metadata}
    if one.get("kind") == "Secret" and isinstance(texts := whole.pop("stringData", None), dict):
        whole["data"] = {**whole.get("data", {}), **{name: base64.b64encode(str(text).encode()).decode() for name, text in texts.items()}}
    return whole


def _paths(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in old.keys() | new.keys():
            yield from _paths(old.get(name), new.get(name), (*path, name))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _paths(one, other, (*path, str(at)))
    elif not _same(old, new):
        yield path


def _same(one: Any, other: Any) -> bool:
    if one == other or (_is_nothing(one) and _is_nothing(other)):
        return True
    return _number(one) is not None and _number(one) == _number(other)


def _is_nothing(value: Any) -> bool:
    """Of no meaning to the server, which leaves such a field away."""
    return value in (None, "", 0, False) or (isinstance(value, (dict, list)) and all(map(_is_nothing, value.values() if isinstance(value, dict) else value)))


def _number(value: Any) -> Decimal | None:
    from kubernetes.utils.quantity import parse_quantity

    with suppress(ValueError):
        return Decimal(parse_quantity(value)) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else None  # type: ignore[no-untyped-call]
    return None
