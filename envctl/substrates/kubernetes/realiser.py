"""Makes and ends environments in a cluster.  What Pulumi has made already is adopted; what it has not is made here, the same."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from envctl.errors import CapabilityError, LeakError, NoEnvironmentError, ResourceError
from envctl.model.environment import Node, NodeSpec
from envctl.substrates.kubernetes import arrival, census, chaos_mesh, clusters, forward
from envctl.substrates.kubernetes.agents import await_end, end_unused, ensure_agents
from envctl.substrates.kubernetes.api import Api, MissingError, api, path_of
from envctl.substrates.kubernetes.identity import AGENT, DIGEST, EXPIRES, NEXT_AGENT, NODE, PART, Identity, agent_of
from envctl.substrates.kubernetes.image import image_of, own_image
from envctl.substrates.kubernetes.nodes import node_objects, workload_kind
from envctl.substrates.kubernetes.objects import (
    QUOTA,
    WORKLOADS,
    environment_objects,
    namespace_object,
    notes_object,
    token_object,
)
from envctl.substrates.kubernetes.reach import PodReach
from envctl.substrates.kubernetes.ways import ways_in
from envctl.substrates.locked import locked
from envctl.waiting import until

QUOTA_SETTING = "ENVCTL_KUBERNETES_QUOTA"  # such as "requests.cpu=8,limits.memory=16Gi": over what is set anyway
STORAGE_SETTING = "ENVCTL_KUBERNETES_STORAGE"  # a class of storage; "none": the keeper's files end with its pod
_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_FIRST_S = 900.0  # how long a namespace lives whose maker was killed before it had a keeper
_END_S, _NODE_END_S = 120.0, 60.0


class PodRealiser:
    """Makes, adopts and ends the environment of one directory."""

    def __init__(self, directory: Path) -> None:
        self.reach = PodReach(directory)
        self.directory = self.reach.directory
        self.identity = Identity.of_directory(self.directory)
        self._began = False  # whether anything may have been made

    def create_environment(self, env_id: str, *, ttl_s: float, labels: Mapping[str, str]) -> None:
        """Makes the empty environment, or adopts the living one."""
        if env_id != self.directory.name:
            raise ValueError(f"{env_id!r} does not live in {self.directory}")
        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = clusters.is_noted(self.directory)
        context = clusters.remember(self.directory)
        try:
            cluster = api(context)
            if (keeper := self._keeper(cluster)) != "answers":
                self._make(cluster, context, anew=keeper == "stuck")
            else:
                self._keep_agents(cluster, own_image(context))
        except CapabilityError:  # nothing was made: no later command need ask this cluster
            if not known and not self._began:
                clusters.forget(self.directory)
            raise
        except ResourceError as error:
            raise ResourceError(f"{env_id} could not be made: {error.message}", hint=error.hint) from error
        self.reach.renew(ttl_s, labels)

    def _keeper(self, cluster: Api) -> Literal["answers", "stuck", "missing"]:
        """How the environment's keeper does; one that is just replaced is waited for.

        Raises ResourceError for one that does not answer and may yet live, or that can't go on but still has files that no other one would find.
        """
        try:
            if cluster.get("Namespace", self.identity.namespace)["status"].get("phase") != "Active":
                self._await_end(cluster)
                return "missing"
            cluster.get("Deployment", "keeper", self.identity.namespace)
        except MissingError:
            return "missing"
        if not (why := arrival.awaited(self.reach, cluster)):
            return "answers"
        if arrival.would_lose_files(cluster, self.identity.namespace):
            hint = f"its files are in that pod, without a volume: `envctl down {self.identity.env_id}` gives them up, and the same command then makes it anew"
            raise ResourceError(why, hint=hint)
        return "stuck"

    def _make(self, cluster: Api, context: str, *, anew: bool) -> None:
        """Makes the empty environment, and waits for its keeper.  `anew`: in place of one that can't come.  Raises ResourceError, CapabilityError."""
        namespace = namespace_object(self.identity)
        cluster.apply(namespace, only_try=True)  # first: a cluster that does not answer or forbids it says so at once
        for what, hint in chaos_mesh.lacks(cluster):
            raise CapabilityError(what, hint=hint)
        image = own_image(context)  # it may take minutes, in which other environments are made
        self._began = True
        await_end(cluster)  # while other environments are made and ended
        with locked(self.directory.parent):
            namespace["metadata"]["annotations"][EXPIRES] = str(int(time.time() + _FIRST_S))
            namespace["metadata"]["labels"][NEXT_AGENT] = agent_of(image)
            cluster.apply(namespace)
            ensure_agents(cluster, image)  # next: they end the namespace should nobody else
            if anew:
                self._end_keeper(cluster)
            self._apply(cluster, image)
        if why := arrival.awaited(self.reach, cluster) or arrival.no_agents(cluster, agent_of(image)):
            raise ResourceError(why, hint=f"the same command tries again, with what is set then; `envctl down {self.identity.env_id}` removes what there is")

    def _apply(self, cluster: Api, image: str) -> None:
        space = self.identity.namespace
        kept = storage(cluster, space)
        _, *others = environment_objects(self.identity, self.directory, image, quota(), kept, chaos_mesh.is_asked_for(), ways_in(cluster))
        try:
            cluster.get("Secret", "keeper", space)  # a keeper that is there knows that one
        except MissingError:
            cluster.apply(token_object(self.identity, secrets.token_hex(16)))
        for thing in (*others[:-1], notes_object(self.identity), others[-1]):
            cluster.apply(thing)

    def _end_keeper(self, cluster: Api) -> None:
        """Ends a keeper that can't come: another is tried at once, not after the pauses that the cluster has come to, and with what is set now.

        Its files are kept, but for a volume that nobody has given it.
        """
        space, labels = self.identity.namespace, f"{PART}=keeper"
        cluster.delete("Deployment", "keeper", space)
        unbound = [each["metadata"]["name"] for each in cluster.find("PersistentVolumeClaim", space, labels) if each["status"].get("phase") == "Pending"]
        for name in unbound:
            cluster.delete("PersistentVolumeClaim", name, space)

        def gone() -> bool:
            claims = {each["metadata"]["name"] for each in cluster.find("PersistentVolumeClaim", space, labels)}
            return claims.isdisjoint(unbound) and not cluster.find("Pod", space, labels)

        if not until(gone, _NODE_END_S, poll_s=0.2):
            raise ResourceError(f"its keeper can't come, and does not end either: its pod or volume is still in namespace {space}")

    def _keep_agents(self, cluster: Api, image: str) -> None:
        """A keeper of another version, which it gets by this update, has agents of its own.  Those of the present one stay as long as it does."""
        path, version = path_of("Namespace", self.identity.namespace), agent_of(image)
        labels = cluster.ask("GET", path)["metadata"]["labels"]
        if labels.get(AGENT) != version:
            await_end(cluster)
            with locked(self.directory.parent):
                cluster.merge(path, {"metadata": {"labels": {NEXT_AGENT: version}}})
                ensure_agents(cluster, image)
        elif NEXT_AGENT in labels:  # of an update that came to nothing
            cluster.merge(path, {"metadata": {"labels": {NEXT_AGENT: None}}})

    def start_node(self, spec: NodeSpec, *, ready_timeout_s: float) -> Node:
        """Starts a node, or adopts or replaces the one of that name; waits until ready."""
        if not spec.image:
            raise ResourceError(f"{spec.name} has no image, and nodes of this substrate are containers")
        cluster = self.reach.api
        found = self.reach.ask("found", name=spec.name, digest=spec.digest)
        if not found["adopted"]:
            failed = found["digest"] == spec.digest  # and yet not adopted: the cluster may not know it yet
            if not failed and self._is_there(cluster, spec):
                self.reach.ask("forget", name=spec.name)
            else:
                image = image_of(spec, clusters.context_of(self.directory))  # while the old one still runs
                self._remove(spec.name)
                for thing in node_objects(self.identity, spec, image):
                    cluster.apply(thing)
        return self.reach.start(spec, ready_timeout_s)

    def _is_there(self, cluster: Api, spec: NodeSpec) -> bool:
        """Whether its workload was made, by Pulumi or by somebody who was killed before the keeper knew; a job that failed runs again."""
        try:
            thing = cluster.get(workload_kind(spec), spec.name, self.identity.namespace)
        except MissingError:
            return False
        fits = thing["metadata"].get("annotations", {}).get(DIGEST) == spec.digest and not thing["metadata"].get("deletionTimestamp")
        return bool(fits and not thing.get("status", {}).get("failed"))

    def stop_node(self, name: str) -> None:
        """Ends a node and removes its data; one that is not there (or an environment that is not) is fine."""
        with contextlib.suppress(NoEnvironmentError):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self.reach.ask("stop", name=name)
        cluster, space = self.reach.api, self.identity.namespace
        for kind in (*WORKLOADS, "Service", "Secret", "ConfigMap"):
            cluster.delete(kind, name, space)
        of_node = f"{NODE}={name}"

        def gone() -> bool:
            for claim in cluster.find("PersistentVolumeClaim", space, of_node):
                cluster.delete("PersistentVolumeClaim", claim["metadata"]["name"], space)
            return not (cluster.find("Pod", space, of_node) or cluster.find("PersistentVolumeClaim", space, of_node))

        if not until(gone, _NODE_END_S, poll_s=0.2):
            raise ResourceError(f"{name} does not end: its pod or volume is still in namespace {space}")

    def end_environment(self) -> None:
        """Ends everything and waits until nothing is left.  Raises LeakError with the list of what is, and what blocks it."""
        if not (context := clusters.context_of(self.directory)):
            return
        forward.end(self.directory)
        if clusters.is_lost(self.directory):
            raise CapabilityError(f"there is no context {context} in the kubeconfig any more: whether {self.directory.name} is still there can't be told",
                                  hint=f"with another KUBECONFIG, if there is one; if its cluster was deleted, `rm {clusters.note_of(self.directory)}` forgets it")
        cluster = api(context)
        clusters.remember_volumes(self.directory, census.volumes(cluster, self.identity.namespace))
        cluster.delete("Namespace", self.identity.namespace)
        self._hurry(cluster)
        self._await_end(cluster)
        _end_agents(cluster)
        if left := census.left(self.directory):
            raise LeakError(f"{self.directory.name} has left something behind:\n  " + "\n  ".join(left))
        clusters.forget(self.directory)

    def _hurry(self, cluster: Api) -> None:
        """Ends what takes long, and can't come back where nothing new is made: a cluster looks at what is in a namespace only 5 s after its end began, and again 8 s later."""
        space = self.identity.namespace
        with contextlib.suppress(MissingError):
            cluster.ask("DELETE", path_of("Pod", "", space), {"gracePeriodSeconds": 1})
        for claim in cluster.find("PersistentVolumeClaim", space):
            cluster.delete("PersistentVolumeClaim", claim["metadata"]["name"], space)

    def _await_end(self, cluster: Api) -> None:
        def left() -> tuple[str, ...]:
            return census.in_cluster(cluster, self.identity.namespace, clusters.volumes_of(self.directory))

        if not until(lambda: not left(), _END_S, poll_s=0.2):
            raise LeakError(f"{self.directory.name} does not end within {_END_S:g} s:\n  " + "\n  ".join(left()))


def storage(cluster: Api, space: str) -> str | None:
    """The class of the keeper's volume, empty for the cluster's own choice; None where its files are its pod's.

    What an environment was made with stays: a claim can't change, and what is on it would be lost.  A new one has what is set, or else
    a volume where the cluster has a class by default.
    """
    with contextlib.suppress(MissingError):
        return str(cluster.get("PersistentVolumeClaim", "keeper", space)["spec"].get("storageClassName", ""))
    with contextlib.suppress(MissingError):
        cluster.get("Deployment", "keeper", space)
        return None
    if given := os.environ.get(STORAGE_SETTING, ""):
        return None if given == "none" else given
    try:
        classes = cluster.find("StorageClass")
    except CapabilityError:  # who may not look finds out
        return ""
    return "" if any(each["metadata"].get("annotations", {}).get(_DEFAULT) == "true" for each in classes) else None


def quota() -> dict[str, str]:
    """What one environment may use at most."""
    given = dict(part.partition("=")[::2] for part in os.environ.get(QUOTA_SETTING, "").split(",") if part)
    return {**QUOTA, **given}


def _end_agents(cluster: Api) -> None:
    """Agents end with the last environment that has them, whosever it is."""
    if end_unused(cluster):
        try:
            await_end(cluster)
        except ResourceError as error:
            raise LeakError(error.message, hint=error.hint) from error
