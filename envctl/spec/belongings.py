"""What of the objects in manifests an environment has, and why it hasn't the rest."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from envctl.model.topology import LeftOut
from envctl.spec.manifest_objects import Object
from envctl.spec.pods import container_of, references

WORKLOADS = {
    "service": (("apps", "Deployment"), ("apps", "StatefulSet"), ("apps", "ReplicaSet")),
    "job": (("batch", "Job"),),
}
_READ = frozenset((*WORKLOADS["service"], *WORKLOADS["job"]))
_RBAC = "rbac.authorization.k8s.io"
_KEPT = frozenset({
    ("", "Service"), ("", "ConfigMap"), ("", "Secret"), ("", "ServiceAccount"), ("", "PersistentVolumeClaim"), (_RBAC, "Role"), (_RBAC, "RoleBinding"),
})
_REASONS = {
    "Ingress": "the way into an environment are its published ports",
    "Gateway": "the way into an environment are its published ports",
    "HTTPRoute": "the way into an environment are its published ports",
    "HorizontalPodAutoscaler": "the number of nodes is fixed: `replicas`",
    "VerticalPodAutoscaler": "the size of nodes is fixed: `resources`",
    "ScaledObject": "the number of nodes is fixed: `replicas`",
    "PodDisruptionBudget": "what disturbs nodes is what a scenario says",
    "NetworkPolicy": "an environment has its own",
    "ResourceQuota": "an environment has its own",
    "LimitRange": "an environment has its own",
    "ServiceMonitor": "an environment has its own telemetry",
    "PodMonitor": "an environment has its own telemetry",
    "PrometheusRule": "an environment has its own telemetry",
    "SealedSecret": "only the production cluster can open it; add a file with a Secret of values for tests",
    "ExternalSecret": "its values are elsewhere; add a file with a Secret of values for tests",
    "CronJob": "nothing runs by the clock; what is to run once can be a component of kind `job`",
    "DaemonSet": "it is of the machines of a cluster, not of an environment",
    "Pod": "it is no workload that is kept alive",
}
_CLUSTER_WIDE = frozenset({
    "Namespace", "ClusterRole", "ClusterRoleBinding", "PersistentVolume", "StorageClass", "PriorityClass", "CustomResourceDefinition", "APIService",
    "IngressClass", "RuntimeClass", "CSIDriver", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration", "ValidatingAdmissionPolicy",
})
_CONTROLLER = "each node is a workload of its own, which envctl replaces"
_PLACE = "where nodes run is the environment's (`zones`)"
_SERVER = "the API server wrote it"
_OUTSIDE = "it is of the production cluster"
_TELEMETRY = "telemetry goes to the environment's own intake"
_POD = (
    "nodeSelector", "nodeName", "affinity", "tolerations", "topologySpreadConstraints", "schedulerName", "priorityClassName", "priority", "preemptionPolicy",
    "runtimeClassName",
)
_SPEC = {
    "Service": (
        "clusterIPs", "externalIPs", "externalTrafficPolicy", "loadBalancerIP", "loadBalancerClass", "loadBalancerSourceRanges", "healthCheckNodePort",
        "allocateLoadBalancerNodePorts", "ipFamilies", "ipFamilyPolicy",
    ),
    "PersistentVolumeClaim": ("storageClassName", "volumeName", "selector", "dataSource", "dataSourceRef"),
}
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
OTEL = ("OTEL_EXPORTER_OTLP_", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")


def why_left_out(each: Object, chosen: Object, everything: Sequence[Object], others: Collection[str]) -> str:
    """Why an object is not in the environment of the chosen workload; empty: it is.  `others` are the topology's other components.

    Besides what the workload refers to, it has what none of the other workloads in its files does.
    """
    _, kind = each.kind
    mine = _uses(chosen, each, everything)
    if each.hook and not mine:
        return f"it is a hook of Helm ({each.hook})" + ("; what has to run can be a component of kind `job`" if kind == "Job" else "")
    if each.kind in _READ:
        return "it is another workload, which can be a component of its own"
    if each.kind not in _KEPT:
        wide = "it is of the whole cluster, not of one environment"
        return wide if kind in _CLUSTER_WIDE else _REASONS.get(kind, f"environments have no {each.data['apiVersion']} {kind}") + _scaling(each)
    if not mine and (users := [other.label for other in everything if other.kind in _READ and not other.problems and _uses(other, each, everything)]):
        return f"it is of {', '.join(users)}, not of {chosen.label}"
    if kind == "Service" and each.name in others:
        return f"{each.name} is a component of its own"
    if kind == "Service" and not _selector(each):
        return "it selects no pods, but leads out of the environment"
    return ""


def _scaling(each: Object) -> str:
    """What an autoscaler would keep, as far as it says so: how many nodes stand for how many pods is for the reader to judge."""
    spec = each.data.get("spec")
    if each.kind[1] != "HorizontalPodAutoscaler" or not isinstance(spec, dict) or not isinstance(target := spec.get("scaleTargetRef"), dict):
        return ""
    return f"; in production it keeps {spec.get('minReplicas', 1)} to {spec.get('maxReplicas', '?')} pods of {target.get('kind')} {target.get('name')}"


def _selector(service: Object) -> Mapping[str, str]:
    spec = service.data.get("spec")
    selector = spec.get("selector") if isinstance(spec, dict) and spec.get("type") != "ExternalName" else None
    return selector if isinstance(selector, dict) else {}


def _uses(workload: Object, each: Object, everything: Sequence[Object]) -> bool:
    """Whether an object is one of a workload's own."""
    template = workload.data["spec"]["template"]
    kind = each.kind[1]
    if kind == "Service":
        labels, selector = template.get("metadata", {}).get("labels", {}), _selector(each)
        return bool(selector) and selector.items() <= labels.items()
    if kind == "Role":
        bindings = [one for one in everything if one.kind == (_RBAC, "RoleBinding") and not one.problems]
        return any(_uses(workload, one, everything) for one in bindings if one.data["roleRef"].items() >= {"kind": "Role", "name": each.name}.items())
    referred = {(one.kind, one.name) for one in references(template)}
    if kind == "RoleBinding":
        subjects = () if each.problems else each.data.get("subjects", ())
        return any((one["kind"], one["name"]) in referred for one in subjects)
    return (kind, each.name) in referred


def stripped(each: Object) -> tuple[Mapping[str, Any], list[LeftOut]]:
    """An object without what is of the cluster it was in."""
    data: Any = copy.deepcopy(each.data)
    kind = each.kind[1]
    removed = list(_removed_head(data))
    outside = []
    spec = data.get("spec", {})
    outside += [f"spec.{field}" for field in _SPEC.get(kind, ()) if spec.pop(field, None) is not None]
    if kind == "Service":
        for field in [field for field, kept in (("type", "ClusterIP"), ("clusterIP", "None")) if spec.get(field, kept) != kept]:
            del spec[field]
            outside.append(f"spec.{field}")
        ports = enumerate(spec.get("ports", ()))
        outside += [f"spec.ports[{index}].nodePort" for index, port in ports if port.pop("nodePort", None) is not None]
    found = [each.left_out(reason, *fields) for reason, fields in ((_SERVER, removed), (_OUTSIDE, outside)) if fields]
    return data, found


def _removed_head(data: Any) -> Iterator[str]:
    """Removes namespaces, and what only the API server writes, which it tells."""
    metadata = data["metadata"]
    for each in (metadata, *(data.get("subjects", ()) if data["kind"] == "RoleBinding" else ())):
        each.pop("namespace", None)
    if data.pop("status", None) is not None:
        yield "status"
    for field in [word for word in metadata if word not in ("name", "labels", "annotations")]:
        del metadata[field]
        yield f"metadata.{field}"
    if metadata.get("annotations", {}).pop(_APPLIED, None) is not None:
        yield f"metadata.annotations.{_APPLIED}"


def template_of(chosen: Object) -> tuple[dict[str, Any], list[LeftOut]]:
    """The pod template of a workload, and what is left out of the workload around it."""
    spec = chosen.data["spec"]
    given = copy.deepcopy(spec["template"])
    kept = {"template", "replicas", *(("serviceName", "volumeClaimTemplates") if chosen.kind[1] == "StatefulSet" else ())}
    around = [f"spec.{field}" for field in spec if field not in kept]
    around += [field for field in chosen.data if field not in ("apiVersion", "kind", "metadata", "spec")]
    around += [f"metadata.{field}" for field in chosen.data["metadata"] if field not in ("name", "namespace")]
    around += [f"spec.template.{field}" for field in given if field not in ("metadata", "spec")]
    metadata = given.get("metadata", {})
    around += [f"spec.template.metadata.{field}" for field in metadata if field not in ("labels", "annotations", "namespace")]
    placed = [f"spec.template.spec.{field}" for field in _POD if given["spec"].pop(field, None) is not None]
    template = {"metadata": {word: metadata[word] for word in ("labels", "annotations") if word in metadata}, "spec": given["spec"]}
    return template, [chosen.left_out(reason, *fields) for reason, fields in ((_CONTROLLER, around), (_PLACE, placed)) if fields]


def without_telemetry(chosen: Object, template: Mapping[str, Any], container: str) -> list[LeftOut]:
    """Takes out of a container where production's telemetry goes."""
    main = container_of(template, container)
    gone = [each["name"] for each in main.get("env", ()) if each["name"].startswith(OTEL)]
    if gone:
        main["env"] = [each for each in main["env"] if each["name"] not in gone]
    return [chosen.left_out(_TELEMETRY, *(f"{container}.env.{name}" for name in gone))] if gone else []


def claims_of(chosen: Object) -> tuple[list[Mapping[str, Any]], list[LeftOut]]:
    """The claims that each pod of a StatefulSet has of its own."""
    found = []
    left: list[LeftOut] = []
    for index, claim in enumerate(chosen.data["spec"].get("volumeClaimTemplates", ()) if chosen.kind[1] == "StatefulSet" else ()):
        at = f"spec.volumeClaimTemplates[{index}]."
        head = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        data, fields = stripped(replace(chosen, data={**claim, **head}))
        found.append(data)
        left += [replace(each, what=chosen.label, fields=tuple(at + field for field in each.fields)) for each in fields]
    return found, left


