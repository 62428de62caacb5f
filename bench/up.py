"""Warm `up` of the whole shop against a bare script that starts the same processes; the next `up`; `down`."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import Figure, show, spread
from bench.bare_manifest import write
from bench.project import copied, envctl
from envctl.engines.base import Realisation

TITLE = "Bringing up, again, and down"
PAIRS = 5
SCENARIO = "checkout-under-fire"
CHANGED = "stacks/shop/services/reporting/reporting/__main__.py"
NAMESPACES = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--")


@dataclass(slots=True)
class Taken:
    """Seconds of every call, in the order of measuring."""

    up_wall: list[float] = field(default_factory=list)
    up_cpu: list[float] = field(default_factory=list)
    own_cpu: list[float] = field(default_factory=list)  # of envctl and Pulumi, without the cell and its nodes
    bare_wall: list[float] = field(default_factory=list)
    bare_cpu: list[float] = field(default_factory=list)
    again_wall: list[float] = field(default_factory=list)
    again_cpu: list[float] = field(default_factory=list)
    changed_wall: list[float] = field(default_factory=list)
    changed_cpu: list[float] = field(default_factory=list)
    down_wall: list[float] = field(default_factory=list)


def realisations(root: Path) -> Sequence[Realisation]:
    """What the engines make of the plan of `envctl up --full --scenario …`; everything is prepared."""
    from envctl.session import Asked, make_plan
    from envctl.spec import load_project, scenario_file
    from envctl.stack.program import realised
    from envctl.substrates.embedded import Embedded
    from envctl.toolchain import cache_dir

    project = load_project(root)
    plan, _ = make_plan(project, scenario_file(project, SCENARIO), Asked(full=True))
    return realised(plan, Embedded(), cache_dir(), "")


def bare(realised: Sequence[Realisation]) -> tuple[float, float]:
    """Wall and CPU seconds until the bare script's processes are ready."""
    with tempfile.TemporaryDirectory(prefix="bare-") as name:
        here = Path(name)
        write(realised, here)
        argv = [*NAMESPACES, sys.executable, str(Path(__file__).with_name("bare.py")), name]
        begun = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdin
        said = process.stdout.readline()
        wall = time.perf_counter() - begun
        process.kill()  # and with it, --kill-child, everything in the PID namespace
        process.wait()
        if not said:
            logs = "\n".join(f"{log.name}: {log.read_text(errors='replace')[-300:]}" for log in here.glob("*.log"))
            raise RuntimeError(f"the bare script did not come up\n{logs}")
        _await_gone(here)
    return wall, json.loads(said)["cpu_s"]


def _await_gone(here: Path) -> None:
    """The next measurement begins when no process of the last one is left."""
    while any(str(here).encode() in _cmdline(process) for process in Path("/proc").glob("[0-9]*")):
        time.sleep(0.05)
    time.sleep(0.5)


def _cmdline(process: Path) -> bytes:
    try:
        return (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    except OSError:
        return b""


def cell_cpu_s(env_id: str) -> float:
    """User and system seconds of the cell of that environment, everything in it, and what has ended in it."""
    from envctl.substrates.embedded import Embedded, census

    cell = next(pid for each in Embedded.environments() if each.id == env_id for pid in census.cells(each.directory))
    stats, members = dict(_stats()), {cell}
    while more := {pid for pid, (parent, _) in stats.items() if parent in members} - members:
        members |= more
    return sum(stats[pid][1] for pid in members) / os.sysconf("SC_CLK_TCK")


def _stats() -> Iterator[tuple[int, tuple[int, int]]]:
    """Process → (parent, ticks used by it and by its ended children)."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        yield int(process.name), (int(fields[1]), sum(int(each) for each in fields[11:15]))


def pair(root: Path, realised: Sequence[Realisation], taken: Taken) -> None:
    """One round of everything."""
    up = envctl(root, "up", "--full", "--scenario", SCENARIO, "--output", "json")
    env_id = json.loads(up.output[up.output.index("{"):])["id"]
    taken.up_wall.append(up.wall_s)
    taken.own_cpu.append(up.cpu_s)
    taken.up_cpu.append(up.cpu_s + cell_cpu_s(env_id))
    again = envctl(root, "up", "--full", "--scenario", SCENARIO)
    if "nothing to do" not in again.output:
        raise RuntimeError(f"the second `up` did something\n{again.output}")
    taken.again_wall.append(again.wall_s)
    taken.again_cpu.append(again.cpu_s)
    with (root / CHANGED).open("a") as source:
        source.write("# changed\n")
    changed = envctl(root, "up", "--full", "--scenario", SCENARIO)
    if "1 started" not in changed.output:
        raise RuntimeError(f"the `up` after a change did not replace one node\n{changed.output}")
    taken.changed_wall.append(changed.wall_s)
    taken.changed_cpu.append(changed.cpu_s)
    taken.down_wall.append(envctl(root, "down").wall_s)
    time.sleep(1.0)
    wall, cpu = bare(realised)
    taken.bare_wall.append(wall)
    taken.bare_cpu.append(cpu)


def figures(pairs: int = PAIRS) -> list[Figure]:
    """Measures `pairs` rounds, envctl and the bare script in turn."""
    taken = Taken()
    with copied() as root:
        realised = realisations(root)
        envctl(root, "up", "--full", "--scenario", SCENARIO)  # whatever is prepared once is prepared now
        envctl(root, "down")
        bare(realised)
        for _ in range(pairs):
            pair(root, realised, taken)
    wall, cpu = (statistics.median(ours) / statistics.median(theirs)
                 for ours, theirs in ((taken.up_wall, taken.bare_wall), (taken.up_cpu, taken.bare_cpu)))
    again, changed, down = (statistics.median(each) for each in (taken.again_wall, taken.changed_cpu, taken.down_wall))
    nodes = sum(len(each.nodes) for each in realised)
    return [
        Figure(f"warm `up`, {nodes} nodes, wall", spread(taken.up_wall)),
        Figure("bare script, the same processes, wall", spread(taken.bare_wall)),
        Figure("ratio of wall", f"{wall:.2f} ×", "≤ 1.5 ×", wall <= 1.5),
        Figure("warm `up`, CPU (envctl, Pulumi, cell and nodes, until ready)", spread(taken.up_cpu)),
        Figure("of it envctl and Pulumi", spread(taken.own_cpu)),
        Figure("bare script, CPU until ready", spread(taken.bare_cpu)),
        Figure("ratio of CPU", f"{cpu:.2f} ×"),
        Figure("second `up`, nothing changed, no engine call, wall", spread(taken.again_wall), "≤ 0.7 s", again <= 0.7),
        Figure("the same, CPU", spread(taken.again_cpu)),
        Figure("`up` after a change of one service, CPU of envctl and Pulumi", spread(taken.changed_cpu), "≤ 4 s", changed <= 4),
        Figure("the same, wall (the service's own start included)", spread(taken.changed_wall)),
        Figure("`down`, census empty, wall", spread(taken.down_wall), "≤ 2 s", down <= 2),
    ]


if __name__ == "__main__":
    show(figures(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS))
