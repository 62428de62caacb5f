"""Faults that are held, as the contract of every fault is asked of them."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

from envctl import plugins
from envctl.faults.base import Fault, World
from envctl.model.topology import Topology
from envctl.substrates.base import Reach
from envctl.toolchain import find

NODES = {"client-0": "a", "server-0": "a", "server-1": "b", "other-0": "b", "trio-0": "a", "trio-1": "a", "trio-2": "a"}
"""Nodes that do nothing but live, and their zones."""
HELD: dict[str, dict[str, Any]] = {
    "packet-loss": {"from": "client", "to": "server", "loss": "30 %"},
    "partition": {"from": "client", "to": "server"},
    "partition one way": {"from": "client", "to": "server", "direction": "forward"},
    "partition, isolated": {"isolate": "server-0"},
    "partition, minority": {"split": "trio"},
    "latency": {"from": "client", "to": "server", "delay": "50ms"},
    "duplicate": {"from": "client", "to": "server-0", "share": "20 %"},
    "reorder": {"from": "client", "to": "server-0", "share": "20 %", "by": "20ms"},
    "corrupt": {"from": "client", "to": "server-0", "share": "20 %"},
    "bandwidth": {"from": "client", "to": "server", "rate": "4 Mbit/s"},
    "crash-loop": {"target": "server", "pick": 1},
    "node-pause": {"target": "server"},
    "node-pause, zone": {"zone": "b"},
    "dns-failure": {"target": "server"},
    "cpu-pressure": {"target": "server-0", "cpus": 0.2},
    "memory-pressure": {"target": "server", "bytes": "48Mi"},
    "disk-full": {"target": "server-0"},
    "time-skew": {"target": "server-0", "jump": "-90s"},
}
TARGETS = {"partition, minority": "trio-0", "node-pause, zone": "server-1", "bandwidth": "client-0"}  # whose restart it outlives; of the others it is server-0


def world_of(reach: Reach, scratch: Path, seed: int = 1) -> World:
    return World(reach, Topology("t", Path("t.yaml"), ("a",), {}), random.Random(seed), scratch)


def make(case: str, world: World) -> Fault:
    fault: Fault = plugins.load("envctl.faults", re.split("[ ,]", case, maxsplit=1)[0]).build(HELD[case], world)
    return fault


def traces(reach: Reach) -> list[tuple[str, str, str]]:
    """What faults leave in nodes: their state, and rules and queueing disciplines."""
    nft, ip = find("nft"), find("ip")
    looks = [([str(nft.programs["nft"]), "list", "ruleset"], nft.env), ([str(ip.programs["tc"]), "qdisc", "show"], ip.env)]
    return [(node.name, node.state, "".join(reach.run(node.name, argv, where="netns", env=dict(env)).stdout for argv, env in looks))
            for node in reach.environment().nodes]
