"""When Pulumi's plug-in for Kubernetes takes an object for ready, and what it says of one that doesn't become so.

After its release 4.34: https://github.com/pulumi/pulumi-kubernetes, provider/pkg/await.  It watches; this asks again and again.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cluster.api import Api, Object, RefusedError

POLL_S = 0.15
USUAL_S = 600.0
SETTLING_S = 10.0
"""How long a service's addresses must have been the same."""
_LETS_GO = frozenset({"Namespace", "Pod", "ReplicationController", "DaemonSet", "Deployment", "StatefulSet", "Job"})
"""Of these, `skipAwait` lets go of deletions too."""


class NotReadyError(Exception):
    """It is there, but not as it should be."""

    def __init__(self, live: Object, message: str, reasons: list[str]) -> None:
        super().__init__(message)
        self.live, self.reasons = live, reasons


@dataclass(slots=True)
class Wait:
    """One wait for an object."""

    api: Api
    inputs: Object
    update: bool
    cancelled: threading.Event
    settling: dict[str, float] = field(default_factory=dict)

    def until_ready(self, live: Object, timeout_s: float) -> Object:
        """The object once it is ready.  Raises NotReadyError when it never will be, or is not in time."""
        deadline = time.monotonic() + (timeout_s or _seconds(self.inputs))
        name = live["metadata"]["name"]
        while not self._is_ready(live):
            if time.monotonic() > deadline:
                raise NotReadyError(live, f"'{name}' timed out waiting to be Ready", _reasons(self.api, live))
            if self.cancelled.wait(POLL_S):
                raise NotReadyError(live, f"Resource operation was cancelled for '{name}'", _reasons(self.api, live))
            live = self.api.get(live)
        return live

    def until_gone(self, one: Object, timeout_s: float) -> None:
        """Returns when it is not there any more, or is another of the same name.  Raises NotReadyError."""
        if _annotation(self.inputs, "skipAwait") == "true" and one["kind"] in _LETS_GO:
            return
        deadline = time.monotonic() + (timeout_s or _seconds(self.inputs))
        name, live = one["metadata"]["name"], one
        while live["metadata"].get("uid") == one["metadata"].get("uid"):
            if time.monotonic() > deadline or self.cancelled.wait(POLL_S):
                blocking = [f"{each['type']}: {each['message']}" for each in _conditions(live).values() if each.get("status") == "True"]
                finalizers = live["metadata"].get("finalizers", [])
                raise NotReadyError(live, f"'{name}' timed out waiting to be deleted; finalizers: {finalizers}", blocking)
            try:
                live = self.api.get(one)
            except RefusedError as error:
                if error.status == 404:
                    return
                raise

    def _is_ready(self, live: Object) -> bool:
        if _annotation(self.inputs, "skipAwait") == "true":
            return True
        if asked := _annotation(self.inputs, "waitFor"):
            return all(_holds(live, each) for each in (json.loads(asked) if asked.startswith("[") else [asked]))
        ready = _READY.get(f"{live['apiVersion']}/{live['kind']}")
        return ready is None or ready(self, live)


def _deployment(_wait: Wait, live: Object) -> bool:
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    told = _conditions(live)
    rolled = live["metadata"].get("annotations", {}).get("deployment.kubernetes.io/revision") == "1" or (
        told.get("Progressing", {}).get("reason") == "NewReplicaSetAvailable" and _true(told, "Progressing")
    )
    current = status.get("observedGeneration", 0) >= live["metadata"]["generation"] and status.get("updatedReplicas", 0) >= wanted
    return current and rolled and _true(told, "Available") and status.get("readyReplicas", 0) >= wanted


def _stateful_set(_wait: Wait, live: Object) -> bool:
    status, wanted = live.get("status", {}), live["spec"].get("replicas", 1)
    counts = {status.get(name, 0) for name in ("replicas", "readyReplicas", "currentReplicas")}
    revision = status.get("currentRevision")
    observed = status.get("observedGeneration", 0) >= live["metadata"]["generation"]
    if live["metadata"]["generation"] > 1 and live["spec"]["updateStrategy"]["type"] == "OnDelete":
        return observed and {status.get("replicas", 0), status.get("readyReplicas", 0)} == {wanted}
    return observed and counts == {wanted} and bool(revision) and revision == status.get("updateRevision")


def _daemon_set(_wait: Wait, live: Object) -> bool:
    status = live.get("status", {})
    wanted = status.get("desiredNumberScheduled", 0)
    counts = {status.get(name, 0) for name in ("numberReady", "updatedNumberScheduled", "currentNumberScheduled")}
    return status.get("observedGeneration", 0) >= live["metadata"]["generation"] and counts == {wanted}


def _job(_wait: Wait, live: Object) -> bool:
    failed = _conditions(live).get("Failed", {})
    if failed.get("status") == "True" and failed.get("reason") in ("BackoffLimitExceeded", "DeadlineExceeded"):
        said = [f"[{failed['reason']}] {failed['message']}", *_of_pods(_wait.api, live)]
        raise NotReadyError(live, f"Resource '{live['metadata']['name']}' was created but failed to initialize", said)
    return "startTime" in live.get("status", {}) and _true(_conditions(live), "Complete")


def _pod(_wait: Wait, live: Object) -> bool:
    told = _conditions(live)
    done = _true(told, "Ready") or live["status"].get("phase") == "Succeeded"
    return _true(told, "PodScheduled") and _true(told, "Initialized") and done


def _service(wait: Wait, live: Object) -> bool:
    spec = live["spec"]
    if spec.get("type") == "LoadBalancer" and not live["status"].get("loadBalancer", {}).get("ingress"):
        return False
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None" or not spec.get("selector"):
        return True
    try:
        behind = wait.api.get({"apiVersion": "v1", "kind": "Endpoints", "metadata": live["metadata"]})
    except RefusedError as error:
        if error.status != 404:
            raise
        return False
    since = wait.settling.setdefault(behind["metadata"]["resourceVersion"], time.monotonic())
    pending = any(subset.get("notReadyAddresses") for subset in behind.get("subsets", []))
    return time.monotonic() - since >= SETTLING_S and not pending


def _claim(wait: Wait, live: Object) -> bool:
    phase, storage = live.get("status", {}).get("phase"), live["spec"].get("storageClassName")
    if phase == "Pending" and storage and not wait.update:
        mode = wait.api.get({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": storage}}).get("volumeBindingMode")
        return bool(mode == "WaitForFirstConsumer")
    return bool(phase == "Bound")


_READY: dict[str, Callable[[Wait, Object], bool]] = {
    "apps/v1/Deployment": _deployment, "apps/v1/StatefulSet": _stateful_set, "apps/v1/DaemonSet": _daemon_set, "batch/v1/Job": _job,
    "v1/Pod": _pod, "v1/Service": _service, "v1/PersistentVolumeClaim": _claim,
    "v1/PersistentVolume": lambda _, live: live.get("status", {}).get("phase") in ("Available", "Bound"),
    "v1/ResourceQuota": lambda _, live: live.get("status", {}).get("hard") == live["spec"].get("hard"),
}


def _holds(live: Object, asked: str) -> bool:
    """`condition=Type[=Status]`, or `jsonpath={.a.b}[=value]` with nothing but names."""
    if asked.startswith("condition="):
        name, _, status = asked.removeprefix("condition=").partition("=")
        return bool(_conditions(live).get(name, {}).get("status", "").lower() == (status or "True").lower())
    found = re.fullmatch(r"jsonpath=\{((?:\.\w+)+)\}(?:=(.*))?", asked)
    if not found:
        raise NotReadyError(live, f'expected a "jsonpath=" or "condition=" prefix, got {asked!r}', [])
    value: object = live
    for name in found[1].split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return value is not None if found[2] is None else str(value) == found[2]


def _reasons(api: Api, live: Object) -> list[str]:
    told = [f"[{each['reason']}] {each['message']}" for each in _conditions(live).values() if each["status"] == "False" and each.get("message")]
    status, kind = live.get("status", {}), live["kind"]
    if kind == "Deployment":
        told.append("Minimum number of live Pods was not attained")
    if kind == "StatefulSet":
        told.append(f"{status.get('readyReplicas', 0)} out of {live['spec'].get('replicas', 1)} replicas succeeded readiness checks")
    if kind == "Service":
        told.append("Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not match labels on any Pods")
    return [*told, *_of_pods(api, live)]


def _of_pods(api: Api, live: Object) -> list[str]:
    """What is wrong with the pods of a workload, or with a pod."""
    if live["kind"] == "Pod":
        return list(_of_pod(live))
    labels = live.get("spec", {}).get("selector")
    wanted = labels.get("matchLabels") if isinstance(labels, dict) else None
    if not wanted:
        return []
    selector = ",".join(f"{name}={value}" for name, value in wanted.items())
    pods = api.list("v1", "Pod", live["metadata"]["namespace"], selector)
    return list(dict.fromkeys(line for pod in pods for line in _of_pod(pod)))


def _of_pod(pod: Object) -> Iterator[str]:
    where = f"[Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}]: "
    status = pod.get("status", {})
    yield from (
        where + each["message"] for each in status.get("conditions", []) if each["status"] == "False" and each.get("message")
    )
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        waiting, ended = container["state"].get("waiting"), container["state"].get("terminated")
        last = container.get("lastState", {}).get("terminated")
        if waiting and waiting["reason"] not in ("ContainerCreating", "PodInitializing"):
            yield f"{where}[{waiting['reason']}] {waiting.get('message', '')}"
        for end in filter(None, (ended, last)):
            yield f"{where}container {container['name']!r} ended ({end.get('reason')}: exit code {end['exitCode']}) {end.get('message', '')}".rstrip()


def _conditions(live: Object) -> dict[str, Object]:
    return {one["type"]: one for one in live.get("status", {}).get("conditions", [])}


def _true(conditions: dict[str, Object], name: str) -> bool:
    return bool(conditions.get(name, {}).get("status") == "True")


def _annotation(one: Object, name: str) -> str:
    return str(one.get("metadata", {}).get("annotations", {}).get(f"pulumi.com/{name}", ""))


def _seconds(inputs: Object) -> float:
    said = _annotation(inputs, "timeoutSeconds")
    return float(said) if said.isdecimal() else USUAL_S
