"""Links can be shaped wherever the position beside a node's network allows it, from where a run's faults act: beside the nodes."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from grounds import Ground

SLEEP = ("sleep", "300")
LINK = {"from": "client", "to": "server", "direction": "both"}
SHAPED: dict[str, dict[str, Any]] = {
    "latency": {**LINK, "delay": "40ms"},
    "bandwidth": {**LINK, "rate": "8 Mbit/s"},
    "duplicate": {**LINK, "share": "20 %"},
    "reorder": {**LINK, "share": "20 %", "by": "20ms"},
    "corrupt": {**LINK, "share": "20 %"},
}
RUNNER = """
import json, random, sys
from pathlib import Path
from envctl import plugins
from envctl.faults.base import World
from envctl.model.topology import Topology
reach = plugins.load("envctl.substrates", sys.argv[1]).attach(Path(sys.argv[2]))
for kind, params in json.loads(sys.argv[3]).items():
    fault = plugins.load("envctl.faults", kind).build(params, World(reach, Topology("t", Path("t.yaml"), ("a",), {}), random.Random(1), Path(kind)))
    fault.probe()
    fault.apply(30)
    try:
        fault.apply(30)
        effect = fault.verify()
    finally:
        fault.heal()
    gone = fault.absent()
    print(json.dumps([kind, effect.shown, gone.shown, effect.summary, gone.summary, dict(effect.detail)]), flush=True)
"""


@pytest.mark.parametrize("ground", [pytest.param("docker", marks=pytest.mark.docker), pytest.param("kubernetes", marks=pytest.mark.kubernetes)],
                         indirect=True)
def test_links_are_shaped_and_whole_again(ground: Ground) -> None:
    reach, realiser = ground.make()
    for name in ("client-0", "server-0", "other-0"):
        realiser.start_node(ground.node(name, *SLEEP), ready_timeout_s=60)
    read, write = os.pipe()
    process = reach.popen(None, [*reach.own, "-c", RUNNER, ground.substrate.name, str(reach.directory), json.dumps(SHAPED)], stdout=write)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = [json.loads(line) for line in pipe]
    assert process.wait(30) == 0
    assert [kind for kind, shown, gone, *_ in told if shown and gone] == list(SHAPED), told
    assert all(detail["canary_sent"] > 0 and detail["canary_lost"] == 0 for *_, detail in told)
