"""The measure of `up`: starts the processes of a topology with nothing around them but what they need to run at all.

`bench/up.py` writes what is to be started (the engines' own command lines, environments, prepared data and probes) and runs

    unshare --user --map-root-user --net --mount --pid --fork --kill-child --mount-proc -- python3 bench/bare.py DIRECTORY

Every node is a process with a network interface of its own on one bridge (they use the same ports), its own /data and /tmp, and
sees its sources and tools where its command line says they are.  Names come from /etc/hosts.  There is no supervision, no lease, no
state, no resolver, no pivoted root, no PID namespace.  Everything that may start at the same time does; readiness is asked by the
same probes at the same intervals as envctl's.  Prints one line of JSON when all is ready, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from envctl.model.environment import probe_from
from envctl.substrates.keeper.probes import until_ready

HERE = Path(sys.argv[1])
ENTER = ("nsenter", "--user", "--net", "--mount", "--root", "--wd", "--preserve-credentials")


async def start(node: Mapping[str, Any]) -> None:
    """Starts a node and waits until it is ready."""
    log = HERE / f"{node['name']}.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *node["start"], env=node["env"], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )

    async def run(argv: tuple[str, ...], inside: bool) -> int:
        prefix = (*ENTER, "--target", str(process.pid), "--") if inside else ()
        asked = await asyncio.create_subprocess_exec(
            *prefix, *argv, env=node["env"] if inside else None, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        return await asked.wait()

    async def said() -> str:
        return log.read_text(errors="replace")

    probe = probe_from(node["ready"])
    if probe:
        await until_ready(probe, node["address"], run, said)


async def provision(work: Mapping[str, Any]) -> None:
    """Topics, databases, migrations: the engine's own command."""
    process = await asyncio.create_subprocess_exec(*work["command"], env={**os.environ, **work["env"]}, stdout=sys.stderr)
    if await process.wait():
        raise SystemExit(f"provisioning ended with status {process.returncode}")


async def component(each: Mapping[str, Any], needs: list[asyncio.Task[None]]) -> None:
    """All nodes of a component at once, when what it needs is complete; then its provision."""
    for need in needs:
        await need
    async with asyncio.TaskGroup() as group:
        for node in each["nodes"]:
            group.create_task(start(node))
    if each["provision"]:
        await provision(each["provision"])


def cpu_s() -> float:
    """User and system seconds of everything in this PID namespace, and of what has ended in it."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        fields = (process / "stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


async def main() -> None:
    """All components; says so when everything is ready."""
    tasks: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group:
        for each in json.loads((HERE / "components.json").read_text()):
            tasks[each["component"]] = group.create_task(component(each, [tasks[need] for need in each["needs"]]))
    print(json.dumps({"cpu_s": cpu_s()}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    subprocess.run(["sh", str(HERE / "ground.sh")], check=True)
    asyncio.run(main())
