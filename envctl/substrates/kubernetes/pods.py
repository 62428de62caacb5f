"""What a cluster says of pods: how their containers live and end, and why they don't come to life."""

from __future__ import annotations

from envctl.substrates.kubernetes.api import Api, Object
from envctl.substrates.kubernetes.identity import MAIN, NODE

NO_POD_S = 3.0  # after which a controller that has made no pod is asked why
_HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_UNSCHEDULABLE_S, _UNBOUND_S = 10.0, 60.0  # how long a pod may find no machine; its volumes have to be made first
_GROWS = ("TriggeredScaleUp", "Nominated")  # said of a pod by what adds machines (cluster autoscaler, Karpenter): it is worth waiting for


def node_of(pod: Object) -> str:
    """The node that it is a life of."""
    return str(pod["metadata"]["labels"].get(NODE, ""))


def _status(pod: Object) -> Object:
    found: list[Object] = [each for each in pod["status"].get("containerStatuses", ()) if each["name"] == MAIN]
    return found[0] if found else {}


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


def _is_to_come(api: Api, pod: Object) -> bool:
    """Whether a machine for it is being added."""
    events = api.find("Event", pod["metadata"]["namespace"])
    return any(each.get("reason") in _GROWS and each["involvedObject"].get("uid") == pod["metadata"]["uid"] for each in events)


def trouble(api: Api, pod: Object, waited_s: float) -> str:
    """Why a pod that has been waited for can't come to life; empty as long as it may."""
    name, waiting = pod["metadata"]["name"], waiting_of(pod)
    if waiting.get("reason") in _HOPELESS:
        return f"pod {name}: {waiting['reason']}: {waiting.get('message', '')}"
    why = _unschedulable(pod)
    if not why or waited_s < (_UNBOUND_S if "PersistentVolumeClaim" in why else _UNSCHEDULABLE_S) or _is_to_come(api, pod):
        return ""
    return f"pod {name} finds no node: {why}"


def not_made(api: Api, namespace: str, kind: str, name: str) -> str:
    """Why a workload has no pod, by the newest word of the controller that could not make it; empty where it has said nothing."""
    events = api.find("Event", namespace)
    about = [each for each in events if each.get("reason") == "FailedCreate" and f"{each['involvedObject'].get('name', '')}-".startswith(f"{name}-")]
    if not about:
        return ""
    last = max(about, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""))
    return f"{kind} {name}: {last.get('reason', '')}: {last.get('message', '')}"
