"""Removes everything of an environment from the engine, from outside or by its own keeper."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from envctl.errors import ResourceError
from envctl.substrates.docker.engine import MissingError, ask
from envctl.substrates.docker.identity import Identity

_HARMLESS = ("already in progress", "is not connected", "marked for removal")


def everything(identity: Identity) -> None:
    """Nodes, volumes, the network and the keeper; what is gone already is fine.

    The keeper is the last, so that its lease ends the rest when whoever calls this dies on the way (it may be the keeper itself).
    Its ports, whose removal takes as long as that of the nodes, are removed meanwhile: they belong to its place on the network.
    """
    nodes = [*_containers(identity.filters("position")), *_containers(identity.filters("node"))]
    keepers = _containers(identity.filters("keeper"))
    networks = [each["Id"] for each in ask("GET", "/networks", filters=identity.filters())]
    with ThreadPoolExecutor(len(nodes) + 1) as pool:
        apart = [pool.submit(_disconnect, network, keeper) for network in networks for keeper in keepers]
        list(pool.map(_remove, nodes))
        volumes = pool.submit(_remove_volumes, identity.filters())
        for each in apart:
            each.result()
        for network in networks:
            _gone("DELETE", f"/networks/{network}")
        volumes.result()
    for keeper in keepers:
        _remove(keeper)


def node(identity: Identity, name: str) -> None:
    """The containers and volumes of one node."""
    for container in _containers(identity.filters(node=name)):
        _remove(container)
    _remove_volumes(identity.filters("volume", name))


def _containers(filters: Mapping[str, Any]) -> list[str]:
    return [each["Id"] for each in ask("GET", "/containers/json", all=True, filters=filters)]


def _disconnect(network: str, container: str) -> None:
    _gone("POST", f"/networks/{network}/disconnect", {"Container": container, "Force": True})


def _remove(container: str) -> None:
    """With the volumes that only it has."""
    _gone("DELETE", f"/containers/{container}", force=True, v=True)


def _remove_volumes(filters: Mapping[str, Any]) -> None:
    for volume in ask("GET", "/volumes", filters=filters)["Volumes"] or ():
        _gone("DELETE", f"/volumes/{volume['Name']}", force=True)


def _gone(method: str, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> None:
    with suppress(MissingError):
        try:
            ask(method, path, body, **query)
        except ResourceError as error:
            if not any(harmless in error.message for harmless in _HARMLESS):
                raise
