"""A substrate of plain processes and files, for the tests of the Pulumi stack: it outlives envctl and is shared by processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envctl.errors import DeadlineError, NoEnvironmentError
from envctl.model.environment import Environment, Node, NodeSpec
from envctl.substrates.base import Found, NothingMore
from envctl.substrates.embedded.reach import CellReach
from envctl.substrates.keeper.notes import Notes


@dataclass(frozen=True)
class DiskGround:
    """Environments below `cache`/envs; a node is a process that runs its command, `create`d once for each line of its journal."""

    cache: Path

    name = "embedded"
    beside = "198.18.0.1"
    packaging = "files"
    powers = frozenset()

    def __call__(self, name: str) -> DiskGround:
        assert name == "embedded"
        return self

    def names(self) -> tuple[str, ...]:
        return ("embedded",)

    def lacks(self, tools: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:  # noqa: ARG002
        return ()

    def declarer(self, directory: Path) -> NothingMore:  # noqa: ARG002
        return NothingMore()

    def notebook(self, directory: Path) -> Notes:
        return Notes(directory / "notes")

    def directory(self, env_id: str) -> Path:
        return self.cache / "envs" / env_id

    def attach(self, directory: Path) -> DiskWorld:
        world = DiskWorld(directory)
        world.environment()
        return world

    def realiser(self, directory: Path) -> DiskWorld:
        return DiskWorld(directory)

    def environments(self, env_id: str = "") -> tuple[Found, ...]:
        places = sorted(path for path in self.cache.glob(f"envs/{env_id or '*'}") if path.is_dir())
        return tuple(Found(path.name, path, (path / "world.json").exists()) for path in places)

    def census(self, directory: Path) -> tuple[str, ...]:
        return (f"directory {directory}",) if directory.exists() else ()


def publish(path: Path, value: object) -> None:
    temporary = path.with_suffix(f".{threading.get_ident()}")
    temporary.write_text(json.dumps(value))
    temporary.replace(path)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter where it goes while it is read
        return False


@dataclass(frozen=True)
class DiskWorld:
    directory: Path

    @property
    def _world(self) -> Path:
        return self.directory / "world.json"

    def journal(self) -> list[str]:
        file = self.directory.parent / f"{self.directory.name}.journal"
        return file.read_text().splitlines() if file.exists() else []

    def _note(self, line: str) -> None:
        with (self.directory.parent / f"{self.directory.name}.journal").open("a") as file:
            file.write(line + "\n")

    def _nodes(self) -> dict[str, Any]:
        return {path.stem: json.loads(path.read_text()) for path in sorted(self.directory.glob("nodes/*.json"))}

    def create_environment(self, env_id: str, *, ttl_s: float, labels: Mapping[str, str]) -> None:  # noqa: ARG002
        (self.directory / "logs").mkdir(parents=True, exist_ok=True)
        (self.directory / "nodes").mkdir(exist_ok=True)
        new = not self._world.exists()
        publish(self._world, {"labels": dict(labels), "expires_at": time.time() + ttl_s})
        if new:
            self._note("environment")

    def start_node(self, spec: NodeSpec, *, ready_timeout_s: float) -> Node:
        entry = self._nodes().get(spec.name)
        if not (entry and entry["digest"] == spec.digest and alive(entry["pid"])):
            if entry:
                self._kill(entry["pid"])
            process = subprocess.Popen(spec.command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            entry = {"pid": process.pid, "digest": spec.digest, "component": spec.component, "ports": dict(spec.ports)}
            publish(self.directory / "nodes" / f"{spec.name}.json", entry)
            self._note(f"start {spec.name} {spec.digest}")  # last: tests kill us when they read it
        time.sleep(float(spec.env.get("READY_AFTER", "0")))
        if "NEVER_READY" in spec.env:
            raise DeadlineError(f"{spec.name} did not answer on port 1 within {ready_timeout_s} s\n    its last words")
        return self.node(spec.name)

    def stop_node(self, name: str) -> None:
        entry = self._nodes().get(name)
        if entry:
            self._note(f"stop {name}")
            self._kill(entry["pid"])
            (self.directory / "nodes" / f"{name}.json").unlink()

    def end_environment(self) -> None:
        for entry in self._nodes().values():
            self._kill(entry["pid"])
        shutil.rmtree(self.directory, ignore_errors=True)
        if self.directory.parent.exists():
            self._note("end")

    def die(self) -> None:
        """As when the cell is killed: every process ends, the files stay."""
        for entry in self._nodes().values():
            self._kill(entry["pid"])
        self._world.unlink()

    @staticmethod
    def _kill(pid: int) -> None:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        while alive(pid):
            time.sleep(0.005)

    def environment(self) -> Environment:
        if not self._world.exists():
            raise NoEnvironmentError(f"no environment {self.directory.name}")
        world = json.loads(self._world.read_text())
        nodes = tuple(self.node(name) for name in self._nodes())
        return Environment(
            self.directory.name, world["labels"]["stack"], "embedded", self.directory, world["labels"]["plan_digest"], nodes,
            world.get("endpoints", {}), world["expires_at"], world["labels"]
        )

    def node(self, name: str) -> Node:
        entry = self._nodes()[name]
        up = alive(entry["pid"])
        return Node(
            name, entry["component"], "postgres" if entry["component"] == "db" else "service", "a", "198.18.1.1", "ready" if up else "exited", entry["pid"], 1.0, 1, None if up else 137,
            entry["ports"], entry["digest"],
        )

    own = (sys.executable, "-P")
    address = "127.0.0.1"

    def helper(self, name: str, module: str, *arguments: str, ready: Any = None) -> None:  # noqa: ARG002
        return

    def show(self, path: Path) -> None:  # noqa: ARG002
        return

    def log(self, name: str, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:  # noqa: ARG002
        log = self.directory / "logs" / f"{name}.log"
        return iter(log.read_text().splitlines() if log.exists() else [])

    def fetch(self, path: Path, target: Path, *, most: int | None = None) -> None:
        CellReach(self.directory).fetch(path, target, most=most)

    def popen(self, node: str | None, argv: Sequence[str], *, env: Mapping[str, str], stdout: Any, stderr: Any) -> Ended:
        assert node is None
        self._note("provision")
        return Ended(subprocess.run(argv, env={**os.environ, **env}, stdout=stdout, stderr=stderr, check=False).returncode)

    def publish(self, name: str, node: str, port: int) -> str:  # noqa: ARG002
        world = json.loads(self._world.read_text())
        world.setdefault("endpoints", {})[name] = f"127.0.0.1:{port}"
        publish(self._world, world)
        return f"127.0.0.1:{port}"

    def renew(self, ttl_s: float) -> float:
        world = json.loads(self._world.read_text())
        world["expires_at"] = time.time() + ttl_s
        publish(self._world, world)
        self._note("renew")
        return float(world["expires_at"])


@dataclass(frozen=True)
class Ended:
    status: int
    pid: int = 0

    def wait(self, timeout_s: float | None = None) -> int:  # noqa: ARG002
        return self.status
