"""What there is on the engine, by labels: no file or state is needed to find it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from envctl.substrates.base import Found
from envctl.substrates.docker.engine import ask
from envctl.substrates.docker.identity import ENV, PART, PLACE, Identity
from envctl.substrates.keeper.place import directory_at


def environments(env_id: str = "") -> tuple[Found, ...]:
    """Every environment of this machine, or the one of that id: alive as long as its keeper runs.

    The keeper's port is on the engine's loopback: who asks from a container, or from another machine, reaches the engine but not the keeper.
    """
    found: dict[Path, bool] = {}
    for kind, _, item in _all({"label": [f"{ENV}={env_id}" if env_id else ENV]}):
        labels = item["Labels"]
        if (directory := directory_at(labels.get(PLACE, ""))) and directory.name == labels[ENV]:
            found[directory] = found.get(directory, False) or (kind == "container" and labels.get(PART) == "keeper" and keeps(item))
    return tuple(Found(directory.name, directory, alive, apart=True) for directory, alive in sorted(found.items()))


def keeps(keeper: Mapping[str, Any]) -> bool:
    """Whether a keeper runs, or is being started again, and is on the network: where it is not, somebody has begun to end its environment."""
    return keeper["State"] in ("running", "restarting") and bool(keeper["NetworkSettings"]["Networks"])


def left(directory: Path) -> tuple[str, ...]:
    """Containers, networks and volumes of the environment of that directory."""
    return tuple(f"{kind} {name}" for kind, name, _ in _all(Identity.of_directory(directory).filters()))


def _all(filters: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Kind, name, and what the engine tells of it."""
    containers = ask("GET", "/containers/json", all=True, filters=filters)
    networks, volumes = ask("GET", "/networks", filters=filters), ask("GET", "/volumes", filters=filters)["Volumes"] or ()
    yield from (("container", each["Names"][0].lstrip("/"), each) for each in containers)
    yield from (("network", each["Name"], each) for each in networks)
    yield from (("volume", each["Name"], each) for each in volumes)
