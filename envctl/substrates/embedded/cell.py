"""The cell: PID 1 of an environment, and what clients may ask of it.

Standard library only: it starts fast and stays small.  When it ends, however it ends, the kernel ends the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal as signals
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from envctl.errors import EnvctlError, ResourceError
from envctl.model.environment import NodeSpec
from envctl.substrates.embedded import names, root, spawn
from envctl.substrates.embedded.identity import FIRST_LEASE_S, cell_uid
from envctl.substrates.embedded.network import Network
from envctl.substrates.embedded.ports import Ports
from envctl.substrates.embedded.supervisor import Unit
from envctl.substrates.embedded.wire import Message, Peer, readable, spec_from

BRIDGE = root.RESOLVER
LOG_LIMIT_BYTES = 16 << 20
_TICK_S = 1.0


class Cell:
    """The state of a living environment, and what clients may ask of it (`do_…`, one method a request)."""

    def __init__(self, env_id: str, directory: Path) -> None:
        self.id, self.directory = env_id, directory
        self.labels: Mapping[str, str] = {}
        self.ttl_s = FIRST_LEASE_S
        self.touched = now()
        self.units: dict[str, Unit] = {}
        self.ports = Ports()
        self._locks: dict[str, asyncio.Lock] = {}
        self._rotation = 0
        self._in_use = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._cell_uid = cell_uid()

    async def live(self, parent: socket.socket) -> None:
        """Serves until the lease has run out."""
        self.children = spawn.Children()
        self.network = Network(self.children)
        loop = asyncio.get_running_loop()
        for number in (signals.SIGTERM, signals.SIGINT):
            loop.add_signal_handler(number, self.end)
        await names.serve(BRIDGE, self._lookup)
        for name in ("nodes", "logs"):
            (self.directory / name).mkdir(exist_ok=True)
        listener = self._listen()
        self._save()
        parent.send(b"k")
        parent.close()
        self._spawn_task(self._accept(listener))
        while self._in_use or now() < self.touched + self.ttl_s:
            await asyncio.sleep(_TICK_S)
            if self._in_use:
                self.touched = now()
            self._rotate()
        self.end()

    def end(self) -> NoReturn:
        """Ends everything and leaves nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signals.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        shutil.rmtree(self.directory, ignore_errors=True)
        os._exit(0)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        anchor = os.open(self.directory, os.O_PATH)
        before = os.umask(0o177)
        listener.bind(f"/proc/self/fd/{anchor}/cell.sock")
        os.umask(before)
        os.close(anchor)
        listener.listen(64)
        listener.setblocking(False)
        return listener

    def _save(self) -> None:
        kinds = ("user", "pid", "mnt", "net", "ipc", "uts")
        spaces = {kind: Path(f"/proc/self/ns/{kind}").stat().st_ino for kind in kinds}
        text = json.dumps({"id": self.id, "labels": dict(self.labels), "started_at": time.time(), "namespaces": spaces})
        draft = self.directory / "cell.json.new"
        draft.write_text(text)
        draft.replace(self.directory / "cell.json")

    def _spawn_task(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            await readable(listener.fileno())
            with contextlib.suppress(OSError):
                sock, _ = listener.accept()
                sock.setblocking(False)
                self._spawn_task(self._converse(Peer(sock)))

    async def _converse(self, peer: Peer) -> None:
        try:
            while (request := await peer.receive()) is not None:
                await self._answer(peer, *request)
        finally:
            peer.close()

    async def _answer(self, peer: Peer, message: Message, fds: list[int]) -> None:
        name = message.pop("do")
        use = name != "status"  # looking does not prolong a life, using does, for as long as it takes
        self._in_use += use
        try:
            handler: Callable[..., Awaitable[Message | None]] = getattr(self, f"do_{name}")
            extra = {"peer": peer} if name == "spawn" else {}
            reply = await handler(**message, **extra, **({"fds": fds} if fds else {}))
        except EnvctlError as error:
            reply = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except (OSError, TypeError, ValueError, AttributeError) as error:
            reply = {"error": "ResourceError", "message": f"{name}: {type(error).__name__}: {error}", "hint": ""}
        finally:
            for fd in fds:
                with contextlib.suppress(OSError):
                    os.close(fd)
            self._in_use -= use
            self.touched = now() if use else self.touched
        if reply is not None:
            await peer.send(reply)

    # --- what clients may ask ---

    async def do_status(self) -> Message:
        """Everything there is to know."""
        return {
            "id": self.id, "labels": dict(self.labels), "expires_at": time.time() + self.touched + self.ttl_s - now(),
            "endpoints": self.ports.published(), "notes": ["`resources:` is checked, but not enforced yet on this substrate"],
            "nodes": [asdict(unit.view()) for unit in self.units.values()],
        }

    async def do_renew(self, ttl_s: float, labels: Mapping[str, str] | None = None) -> Message:
        """Lives `ttl_s` from now on, and from each later use."""
        self.ttl_s = ttl_s
        if labels is not None:
            self.labels = labels
            self._save()
        return {"expires_at": time.time() + ttl_s}

    async def do_start(self, spec: Message, data: str = "") -> Message:
        """Adopts the node with the same digest, or starts it (in place of an older one) once there is a prepared directory, `data`."""
        wanted = spec_from(spec)
        async with self._locks.setdefault(wanted.name, asyncio.Lock()):
            old = self.units.get(wanted.name)
            prepared = self.directory / "nodes" / wanted.name / data
            if old and adoptable(old, wanted.digest):
                if data:
                    shutil.rmtree(prepared, ignore_errors=True)
                return {"started": True}
            if not data:
                return {"started": False}
            if old:
                await self._remove(old, network=False)
            address = await self.network.join(wanted.name)
            place = prepared.parent / "data"
            prepared.rename(place)
            os.chown(place, self._cell_uid, self._cell_uid)
            log = self.directory / "logs" / f"{wanted.name}.log"
            self.units[wanted.name] = Unit(wanted, address, log, self._launch_node, self._runner(wanted.name))
        return {"started": True}

    async def do_helper(self, spec: Message) -> Message:
        """Keeps a helper running beside the nodes; one of that name and digest is left alone."""
        wanted = spec_from(spec)
        async with self._locks.setdefault(wanted.name, asyncio.Lock()):
            old = self.units.get(wanted.name)
            if old and old.spec.digest == wanted.digest:
                return {}
            if old:
                await old.stop()
            log = self.directory / "logs" / f"{wanted.name}.log"
            self.units[wanted.name] = Unit(wanted, BRIDGE, log, self._launch_helper, self._runner(None))
        return {}

    async def do_wait(self, name: str, timeout_s: float) -> Message:
        """Answers once the node is ready."""
        await self._unit(name).wait_ready(timeout_s)
        return {}

    async def do_stop(self, name: str) -> Message:
        """Ends a node or helper and removes its data."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            if unit := self.units.get(name):
                await self._remove(unit, network=True)
                del self.units[name]
        return {}

    async def do_signal(self, name: str, signal: int) -> Message:
        """Signals the main process; after SIGKILL it answers when the death has been noticed."""
        unit = self._unit(name)
        if signal == signals.SIGKILL:
            await unit.kill()
        else:
            unit.signal(signal)
        return {}

    async def do_hold(self, name: str, lease_s: float) -> Message:
        """No restarts for a while."""
        self._unit(name).hold(lease_s)
        return {}

    async def do_release(self, name: str) -> Message:
        """Restarts again."""
        self._unit(name).release()
        return {}

    async def do_publish(self, name: str, node: str, port: int, address: str, fds: list[int]) -> Message:
        """Accepts on a listener of the host's and forwards to the node.  A name that is there keeps its address."""
        target = (node, self._unit(node).address, port)
        return {"address": await self.ports.publish(name, target, address, fds[0])}

    async def do_spawn(
        self, *, peer: Peer, fds: list[int], node: str | None, where: str, argv: list[str], env: Mapping[str, str], cwd: str,
        tied: bool,
    ) -> None:
        """Runs a command; the connection is its handle.  `tied`: it ends when its client goes."""
        stdio = (fds[0], fds[1], fds[2])
        pid, ended = await self._spawn(node, where, spawn.Command(tuple(argv), env, cwd, stdio))
        for fd in fds:
            os.close(fd)
        fds.clear()
        await peer.send({"pid": pid})
        await self._follow(peer, pid, ended, tied)

    async def _follow(self, peer: Peer, pid: int, ended: asyncio.Future[int], tied: bool) -> None:
        while True:
            request = asyncio.create_task(peer.receive())
            both: set[asyncio.Future[Any]] = {request, ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                request.cancel()
                await asyncio.wait([request])  # it must have let go of the socket before anybody reads it again
                await peer.send({"status": ended.result()})
                return
            asked = request.result()
            with contextlib.suppress(ProcessLookupError):
                if asked is not None:
                    os.kill(pid, asked[0]["signal"])
                elif tied:
                    os.killpg(pid, signals.SIGKILL)
            if asked is None:
                return

    # --- processes ---

    def _unit(self, name: str) -> Unit:
        if name not in self.units:
            nodes = [each for each, unit in self.units.items() if unit.spec.kind != "helper"]
            raise ResourceError(f"there is no node {name!r} in {self.id}", hint=f"nodes: {', '.join(nodes) or 'none'}")
        return self.units[name]

    async def _spawn(self, node: str | None, where: str, command: spawn.Command) -> tuple[int, asyncio.Future[int]]:
        if node is None or where == "netns":
            netns = None if node is None else self.network.namespace(self._unit(node).spec.name)
            command = replace(command, env={**command.env, "ENVCTL_CELL": str(self.directory)})
            return await self.children.fork(spawn.beside(command, netns))
        unit = self._unit(node)
        if unit.pid is None:
            raise ResourceError(f"{node} is {unit.state}: there is nothing to enter")
        command = replace(command, env={**self._node_env(unit.spec), **command.env}, cwd=unit.spec.cwd)
        return await self.children.fork(spawn.inside(command, unit.pid))

    def _node_env(self, spec: NodeSpec) -> dict[str, str]:
        base = {"PATH": spawn.PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "HOSTNAME": spec.name, "ENVCTL_CELL": str(self.directory)}  # noqa: S108 - the node's own
        return {**base, **spec.env}

    def _runner(self, node: str | None) -> Callable[[tuple[str, ...], bool], Awaitable[int]]:
        async def run(argv: tuple[str, ...], inside: bool) -> int:
            with open("/dev/null", "r+b") as null:  # noqa: PTH123, ASYNC230 - a device
                stdio = (null.fileno(),) * 3
                command = spawn.Command(argv, {} if inside else os.environ, "/", stdio)
                try:
                    pid, ended = await self._spawn(node if inside else None, "node", command)
                except ResourceError:
                    return 125
            try:
                return await asyncio.shield(ended)
            except asyncio.CancelledError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signals.SIGKILL)
                raise

        return run

    async def _launch_node(self, spec: NodeSpec) -> tuple[int, asyncio.Future[int]]:
        home = self.directory / "nodes" / spec.name
        (home / "root").mkdir(exist_ok=True)
        place = root.Root(home / "root", spec.name, await self.network.join(spec.name), home / "data", spec.mounts)
        argv = ("/bin/sh", "-c", spawn.INIT, f"envctl-node:{self.id}:{spec.name}", *spec.command)
        with self._log(spec.name) as stdio:
            command = spawn.Command(argv, self._node_env(spec), spec.cwd, stdio)
            return await self.children.fork(spawn.node(command, place, self.network.namespace(spec.name), self._cell_uid))

    async def _launch_helper(self, spec: NodeSpec) -> tuple[int, asyncio.Future[int]]:
        with self._log(spec.name) as stdio:
            command = spawn.Command(spec.command, {**spec.env, "ENVCTL_CELL": str(self.directory)}, spec.cwd, stdio)
            return await self.children.fork(spawn.beside(command, None))

    @contextlib.contextmanager
    def _log(self, name: str) -> Iterator[tuple[int, int, int]]:
        log = os.open(self.directory / "logs" / f"{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        null = os.open("/dev/null", os.O_RDONLY)
        try:
            os.fchown(log, self._cell_uid, self._cell_uid)
            yield null, log, log
        finally:
            os.close(log)
            os.close(null)

    async def _remove(self, unit: Unit, *, network: bool) -> None:
        await unit.stop()
        if unit.spec.kind == "helper":
            return
        data = self.directory / "nodes" / unit.spec.name / "data"
        await self._runner(None)(("rm", "-rf", str(data)), False)  # it may be large, and names must go on being resolved
        if network:
            self.ports.withdraw(unit.spec.name)
            self.network.leave(unit.spec.name)

    # --- housekeeping ---

    def _lookup(self, name: str) -> list[str]:
        if name in self.units:
            return [self.units[name].address]
        found = [unit.address for unit in self.units.values() if unit.spec.component == name]
        self._rotation += 1
        shift = self._rotation % len(found) if found else 0
        return found[shift:] + found[:shift]

    def _rotate(self) -> None:
        """Keeps logs small: what is full becomes `.1`.  The writer goes on with its descriptor, so the content is moved, not the file."""
        for log in (self.directory / "logs").glob("*.log"):
            if log.stat().st_size > LOG_LIMIT_BYTES:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)


def adoptable(unit: Unit, digest: str) -> bool:
    """Whether a unit is what is wanted: same digest, and not a job that failed or a node that was stopped or never started."""
    failed = bool(unit.error) or (unit.state == "exited" and unit.exit_status != 0)
    return unit.spec.digest == digest and unit.state != "stopped" and not failed


def now() -> float:
    """Seconds that count while the machine sleeps, too: a lease does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
