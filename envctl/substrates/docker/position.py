"""The position from which faults act on a node: a container of envctl's in the node's network and process namespaces.

It has the right to change packet rules and interfaces there, and to signal what runs there; the node itself gets no right, and
nothing is needed on the engine's machine.  A node that was restarted has a new network namespace: the position is made anew.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

from envctl.errors import ResourceError
from envctl.substrates.docker.engine import api, translated
from envctl.substrates.docker.identity import NODE, Identity

STARTED = "envctl.dev/started"  # label: which start of the node it has entered
_RIGHTS = ("NET_ADMIN", "NET_RAW", "KILL", "SYS_PTRACE", "DAC_READ_SEARCH")
_locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)


def enter(identity: Identity, node: str) -> str:
    """The position container of a node as it runs now.  Raises ResourceError for a node that is down."""
    from docker.errors import NotFound

    name = identity.position(node)
    with _locks[name], translated(f"entering {node}"):
        target = api().inspect_container(identity.container(node))
        if not target["State"]["Running"]:
            raise ResourceError(f"{node} is {target['State']['Status']}: there is nothing to enter")
        started = target["State"]["StartedAt"]
        try:
            there = api().inspect_container(name)
        except NotFound:
            there = None
        if there and there["State"]["Running"] and there["Config"]["Labels"].get(STARTED) == started:
            return name
        if there:
            api().remove_container(name, force=True)
        return _make(identity, node, target["Id"], started)


def _make(identity: Identity, node: str, target: str, started: str) -> str:
    engine: Any = api()
    image = engine.inspect_container(identity.keeper)["Config"]["Image"]
    limits = engine.create_host_config(
        network_mode=f"container:{target}", pid_mode=f"container:{target}", cap_drop=["ALL"], cap_add=list(_RIGHTS), init=False,
        security_opt=["no-new-privileges"],
    )
    engine.create_container(
        image, ["sleep", "infinity"], name=identity.position(node), host_config=limits, user="0",
        labels=identity.labels("position", **{NODE: node, STARTED: started}), entrypoint=[],
    )
    engine.start(identity.position(node))
    return identity.position(node)
