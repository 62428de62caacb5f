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
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from envctl.errors import EnvctlError, ResourceError
from envctl.model.environment import NodeSpec, spec_from
from envctl.model.topology import Resources
from envctl.substrates.embedded import names, root, wire
from envctl.substrates.embedded.identity import FIRST_LEASE_S, NAMESPACES
from envctl.substrates.embedded.launch import Launcher
from envctl.substrates.embedded.ports import Ports
from envctl.substrates.embedded.spawn import Command
from envctl.substrates.embedded.supervisor import Unit, last_lines
from envctl.substrates.embedded.wire import Message, Peer

LOG_LIMIT_BYTES = 16 << 20
_TICK_S = 1.0
_LOOKS = ("status", "node")  # looking does not prolong a life, using does, for as long as it takes
# Source (or nothing), target, owner.  By reflink where the file system can; what is there already is of a copy that failed.
_COPY = """rm -rf "$2" && if [ "$1" ]; then cp -a --reflink=auto "$1" "$2"; else mkdir -m 750 "$2"; fi &&
{ [ "$3" = 0 ] || chown -R "$3:$3" "$2"; }"""


class Cell:
    """The state of a living environment, and what clients may ask of it (`do_…`, one method a request)."""

    def __init__(self, env_id: str, directory: Path) -> None:
        self.id, self.directory = env_id, directory
        self.labels: Mapping[str, str] = {}
        self.ttl_s = FIRST_LEASE_S
        self.touched = now()
        self.units: dict[str, Unit] = {}
        self.ports = Ports()
        self.launcher = Launcher(env_id, directory)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._turn = 0
        self._in_use = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self, parent: socket.socket) -> None:
        """Serves until the lease has run out."""
        for number in (signals.SIGTERM, signals.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.end)
        await names.serve(root.RESOLVER, self._lookup)
        for name in ("nodes", "logs"):
            (self.directory / name).mkdir(exist_ok=True)
        spaces = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in NAMESPACES}  # noqa: PTH116
        (self.directory / "cell.json").write_text(json.dumps({"id": self.id, "namespaces": spaces}))
        self._spawn(self._accept(wire.listen(self.directory)))
        parent.send(b"k")
        parent.close()
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

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            with contextlib.suppress(OSError):
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                self._spawn(self._serve(Peer(sock)))

    async def _serve(self, peer: Peer) -> None:
        with contextlib.closing(peer):
            if (request := await peer.hear()) is None:
                return
            use = request["do"] not in _LOOKS
            self._in_use += use
            try:
                await peer.tell(await self._answer(peer, **request))
            finally:
                self._in_use -= use
                self.touched = now() if use else self.touched

    async def _answer(self, peer: Peer, do: str, **fields: Any) -> Message:
        try:
            handler: Callable[..., Awaitable[Message | None]] = getattr(self, f"do_{do}")
            with_peer = {"peer": peer} if do in ("spawn", "publish") else {}
            return await handler(**fields, **with_peer) or {}
        except EnvctlError as error:
            return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except (OSError, TypeError, ValueError, AttributeError) as error:
            return {"error": "ResourceError", "message": f"{do}: {type(error).__name__}: {error}", "hint": ""}

    # --- what clients may ask ---

    async def do_status(self) -> Message:
        """Everything there is to know."""
        unlimited = [name for name, unit in self.units.items() if unit.spec.resources != Resources()]
        return {
            "id": self.id, "labels": dict(self.labels), "expires_at": time.time() + self.touched + self.ttl_s - now(),
            "endpoints": self.ports.published,
            "notes": [f"`resources:` of {', '.join(unlimited)}: checked, but not enforced on this substrate"] if unlimited else [],
            "nodes": [asdict(unit.view()) for unit in self.units.values()],
        }

    async def do_node(self, name: str) -> Message:
        """One node or helper."""
        return asdict(self._unit(name).view())

    async def do_renew(self, ttl_s: float, labels: Mapping[str, str] | None = None) -> Message:
        """Lives `ttl_s` from now on, and from each later use."""
        self.ttl_s = ttl_s
        self.labels = self.labels if labels is None else labels
        return {"expires_at": time.time() + ttl_s}

    async def do_start(self, spec: Message, timeout_s: float) -> Message:
        """Adopts the node or helper with the same digest, or starts it, in place of an older one; answers once it is ready."""
        wanted = spec_from(spec)
        async with self._locks[wanted.name]:
            old = self.units.get(wanted.name)
            if not old or not adoptable(old, wanted.digest):
                await self._start(wanted, old)
        await self._unit(wanted.name).wait_ready(timeout_s)
        return await self.do_node(wanted.name)

    async def do_wait(self, name: str, timeout_s: float) -> None:
        """Answers once the node is ready."""
        await self._unit(name).wait_ready(timeout_s)

    async def do_stop(self, name: str) -> None:
        """Ends a node or helper and removes its data."""
        async with self._locks[name]:
            if unit := self.units.get(name):
                await self._end(unit)
                self.ports.withdraw(name)
                self.launcher.network.leave(name)
                del self.units[name]

    async def do_signal(self, name: str, signal: int) -> None:
        """Signals the main process; after SIGKILL it answers when the death has been noticed."""
        unit = self._unit(name)
        if signal == signals.SIGKILL:
            await unit.kill()
        else:
            unit.signal(signal)

    async def do_hold(self, name: str, lease_s: float) -> None:
        """No restarts for a while."""
        self._unit(name).hold(lease_s)

    async def do_release(self, name: str) -> None:
        """Restarts again."""
        self._unit(name).release()

    async def do_publish(self, *, peer: Peer, name: str, node: str, port: int, address: str) -> Message:
        """Accepts on a listener of the host's and forwards to the node.  A name that is there keeps its address."""
        target = (node, self._unit(node).address, port)
        return {"address": await self.ports.publish(name, target, address, peer.fds[0])}

    async def do_spawn(
        self, *, peer: Peer, node: str | None, where: str, argv: list[str], env: Mapping[str, str], cwd: str, tied: bool,
    ) -> Message:
        """Runs a command; the connection is its handle.  `tied`: it ends when its client goes."""
        unit = None if node is None else self._unit(node)
        command = Command(tuple(argv), env, cwd, (peer.fds[0], peer.fds[1], peer.fds[2]))
        pid, ended = await (unit.enter(command) if unit and where == "node" else self.launcher.beside(command, node))
        peer.drop_fds()
        await peer.tell({"pid": pid})
        obeying = asyncio.create_task(_obey(peer, pid))
        either: set[asyncio.Future[Any]] = {obeying, ended}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            obeying.cancel()
            await asyncio.wait([obeying])  # it must have let go of the socket before it is closed
            return {"status": ended.result()}
        if tied:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signals.SIGKILL)
        return {}

    # --- nodes ---

    def _unit(self, name: str) -> Unit:
        if name not in self.units:
            nodes = [each for each, unit in self.units.items() if unit.spec.kind != "helper"]
            raise ResourceError(f"there is no node {name!r} in {self.id}", hint=f"nodes: {', '.join(nodes) or 'none'}")
        return self.units[name]

    async def _start(self, spec: NodeSpec, old: Unit | None) -> None:
        address, home = root.RESOLVER, self.directory / "nodes" / spec.name
        if spec.kind != "helper":
            home.mkdir(exist_ok=True)
            await self._copy(spec, home / "data.new")  # while the old one still runs
            address = await self.launcher.network.join(spec.name)
        if old:
            await self._end(old)
        if spec.kind != "helper":
            (home / "data.new").rename(home / "data")
        self.units[spec.name] = Unit(spec, address, self.launcher)

    async def _copy(self, spec: NodeSpec, target: Path) -> None:
        """What was prepared for a node, as the user that nodes run as."""
        log, uid = self.launcher.log(spec.name), str(self.launcher.node_uid)
        if await self.launcher.tool("sh", "-c", _COPY, "sh", str(spec.data or ""), str(target), uid, log=log):
            raise ResourceError(f"the data of {spec.name} could not be copied{last_lines(log)}")

    async def _end(self, unit: Unit) -> None:
        await unit.stop()
        await self.launcher.tool("rm", "-rf", str(self.directory / "nodes" / unit.spec.name / "data"))

    # --- housekeeping ---

    def _lookup(self, name: str) -> list[str]:
        nodes = [unit for unit in self.units.values() if unit.spec.kind != "helper"]
        found = [unit.address for unit in nodes if name in (unit.spec.name, unit.spec.component)]
        self._turn += 1
        shift = self._turn % len(found) if found else 0
        return found[shift:] + found[:shift]

    def _rotate(self) -> None:
        """Keeps logs small: what is full becomes `.1`.  The writer goes on with its descriptor, so the content is moved, not the file."""
        for log in (self.directory / "logs").glob("*.log"):
            if log.stat().st_size > LOG_LIMIT_BYTES:
                shutil.copyfile(log, log.with_suffix(".log.1"))
                os.truncate(log, 0)


async def live(env_id: str, directory: Path, parent: socket.socket) -> None:
    """The life of a cell; `parent` hears when it listens."""
    await Cell(env_id, directory).live(parent)


async def _obey(peer: Peer, pid: int) -> None:
    """Hands on signals until the client goes."""
    while (request := await peer.hear()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, request["signal"])


def adoptable(unit: Unit, digest: str) -> bool:
    """Whether a unit is what is wanted: same digest, and not a job that failed or a node that was stopped or never started."""
    failed = bool(unit.error) or (unit.state == "exited" and unit.exit_status != 0)
    return unit.spec.digest == digest and unit.state != "stopped" and not failed


def now() -> float:
    """Seconds that count while the machine sleeps, too: a lease does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
