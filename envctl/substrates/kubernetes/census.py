"""What there is in clusters, by labels and annotations: no file or state is needed to find it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from envctl.substrates.base import Found
from envctl.substrates.keeper.place import directory_at
from envctl.substrates.kubernetes import clusters, forward
from envctl.substrates.kubernetes.api import Api, MissingError, Object, api
from envctl.substrates.kubernetes.identity import ENV, EXPIRES, PLACE, Identity
from envctl.toolchain import cache_dir


def environments(env_id: str = "") -> tuple[Found, ...]:
    """Every environment of this machine, or the one of that id, in the clusters that it has used: alive until its namespace ends.

    One whose context is no longer in the kubeconfig can't be looked at; it need not keep the others from being found.
    """
    lost = clusters.lost(cache_dir(), env_id)
    found = {directory: Found(directory.name, directory, alive=False, unknown=f"there is no context {context} any more") for directory, context in lost.items()}
    for context in sorted(clusters.used(cache_dir(), env_id) - {*lost.values()}):
        for space in api(context).find("Namespace", labels=f"{ENV}={env_id}" if env_id else ENV):
            metadata = space["metadata"]
            directory = directory_at(metadata.get("annotations", {}).get(PLACE, ""))
            if directory and directory.name == metadata["labels"][ENV]:
                expires_at = float(metadata["annotations"].get(EXPIRES) or 0) or None
                found[directory] = Found(directory.name, directory, space["status"].get("phase") == "Active", expires_at)
    if not env_id:
        clusters.forget_all_but(cache_dir(), found)
    return tuple(each for _, each in sorted(found.items()) if env_id in ("", each.id))


def left(directory: Path) -> tuple[str, ...]:
    """The namespace, volumes that were its, and the process that leads its ports."""
    if not (context := clusters.context_of(directory)):
        return ()
    cluster, space = api(context), Identity.of_directory(directory).namespace
    return (*forward.left(directory), *in_cluster(cluster, space, clusters.volumes_of(directory)))


def in_cluster(cluster: Api, space: str, volumes: Sequence[str] | None = None) -> tuple[str, ...]:
    """What a namespace still is; once it is gone, what it has left.

    Its volumes, where they are not known, are sought among those of the whole cluster, which are many.
    """
    try:
        return (f"namespace {space}{''.join(f'; {why}' for why in blocks(cluster.get('Namespace', space)))}",)
    except MissingError:
        there = filter(None, (_found(cluster, name) for name in volumes)) if volumes is not None else cluster.find("PersistentVolume")
        claims = ((each["metadata"]["name"], each["spec"].get("claimRef") or {}) for each in there)
        return tuple(f"persistent volume {name}" for name, claim in claims if claim.get("namespace") == space)


def _found(cluster: Api, volume: str) -> Object | None:
    try:
        return cluster.get("PersistentVolume", volume)
    except MissingError:
        return None


def volumes(cluster: Api, space: str) -> tuple[str, ...]:
    """The cluster's volumes that a namespace's claims have."""
    claims = cluster.find("PersistentVolumeClaim", space)
    return tuple(name for each in claims if (name := each["spec"].get("volumeName")))


def blocks(space: Object) -> list[str]:
    """What keeps a namespace from ending, in the words of the cluster."""
    return [
        str(each["message"]) for each in space.get("status", {}).get("conditions", ())
        if each["status"] == "True" and each["type"].startswith("Namespace") and each.get("message")
    ]
