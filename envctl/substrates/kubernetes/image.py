"""Images for a cluster: those that are built here are made by the user's Docker engine and brought to the cluster by the user's own way."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections import defaultdict
from functools import cache

from envctl.engines.containers import OWN_IMAGE
from envctl.errors import CapabilityError, ResourceError
from envctl.model.environment import NodeSpec
from envctl.substrates.kubernetes.api import api
from envctl.substrates.locked import locked
from envctl.toolchain import cache_dir

LOAD, REGISTRY = "ENVCTL_KUBERNETES_LOAD", "ENVCTL_KUBERNETES_REGISTRY"
_LOAD_S = 600.0
_HINT = (
    f'set {LOAD} to a command with {{image}}, such as "kind load docker-image {{image}}", or {REGISTRY} to a prefix to push to'
)
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def image_of(spec: NodeSpec, context: str) -> str:
    """The reference of a node's image as the cluster knows it; one that is named is the cluster's to pull.  Raises ResourceError."""
    from envctl.substrates.docker import image

    if spec.image != OWN_IMAGE and spec.build is None:
        return spec.image
    _way()
    return delivered(image.image_of(spec), context)


def own_image(context: str) -> str:
    """The image of keepers and agents.  Whoever needs it while it is made waits for it, and nobody else."""
    from envctl.substrates.docker import image

    _way()
    place = cache_dir() / "kubernetes" / "delivered"
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        return delivered(image.keeper_image(), context)


def _way() -> tuple[str, str]:
    """How images get to the cluster: prefix of a registry, or a command.  Raises CapabilityError where that is not said."""
    registry, load = os.environ.get(REGISTRY, "").rstrip("/"), os.environ.get(LOAD, "")
    if not registry and not load:
        raise CapabilityError("images that are built here are on this machine's Docker engine, and how the cluster gets them is not said", hint=_HINT)
    return registry, load


def delivered(reference: str, context: str) -> str:
    """Brings an image to the cluster, once; the reference by which it is known there."""
    registry, load = _way()
    name = f"{registry}/{reference}" if registry else reference
    mark = cache_dir() / "kubernetes" / "delivered" / _cluster(context) / name.replace("/", "%")
    with _locks[name]:
        if not mark.exists():
            _push(reference, name) if registry else _load(reference, load)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return name


@cache
def _cluster(context: str) -> str:
    """The id of a cluster: the age of a namespace that every one has."""
    return str(api(context).get("Namespace", "kube-system")["metadata"]["uid"])


def _push(reference: str, name: str) -> None:
    from envctl.substrates.docker.engine import client, translated

    with translated(f"pushing {name}"):
        client().images.get(reference).tag(name)
        for said in client().images.push(name, stream=True, decode=True):
            if "error" in said:
                raise ResourceError(f"{name} could not be pushed: {said['error']}")


def _load(reference: str, load: str) -> None:
    argv = [word.replace("{image}", reference) for word in shlex.split(load)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=_LOAD_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"`{' '.join(argv)}` failed: {error}", hint=_HINT) from error
    if done.returncode:
        raise ResourceError(f"`{' '.join(argv)}` failed (exit {done.returncode})\n{(done.stdout + done.stderr)[-2000:]}", hint=_HINT)
