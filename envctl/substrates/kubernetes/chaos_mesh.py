"""Faults by Chaos Mesh, where a cluster has it and the setting asks for it: its objects do what otherwise the agent does.

Their specs can't be changed (chaos-mesh/chaos-mesh#2227), so a lease can't be renewed as their `duration`: the keeper holds it, and
`duration` is what ends them should the keeper be gone for good.  That they act is measured by the faults themselves, as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from envctl.errors import EnvctlError, ResourceError
from envctl.substrates.kubernetes.api import Api, MissingError, Object, path_of
from envctl.substrates.kubernetes.identity import NODE, Identity
from envctl.waiting import until

SETTING = "ENVCTL_KUBERNETES_CHAOS_MESH"
GROUP = "chaos-mesh.org"
KINDS = ("NetworkChaos", "PodChaos")
RIGHTS: Object = {"apiGroups": [GROUP], "resources": [kind.lower() for kind in KINDS], "verbs": ["get", "list", "create", "delete"]}
_LONGEST = "10m"
_ACTS_S, _GONE_S, _POLL_S, _AGAIN_S = 20.0, 30.0, 0.1, 2.0


def is_asked_for() -> bool:
    """Whether the setting is set, here or in the keeper's container."""
    return os.environ.get(SETTING, "") not in ("", "0")


def lacks(cluster: Api) -> tuple[tuple[str, str], ...]:
    """(what is missing, what to do) where it is asked for and the cluster has none."""
    try:
        if is_asked_for():
            cluster.ask("GET", f"/apis/{GROUP}/v1alpha1")
    except MissingError:
        return (("the cluster has no Chaos Mesh", f"install it, or unset {SETTING}"),)
    return ()


def loss(identity: Identity, node: str, senders: Sequence[str], receiver: str, share: float) -> Object:
    """Packets of some pods to a node's own are lost; they are where they leave."""
    spec = {
        "action": "loss", "mode": "all", "direction": "to", "selector": _pods(identity, senders),
        "target": {"mode": "all", "selector": _pods(identity, [receiver])},
        "loss": {"loss": f"{share * 100:g}", "correlation": "0"}, "duration": _LONGEST,
    }
    return _object(identity, "NetworkChaos", node, spec)


def kill(identity: Identity, node: str, pod: str) -> Object:
    """A node's pod is killed."""
    spec = {"action": "pod-kill", "mode": "all", "selector": _pods(identity, [pod]), "gracePeriod": 0}
    return _object(identity, "PodChaos", node, spec)


def _pods(identity: Identity, names: Sequence[str]) -> Object:
    """By name: labels would also choose pods that are just ending, on which nothing can be done any more."""
    return {"pods": {identity.namespace: [*names]}}


def _object(identity: Identity, kind: str, node: str, spec: Object) -> Object:
    metadata = {"generateName": "envctl-", "namespace": identity.namespace, "labels": identity.labels(None, **{NODE: node})}
    return {"apiVersion": f"{GROUP}/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


class _Loss(NamedTuple):
    what: tuple[Mapping[str, str], float]  # between which pods of nodes, how much
    end: asyncio.TimerHandle


class ChaosMesh:
    """What a keeper has done by it."""

    def __init__(self, cluster: Api, identity: Identity) -> None:
        self._api, self._identity = cluster, identity
        self._losses: dict[str, _Loss] = {}  # by receiver
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ending: set[asyncio.Task[None]] = set()

    def recover(self) -> None:
        """Begins the end of what an earlier keeper has left."""
        with contextlib.suppress(EnvctlError):  # where Chaos Mesh has gone, so has what it did
            for kind in KINDS:
                self._delete_all(kind)

    async def lose(self, receiver: str, pods: Mapping[str, str], share: float, lease_s: float) -> None:
        """Begins a loss between the pods of nodes, or renews its lease; for other pods it is begun anew.  Raises ResourceError."""
        senders = [pod for node, pod in pods.items() if node != receiver]
        async with self._locks[receiver]:
            known = self._losses.get(receiver)
            if known and known.what == (pods, share):
                known.end.cancel()
            else:
                await self._stop(receiver)
                if not senders or receiver not in pods:
                    return  # until they live again nothing is sent
                await asyncio.to_thread(self._acting, loss(self._identity, receiver, senders, pods[receiver], share))
            self._losses[receiver] = _Loss((pods, share), asyncio.get_running_loop().call_later(lease_s, self._over, receiver))

    def _over(self, receiver: str) -> None:
        task = asyncio.create_task(self._unlose(receiver))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _unlose(self, receiver: str) -> None:
        """Nobody asked for the end but the lease: it is tried until it is there."""
        while True:
            with contextlib.suppress(Exception):  # whatever it is, it has to be tried again
                return await self.unlose(receiver)
            await asyncio.sleep(_AGAIN_S)

    async def unlose(self, receiver: str) -> None:
        """Ends it; returns once Chaos Mesh has taken back what it did.  Idempotent.  Raises ResourceError."""
        async with self._locks[receiver]:
            await self._stop(receiver)

    async def _stop(self, receiver: str) -> None:
        await asyncio.to_thread(self._remove_all, "NetworkChaos", receiver)
        if known := self._losses.pop(receiver, None):
            known.end.cancel()

    async def kill(self, node: str, pod: str) -> None:
        """Has a pod killed.  Raises ResourceError."""
        await asyncio.to_thread(self._acting, kill(self._identity, node, pod))
        await asyncio.to_thread(self._remove_all, "PodChaos", node)

    def _acting(self, thing: Object) -> None:
        """Makes an object and waits until Chaos Mesh says that it acts."""
        kind, space = thing["kind"], self._identity.namespace
        try:
            name = str(self._api.ask("POST", path_of(kind, "", space), thing)["metadata"]["name"])

            def acts() -> bool:
                conditions = self._api.get(kind, name, space).get("status", {}).get("conditions", ())
                return any(each["type"] == "AllInjected" and each["status"] == "True" for each in conditions)

            self._until(acts, _ACTS_S, f"Chaos Mesh has not done what {kind} {name} says")
        except BaseException:  # even an answer that was lost may have left one
            with contextlib.suppress(EnvctlError):  # the lease, or the object's own duration, is what is left then
                self._delete_all(kind, thing["metadata"]["labels"][NODE])
            raise

    def _delete_all(self, kind: str, node: str = "") -> list[Object]:
        """Those of a node, or of all; returns what was still there."""
        space = self._identity.namespace
        found = self._api.find(kind, space, f"{NODE}={node}" if node else "")
        for thing in found:
            self._api.delete(kind, thing["metadata"]["name"], space)
        return found

    def _remove_all(self, kind: str, node: str) -> None:
        """By the cluster's word, not by what is remembered here."""
        self._until(lambda: not self._delete_all(kind, node), _GONE_S, f"Chaos Mesh has not taken back what each {kind} of {node} did")

    def _until(self, condition: Callable[[], bool], within_s: float, unmet: str) -> None:
        if not until(condition, within_s, poll_s=_POLL_S):
            raise ResourceError(f"{unmet} within {within_s:g} s", hint=f"`kubectl describe {','.join(KINDS)} -n {self._identity.namespace}` says more")
