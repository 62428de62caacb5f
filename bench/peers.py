"""The same processes under `docker compose up --wait`, under envctl on Docker and under envctl embedded: ready, changed, ended, memory.

The compose file is made of what envctl itself would start on Docker: the same images, command lines, variables, users, inits and
order of needs, and health checks that ask for the same at a shorter interval than people write.
"""

from __future__ import annotations

import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench import Figure, show, spread
from bench.compose_cli import compose
from bench.project import ENVCTL, call
from envctl.model.environment import NodeSpec
from envctl.model.topology import Probe

TITLE = "Side by side with Docker Compose"
ROUNDS, SERVICES = 5, 8
IMAGES = ("postgres:15", "redis:7", "apache/kafka:4.1.1", "python:3.11-slim-bookworm")
WAYS = ("compose", "docker", "embedded")
_SERVE = ["python3", "-m", "http.server", "8080"]


@dataclass(slots=True)
class Taken:
    """What one way took, in the order of measuring: seconds, and at the end of each round MB."""

    ready: list[float] = field(default_factory=list)
    update: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def write(root: Path, release: str = "1") -> None:
    """The topology, in which one service has that release, and the compose file of the same."""
    service: dict[str, Any] = {
        "kind": "service", "source": "app", "command": _SERVE, "image": {"reference": IMAGES[3], "command": _SERVE},
        "needs": ["db", "cache"], "ports": {"http": 8080}, "ready": {"http": "/"},
    }
    components: dict[str, Any] = {
        "db": {"kind": "postgres", "version": ">=15", "image": IMAGES[0]},
        "cache": {"kind": "redis", "version": ">=7", "image": IMAGES[1]},
        "bus": {"kind": "kafka", "version": "4.1", "image": IMAGES[2]},
        **{f"web-{chr(97 + number)}": {**service, "env": {"RELEASE": "1" if number else release}} for number in range(SERVICES)},
    }
    stack = root / "stacks" / "peers"
    (stack / "topology.yaml").write_text(yaml.safe_dump({"envctl": "topology/v1", "name": "peers", "components": components}, sort_keys=False))
    (root / "compose.json").write_text(json.dumps(as_compose(stack / "topology.yaml"), indent=1))


def as_compose(topology_file: Path) -> dict[str, Any]:
    """What envctl's engines make of a topology on Docker, as a Compose file."""
    from envctl.engines.base import Site
    from envctl.engines.realise import realise_all
    from envctl.spec import load_topology
    from envctl.toolchain import cache_dir

    topology = load_topology(topology_file)
    names = tuple(topology.components)
    realised = realise_all(topology, names, (), Site(topology, "peers", names, (), cache_dir(), packaging="images"))
    nodes = {each.component: each.nodes[0].name for each in realised}
    return {"name": "peers", "services": {
        node.name: _compose_service(node, [nodes[need] for need in each.needs]) for each in realised for node in each.nodes
    }}


def _compose_service(node: NodeSpec, needs: Sequence[str]) -> dict[str, Any]:
    service = {
        "image": node.image, "command": list(node.command) or None, "entrypoint": None if node.entrypoint is None else list(node.entrypoint),
        "environment": dict(node.env), "user": node.user or None, "init": node.init, "volumes": list(node.volumes),
        "networks": {"default": {"aliases": [node.component]}}, "stop_grace_period": f"{node.stop_grace_s:g}s", "stop_signal": node.stop_signal,
        "healthcheck": {"test": _health(node.ready), "interval": "500ms", "timeout": "5s", "retries": 120},
        "depends_on": {need: {"condition": "service_healthy"} for need in needs},
    }
    doubled: dict[str, Any] = json.loads(json.dumps(service).replace("$", "$$"))
    return {name: value for name, value in doubled.items() if value is not None}


def _health(probe: Probe | None) -> list[str]:
    """A probe as a health check that starts no interpreter; the one of Kafka's log asks its port."""
    if probe and probe.kind == "exec":
        return ["CMD", *probe.command]
    if probe and probe.kind == "http":
        asked = f"exec 3<>/dev/tcp/127.0.0.1/{probe.port} && printf 'GET {probe.target} HTTP/1.0\\r\\n\\r\\n' >&3 && read -r line <&3 && [[ $line == *' 200 '* ]]"
        return ["CMD", "bash", "-c", asked]
    return ["CMD", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9092"]


@contextmanager
def project() -> Iterator[Path]:
    """A repository with the system in it; whatever is up in it is ended at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        root = Path(name) / "peers"
        (root / "stacks/peers/app").mkdir(parents=True)
        (root / "stacks/peers/app/index.html").write_text("ready\n")
        (root / "stacks/peers/Pulumi.yaml").write_text("name: peers\nruntime: python\n")
        (root / "stacks/peers/__main__.py").write_text("from envctl.stack import deploy\n\ndeploy()\n")
        (root / "envctl.yaml").write_text("envctl: project/v1\nstack: stacks/peers\nbase: main\n")
        write(root)
        for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "-q", "-m", "Peers")):
            subprocess.run(["git", *words], cwd=root, check=True)
        try:
            yield root
        finally:
            for command in ([ENVCTL, "-C", str(root), "down"], [str(compose()), "-f", str(root / "compose.json"), "down", "-v"]):
                subprocess.run(command, capture_output=True, check=False)


def up_and_down(root: Path, way: str) -> tuple[list[str], list[str]]:
    """The two commands of one way."""
    if way == "compose":
        program = [str(compose()), "--progress", "quiet", "-f", str(root / "compose.json")]
        return [*program, "up", "-d", "--wait"], [*program, "down", "-v"]
    return [ENVCTL, "-C", str(root), "up", "--full", "--substrate", way], [ENVCTL, "-C", str(root), "down"]


def round_of(root: Path, way: str, taken: Taken) -> None:
    """Up, memory, a change of one service, down; the machine has come to rest in between."""
    up, down = up_and_down(root, way)
    write(root, release="1")
    before = resident_mb()
    _measured(taken.ready, up)
    time.sleep(2.0)
    taken.memory.append(resident_mb() - before)
    write(root, release="2")
    _measured(taken.update, up)
    _measured(taken.down, down)
    time.sleep(2.0)


def _measured(taken: list[float], argv: Sequence[str]) -> None:
    taken.append(call(argv).wall_s)


def resident_mb() -> float:
    """Memory of all processes in other PID namespaces than ours (containers, cells, the tests' own engine), what they share counted once."""
    ours = Path("/proc/self/ns/pid").readlink()
    return sum(_proportional_kb(process, ours) for process in Path("/proc").glob("[0-9]*")) / 1024


def _proportional_kb(process: Path, ours: Path) -> int:
    try:
        if (process / "ns/pid").readlink() == ours:
            return 0
        return next(int(line.split()[1]) for line in (process / "smaps_rollup").read_text().splitlines() if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended, or is one of the kernel's
        return 0


def figures(rounds: int = ROUNDS) -> list[Figure]:
    """Measures so many rounds, the three ways in turn, after one that prepares whatever is prepared once."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    engines, images = (importlib.import_module(f"docker_engine.{name}") for name in ("engine", "images"))
    taken = {way: Taken() for way in WAYS}
    compose()
    with engines.docker_engine() as engine:
        images.ensure(engine, *IMAGES)
        with project() as root:
            for way in WAYS:
                round_of(root, way, Taken())
            for number in range(rounds):
                for way in WAYS[number % 3:] + WAYS[:number % 3]:
                    round_of(root, way, taken[way])
    return list(_figures(taken))


def _figures(taken: Mapping[str, Taken]) -> Iterator[Figure]:
    names = {"compose": "`docker compose`", "docker": "envctl on Docker", "embedded": "envctl embedded"}
    steps: tuple[tuple[str, Callable[[Taken], list[float]], float], ...] = (
        ("ready", lambda one: one.ready, 0.5), ("one service changed and ready", lambda one: one.update, 0.0), ("ended, nothing left", lambda one: one.down, 0.2),
    )
    for what, values, most in steps:
        theirs = statistics.median(values(taken["compose"]))
        for way in WAYS:
            yield Figure(f"{what}: {names[way]}", spread(values(taken[way])))
        for way, limit in (("docker", 1.3), ("embedded", most)):
            ratio = statistics.median(values(taken[way])) / theirs
            target = f"≤ {limit:g} ×" if limit else "–"
            yield Figure(f"{what}: {names[way]} ÷ compose", f"{ratio:.2f} ×", target, ratio <= limit if limit else None)
    for way in WAYS:
        yield Figure(f"memory, all processes: {names[way]}", spread(taken[way].memory, "MB", 0))


if __name__ == "__main__":
    show(figures(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
