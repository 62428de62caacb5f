"""What a cluster says of pods: how their containers live and end, and why they don't come to life."""

from __future__ import annotations

from collections.abc import Iterator

from envctl.substrates.kubernetes.api import Api, MissingError, Object
from envctl.substrates.kubernetes.identity import MAIN, NODE

NO_POD_S = 3.0  # after which a controller that has made no pod is asked why: it may need a quota to be counted, or an account, first
_HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_REFUSED = ("not found", "denied", "unauthorized", "forbidden")  # what a registry says that will say it again; all else is tried once more (ImagePullBackOff)
_PASSES = "failed to sync"  # a kubelet that is busy has not heard of a Secret or ConfigMap yet, and tries again
_UNSCHEDULABLE_S = 10.0  # how long a pod may find no machine: the one that it replaces may still be ending
_UNBOUND_S = 60.0  # how long its volumes may take to be made, and provisioners to try again
_OF_VOLUMES = ("PersistentVolumeClaim", "persistentvolumeclaim", "storageclass")  # in what the scheduler says
_NO_CLASS = ("no storage class is set", "storageclass.storage.k8s.io")  # said of claims that nobody will ever give a volume
_WORDS = 5  # lines of a container that ends again and again
_MADE, _FAILED = "SuccessfulCreate", ("FailedCreate", "ReplicaSetCreateError")
_GROWS = ("TriggeredScaleUp", "Nominated")  # said of a pod by what adds machines (cluster autoscaler, Karpenter): it is worth waiting for


def node_of(pod: Object) -> str:
    """The node that it is a life of."""
    return str(pod["metadata"]["labels"].get(NODE, ""))


def _status(pod: Object) -> Object:
    found: list[Object] = [each for each in pod["status"].get("containerStatuses", ()) if each["name"] == MAIN]
    return found[0] if found else {}


def is_ready(pod: Object) -> bool:
    """Whether it says that it can be asked."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", ()))


def waiting_of(pod: Object) -> Object:
    """What its container waits for, with reason and message."""
    found: Object = _status(pod).get("state", {}).get("waiting") or {}
    return found


def _id(said: str) -> str:
    return said.rpartition("//")[2]


def newest(pod: Object) -> str:
    """The id of the newest container that has lived, were it ever so short that nobody saw it run; empty where there is none."""
    status = _status(pod)
    ended = (status.get(name, {}).get("terminated") or {} for name in ("state", "lastState"))
    running = status.get("containerID", "") if status.get("state", {}).get("running") else ""
    return next((_id(each) for each in (running, *(each.get("containerID", "") for each in ended)) if each), "")


def is_previous(pod: Object, container: str) -> bool | None:
    """Whether a container is the one before the pod's present one; None where it is neither."""
    status = _status(pod)
    if container == _id(status.get("containerID", "")):
        return False
    return True if container == _id((status.get("lastState", {}).get("terminated") or {}).get("containerID", "")) else None


def exit_status(pod: Object, container: str) -> int | None:
    """How a container's life ended; None while it goes on."""
    status = _status(pod)
    for state in (status.get("state", {}), status.get("lastState", {})):
        ended = state.get("terminated")
        if ended and _id(ended.get("containerID", "")) in (container, ""):
            return int(ended["exitCode"])
    told = {_id(status.get("containerID", "")), *(_id((status.get(name, {}).get("terminated") or {}).get("containerID", "")) for name in ("state", "lastState"))}
    return 137 if status and container not in told else None  # others have lived since


def ended_of(pod: Object) -> tuple[int, str] | None:
    """Exit status of a pod that has ended, and in words how; None while it may go on."""
    over, terminated = pod["status"], _status(pod).get("state", {}).get("terminated")
    if over.get("phase") not in ("Failed", "Succeeded") and not terminated:
        return None
    status = int(terminated["exitCode"]) if terminated else 137
    why = over.get("reason") or (terminated or {}).get("reason") or over["phase"]
    return status, f"ended with status {status} ({': '.join(filter(None, (why, over.get('message', ''))))})"


def _unschedulable(pod: Object) -> str:
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", condition.get("reason", "")))
    return ""


def _told(event: Object) -> str:
    """When it was said, as far as that is known to the second."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")


def _is_to_come(api: Api, pod: Object) -> bool:
    """Whether a machine for it is being added."""
    events = api.find("Event", pod["metadata"]["namespace"])
    return any(each.get("reason") in _GROWS and each["involvedObject"].get("uid") == pod["metadata"]["uid"] for each in events)


def is_under_way(api: Api, pod: Object) -> bool:
    """Whether what takes its time is being done for a pod: a machine is added, or an image comes."""
    events = [each for each in api.find("Event", pod["metadata"]["namespace"]) if each["involvedObject"].get("uid") == pod["metadata"]["uid"]]
    newest = max(events, key=_told, default=None)
    return any(each.get("reason") in _GROWS for each in events) or (newest is not None and newest.get("reason") == "Pulling")


def trouble(api: Api, pod: Object, waited_s: float) -> str:
    """Why a pod that has been waited for can't come to life; empty as long as it may."""
    name = pod["metadata"]["name"]
    for _, waiting in _waits(pod):
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if _PASSES in message:
            continue
        if reason in _HOPELESS or (reason == "ErrImagePull" and any(word in message.lower() for word in _REFUSED)):
            return f"pod {name}: {reason}: {message}"
    if waited_s < _UNSCHEDULABLE_S or pod.get("spec", {}).get("nodeName"):
        return ""
    said = _unschedulable(pod)
    if (not said or any(word in said for word in _OF_VOLUMES)) and (why := _unbound(api, pod, waited_s)):
        return why
    why = unplaced(pod, waited_s)
    return "" if why and _is_to_come(api, pod) else why


def unplaced(pod: Object, waited_s: float) -> str:
    """Why a pod finds none of the machines that there are; empty as long as it may."""
    why = _unschedulable(pod)
    patience_s = _UNBOUND_S if any(word in why for word in _OF_VOLUMES) else _UNSCHEDULABLE_S
    return f"pod {pod['metadata']['name']} finds no node: {why}" if why and waited_s >= patience_s else ""


def _waits(pod: Object) -> Iterator[tuple[str, Object]]:
    """What its containers wait for, those that prepare it too: name, and reason and message."""
    for group in ("initContainerStatuses", "containerStatuses"):
        for status in pod["status"].get(group, ()):
            yield status["name"], status.get("state", {}).get("waiting") or {}


def _unbound(api: Api, pod: Object, waited_s: float) -> str:
    """Why one of its claims gets no volume, by the newest word about it; empty as long as it may."""
    volumes = pod.get("spec", {}).get("volumes", ())
    claims = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if "persistentVolumeClaim" in volume}
    events = api.find("Event", pod["metadata"]["namespace"]) if claims else []
    for claim in sorted(claims):
        about = [each for each in events if each["involvedObject"].get("kind") == "PersistentVolumeClaim" and each["involvedObject"].get("name") == claim]
        last = max(about, key=_told, default={})
        reason, message = last.get("reason", ""), last.get("message", "")
        patience_s = _UNSCHEDULABLE_S if any(words in message for words in _NO_CLASS) else _UNBOUND_S
        if reason in ("FailedBinding", "ProvisioningFailed", "ExternalProvisioning") and waited_s >= patience_s:
            return f"volume claim {claim}: {reason}: {message}"
    return ""


def crash(api: Api, pod: Object) -> str:
    """How a container ends that the kubelet has begun to leave pauses between its starts, with its last words; empty where none does."""
    name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
    for container, waiting in _waits(pod):
        if waiting.get("reason") == "CrashLoopBackOff":  # that is after its second end: once may be by chance
            said = api.words(name, space, container, lines=_WORDS, of_last=True)
            return "\n".join((f"pod {name}: CrashLoopBackOff: its container {container} ends again and again", *(f"  {line}" for line in said)))
    return ""


def not_made(api: Api, namespace: str, kind: str, name: str) -> str:
    """Why a workload has no pod, by the newest word of the controller that could not make it; empty where it has said nothing, or has made one since."""
    try:
        makers = {api.get(kind, name, namespace)["metadata"]["uid"]}
    except MissingError:
        return ""
    if kind == "Deployment":
        makers |= {each["metadata"]["uid"] for each in api.find("ReplicaSet", namespace) if _owners(each) & makers}
    about = [each for each in api.find("Event", namespace) if each["involvedObject"].get("uid") in makers and each.get("reason") in (*_FAILED, _MADE)]
    last = max(about, key=lambda each: (_told(each), each["reason"] == _MADE), default={"reason": _MADE})
    return "" if last["reason"] == _MADE else f"{kind} {name}: {last['reason']}: {last.get('message', '')}"


def _owners(thing: Object) -> set[str]:
    return {each["uid"] for each in thing["metadata"].get("ownerReferences", ())}
