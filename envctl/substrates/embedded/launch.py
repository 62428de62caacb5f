"""Starts what a cell runs: nodes and helpers, with their output in their logs, and commands in them or beside them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from pathlib import Path

from envctl.errors import CapabilityError, ResourceError
from envctl.model.environment import NodeSpec
from envctl.model.topology import Resources
from envctl.substrates.embedded import root, spawn
from envctl.substrates.embedded.identity import cell_uid
from envctl.substrates.embedded.network import Network
from envctl.substrates.embedded.spawn import Command, Started
from envctl.substrates.embedded.throttle import Throttle
from envctl.substrates.usage import by_pid_namespace

_LAST_BYTES = 8192
_LOOK_S, _BEGIN_S = 0.002, 2.0
_STOPPING_S = 10.0  # for all processes of a node to stand still: each look finds what was forked since the last one


@dataclass(frozen=True, slots=True)
class Processes:
    """One life of a node (`pid` is its PID 1) or of a helper (`pid` leads its process group)."""

    pid: int
    ended: asyncio.Future[int]
    is_helper: bool
    throttle: Throttle = field(default_factory=Throttle)
    stopped: set[int] = field(default_factory=set)  # by a pause; one that is becoming somebody else's just then is not seen by looking for it
    address = zone = ""

    def main(self) -> int | None:
        """The node's main process (the only child that its init starts), or the helper itself."""
        if self.is_helper:
            return self.pid
        try:
            return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])
        except (OSError, IndexError):
            return None

    def space(self) -> int | None:
        """The number of the node's PID namespace; None for a helper, which has none."""
        with contextlib.suppress(OSError):
            return None if self.is_helper else os.stat(f"/proc/{self.pid}/ns/pid").st_ino  # noqa: PTH116
        return None

    async def signal(self, number: int) -> None:
        """Signals the main process; SIGKILL goes to the node's PID 1 and so ends everything in the node."""
        target = self.pid if number == signal.SIGKILL else self.main()
        if target is None:
            raise ResourceError("there is no process to signal")
        if self.is_helper and number == signal.SIGKILL:
            os.killpg(target, number)
        else:
            os.kill(target, number)

    async def pause(self, lease_s: float) -> None:  # noqa: ARG002
        """Stops every process of the node."""
        self.throttle.paused = True
        deadline = time.monotonic() + _STOPPING_S
        while self._tell(signal.SIGSTOP):  # a process stops when it would run next, which may take a while on a busy machine
            if time.monotonic() > deadline:
                raise ResourceError(f"its processes could not all be stopped within {_STOPPING_S:g} s")
            await asyncio.sleep(_LOOK_S)

    async def resume(self) -> None:
        """Lets them go on."""
        self.throttle.paused = False
        self._tell(signal.SIGCONT)

    async def is_paused(self) -> bool:
        """Whether none of them could run, other than now and then because of a bound on its CPU."""
        if self.throttle.acts and not self.throttle.paused:
            return False
        return set(map(_state, self._pids())) <= {"T", "Z", "X", ""}

    async def limit(self, bounds: Resources, lease_s: float) -> None:  # noqa: ARG002
        """Only its CPU: control groups are not an ordinary user's."""
        if bounds.memory_bytes is not None or bounds.cpus is None:
            raise CapabilityError("the memory of a node can't be limited on the embedded substrate", hint="run it on Docker or Kubernetes")
        self.throttle.begin(self._pids, bounds.cpus)

    async def unlimit(self) -> None:
        """Ends that."""
        self.throttle.end(self._pids)

    async def throttled(self) -> float:
        """As the throttle has counted it."""
        return self.throttle.stood_s

    def _pids(self) -> list[int]:
        return by_pid_namespace().get(self.space() or 0, [])

    def _tell(self, number: int) -> int:
        """Signals every process; returns how many of them could still have made another one."""
        pids = {*self._pids(), *self.stopped}
        running = [pid for pid in pids if _state(pid) not in ("T", "Z", "X", "")]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        self.stopped.clear()
        self.stopped.update(pids if number == signal.SIGSTOP else ())
        return len(running)


class CellLauncher:
    """Starts processes; all of them say in their environment which cell they belong to."""

    def __init__(self, env_id: str, directory: Path) -> None:
        self._id, self._directory = env_id, directory
        self._children = spawn.Children()
        self.network = Network(self._children)
        self.node_uid = cell_uid()  # seen from the cell
        self._mark = {"ENVCTL_CELL": str(directory)}
        null = os.open(os.devnull, os.O_RDWR)
        self._quiet = (null, null, null)  # standard descriptors of what nobody listens to

    async def start(self, spec: NodeSpec) -> Processes:
        """The process of a helper, or PID 1 of a node."""
        log = os.open(self.log(spec.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.fchown(log, self.node_uid, self.node_uid)
            command = Command(spec.command, spec.env, spec.cwd, (self._quiet[0], log, log))
            is_helper = spec.kind == "helper"
            life = Processes(*await (self.run(command) if is_helper else self._node(spec, command)), is_helper)
            await _begun(life)
            return life
        finally:
            os.close(log)

    async def _node(self, spec: NodeSpec, command: Command) -> Started:
        home = self._directory / "nodes" / spec.name
        (home / "root").mkdir(exist_ok=True)
        address, netns = await self.network.join(spec.name), self.network.namespace(spec.name)
        place = root.Root(home / "root", spec.name, address, home / "data", spec.mounts)
        argv = ("/bin/sh", "-c", spawn.INIT, f"envctl-node:{self._id}:{spec.name}", *spec.command)
        command = replace(command, argv=argv, env=self._node_env(spec))
        return await self._children.fork(spawn.node(command, place, netns, self.node_uid))

    async def enter(self, command: Command, spec: NodeSpec, life: Processes) -> Started:
        """Starts a command in a node, in the node's surroundings."""
        command = replace(command, env={**self._node_env(spec), **command.env}, cwd=spec.cwd)
        return await self._children.fork(spawn.inside(command, life.pid))

    async def run(self, command: Command, node: str | None = None) -> Started:
        """Starts a command with the machine's files, in the cell's network or in a node's."""
        command = replace(command, env={**command.env, **self._mark})
        return await self._children.fork(spawn.beside(command, None if node is None else self.network.namespace(node)))

    gives_up = False  # it would leave a process that nobody knows

    async def keep_down(self, spec: NodeSpec) -> None:
        """Nobody else starts anything in a cell."""

    async def inside(self, argv: tuple[str, ...], spec: NodeSpec, life: Processes) -> int:
        """The exit status of a command in a node."""
        return await status_of(self.enter(Command(argv, {}, "/", self._quiet), spec, life))

    async def beside(self, *argv: str) -> int:
        """The exit status of a tool of the machine's that ran beside the nodes."""
        return await self.tool(argv)

    async def tool(self, argv: tuple[str, ...], log: Path | None = None) -> int:
        """Likewise, with its output in a log: what may take long must not hold the cell up."""
        with open(log or os.devnull, "ab") as output:  # noqa: PTH123, ASYNC230 - a local file
            command = Command(argv, os.environ, "/", (self._quiet[0], output.fileno(), output.fileno()))
            return await status_of(self.run(command))

    def log(self, name: str) -> Path:
        """Where the output of a node or helper goes."""
        return self._directory / "logs" / f"{name}.log"

    async def written(self, name: str) -> int:
        """How long the log is."""
        log = self.log(name)
        return log.stat().st_size if log.exists() else 0

    async def said(self, name: str, since: int) -> str:
        """What was added to the log."""
        return read(self.log(name), since)

    async def tail(self, name: str) -> str:
        """The end of the log."""
        return read(self.log(name), max(0, await self.written(name) - _LAST_BYTES))

    def _node_env(self, spec: NodeSpec) -> dict[str, str]:
        base = {"PATH": spawn.PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "HOSTNAME": spec.name, **self._mark}  # noqa: S108 - the node's own
        return {**base, **spec.env}


async def _begun(life: Processes) -> None:
    """Waits until a node's init has started its main process, which it tells nobody; a command such as `exec` takes init's own place."""
    deadline = time.monotonic() + _BEGIN_S
    while life.main() is None and not life.ended.done() and time.monotonic() < deadline:  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(_LOOK_S)


def read(log: Path, since: int) -> str:
    """A log from a byte on, or from its start where it has begun anew since; empty when there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(since if since <= os.fstat(file.fileno()).st_size else 0)
        return file.read().decode(errors="replace")


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


async def status_of(starting: Awaitable[Started]) -> int:
    """Waits for a command's exit status; who stops waiting kills it."""
    pid, ended = await starting
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        raise
