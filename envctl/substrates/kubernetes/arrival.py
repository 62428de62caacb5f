"""Waits for a keeper, and says with the object and the reason why it can't come, as soon as the cluster says so."""

from __future__ import annotations

import time

from envctl.errors import ResourceError
from envctl.substrates.kubernetes.agents import name_of, selector
from envctl.substrates.kubernetes.api import Api, Object
from envctl.substrates.kubernetes.identity import AGENTS, PART
from envctl.substrates.kubernetes.pods import NO_POD_S, crash, is_ready, is_under_way, not_made, trouble
from envctl.substrates.kubernetes.reach import PodReach

_SILENT_S = 90.0  # how long a keeper may take of which nothing is said
_UNDER_WAY_S = 600.0  # and one for which a machine is added, or whose image comes
_POLL_S = 0.2
_WORDS = 5


def awaited(reach: PodReach, cluster: Api) -> str:
    """Returns when the keeper of an environment answers, empty, or can't come: why, as the cluster has it.

    Raises ResourceError where the cluster says no such thing, and yet it does not answer; CapabilityError.
    """
    begun, space = time.monotonic(), reach.identity.namespace
    while not reach.is_alive():
        waited_s, pod = time.monotonic() - begun, _newest(cluster, space)
        if why := _hopeless(cluster, space, pod, waited_s):
            return why
        if waited_s > _SILENT_S and (waited_s > _UNDER_WAY_S or pod is None or not is_under_way(cluster, pod)):
            raise _silence(reach, waited_s, pod, _said(cluster, space, pod))
        time.sleep(_POLL_S)
    return ""


def _silence(reach: PodReach, waited_s: float, pod: Object | None, said: list[str]) -> ResourceError:
    """It may live, and have what would be lost with it: so nobody but the user ends it."""
    lives = "its pod is ready, but " if pod is not None and is_ready(pod) else ""
    hint = f"the same command waits for it again; `envctl down {reach.identity.env_id}` removes what there is"
    return ResourceError("\n".join((f"{lives}its keeper does not answer after {waited_s:.0f} s", *said)), hint=hint)


def would_lose_files(cluster: Api, space: str) -> bool:
    """Whether what a keeper has written would end with its pod: one without a volume, in which it has lived."""
    if not (pod := _newest(cluster, space)) or any("persistentVolumeClaim" in volume for volume in pod["spec"]["volumes"]):
        return False
    return any(status.get("lastState", {}).get("terminated") for status in pod["status"].get("containerStatuses", ()))


def _hopeless(cluster: Api, space: str, pod: Object | None, waited_s: float) -> str:
    """Why a keeper can't come; empty as long as it may."""
    if pod is None:
        return not_made(cluster, space, "Deployment", "keeper") if waited_s > NO_POD_S else ""
    return trouble(cluster, pod, waited_s) or crash(cluster, pod)


def no_agents(cluster: Api, version: str) -> str:
    """Why a cluster has none of the agents of a version; empty where it has one, or may still get it."""
    return "" if cluster.find("Pod", AGENTS, selector(version), most=1) else not_made(cluster, AGENTS, "DaemonSet", name_of(version))


def _newest(cluster: Api, space: str) -> Object | None:
    pods = [
        pod for pod in cluster.find("Pod", space, f"{PART}=keeper")
        if not pod["metadata"].get("deletionTimestamp") and pod["status"].get("phase") not in ("Failed", "Succeeded")  # another comes in its place
    ]
    return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)


def _said(cluster: Api, space: str, pod: Object | None) -> list[str]:
    """All that there is to be told of a keeper that says nothing."""
    warnings = [each for each in cluster.find("Event", space) if each.get("type") == "Warning"]
    lines = [f"  {each['involvedObject'].get('kind')} {each['involvedObject'].get('name')}: {each.get('reason')}: {each.get('message')}" for each in warnings]
    words = cluster.words(pod["metadata"]["name"], space, "keeper", lines=_WORDS) if pod else []
    return [*lines[-_WORDS:], *(f"  {line}" for line in words)]
