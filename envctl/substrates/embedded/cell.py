"""The cell: PID 1 of an environment, and what clients may ask of it beyond what every keeper answers.

When it ends, however it ends, the kernel ends the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal as signals
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from envctl.errors import ResourceError
from envctl.model.environment import NodeSpec, spec_from
from envctl.model.topology import Resources
from envctl.substrates.embedded import names, sockets, syscalls
from envctl.substrates.embedded.identity import NAMESPACES, RESOLVER
from envctl.substrates.embedded.launch import CellLauncher, Processes
from envctl.substrates.embedded.spawn import Command, Started
from envctl.substrates.keeper.ports import Ports
from envctl.substrates.keeper.serve import Keeper
from envctl.substrates.keeper.supervisor import Unit, adoptable, last_lines
from envctl.substrates.keeper.wire import Message, Peer

LOG_LIMIT_BYTES = 16 << 20
# Source (or nothing), target, owner.  By reflink where the file system can; what is there already is of a copy that failed.
_COPY = """rm -rf "$2" && if [ "$1" ]; then cp -a --reflink=auto "$1" "$2"; else mkdir -m 750 "$2"; fi &&
{ [ "$3" = 0 ] || chown -R "$3:$3" "$2"; }"""


class Cell(Keeper[Processes]):
    """The keeper of an environment whose nodes are processes in namespaces."""

    looks: ClassVar[tuple[str, ...]] = (*Keeper.looks, "spaces")
    with_peer: ClassVar[tuple[str, ...]] = ("spawn", "publish")

    def __init__(self, env_id: str, directory: Path) -> None:
        super().__init__(env_id, directory)
        self.ports = Ports()
        self.launcher = CellLauncher(env_id, directory)
        self._turn = 0

    async def live(self, parent: socket.socket) -> None:
        """Serves until the lease has run out."""
        for number in (signals.SIGTERM, signals.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.end)
        await names.serve(RESOLVER, self._lookup)
        for name in ("nodes", "logs"):
            (self.directory / name).mkdir(exist_ok=True)
        spaces = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in NAMESPACES}  # noqa: PTH116
        (self.directory / "cell.json").write_text(json.dumps({"id": self.id, "namespaces": spaces}))
        self.spawn(self.accept(sockets.listen(self.directory)))
        parent.send(b"k")
        parent.close()
        await self.until_over(self._rotate)
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

    def endpoints(self) -> Mapping[str, str]:
        """Listeners on the host's loopback."""
        return self.ports.published

    def notes(self) -> list[str]:
        """Whose limits are not enforced."""
        unlimited = [name for name, unit in self.units.items() if unit.spec.resources != Resources()]
        return [f"`resources:` of {', '.join(unlimited)}: checked, but not enforced on this substrate"] if unlimited else []

    # --- what clients may ask ---

    async def do_start(self, spec: Message, timeout_s: float) -> Message:
        """Adopts the node or helper with the same digest, or starts it, in place of an older one; answers once it is ready."""
        wanted = spec_from(spec)
        async with self.locks[wanted.name]:
            old = self.units.get(wanted.name)
            if not old or not adoptable(old, wanted.digest):
                await self._start(wanted, old)
        await self.unit(wanted.name).wait_ready(timeout_s)
        return await self.do_node(wanted.name)

    async def do_stop(self, name: str) -> None:
        """Ends a node or helper and removes its data."""
        async with self.locks[name]:
            if unit := self.units.get(name):
                await self._end(unit)
                self.ports.withdraw(name)
                self.launcher.network.leave(name)
                del self.units[name]

    async def do_spaces(self) -> Message:
        """The number of each living node's PID namespace."""
        return {name: space for name, unit in self.units.items() if unit.life and (space := unit.life.space())}

    async def do_publish(self, *, peer: Peer, name: str, node: str, port: int, address: str) -> Message:
        """Accepts on a listener of the host's and forwards to the node.  A name that is there keeps its address."""
        target = (node, self.unit(node).address, port)
        return {"address": await self.ports.publish(name, target, address, peer.fds[0])}

    async def do_spawn(
        self, *, peer: Peer, node: str | None, where: str, argv: list[str], env: Mapping[str, str], cwd: str, tied: bool,
    ) -> Message:
        """Runs a command; the connection is its handle.  `tied`: it ends when its client goes."""
        command = Command(tuple(argv), env, cwd, (peer.fds[0], peer.fds[1], peer.fds[2]))
        pid, ended = await (self._enter(self.unit(node), command) if node and where == "node" else self._beside(command, node))
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

    async def _enter(self, unit: Unit[Processes], command: Command) -> Started:
        life = unit.alive("enter")
        return await (self.launcher.run(command) if life.is_helper else self.launcher.enter(command, unit.spec, life))

    async def _beside(self, command: Command, node: str | None) -> Started:
        return await self.launcher.run(command, node and self.unit(node).spec.name)

    # --- nodes ---

    async def _start(self, spec: NodeSpec, old: Unit[Processes] | None) -> None:
        address, home = RESOLVER, self.directory / "nodes" / spec.name
        if spec.kind != "helper":
            home.mkdir(exist_ok=True)
            await self._copy(spec, home / "data.new")  # while the old one still runs
            address = await self.launcher.network.join(spec.name)
        if old:
            await self._end(old)
        if spec.kind != "helper":
            (home / "data.new").rename(home / "data")
            if spec.disk_bytes:
                await self._give_disk(spec, home / "data")
        self.units[spec.name] = Unit(spec, address, self.launcher)

    async def _copy(self, spec: NodeSpec, target: Path) -> None:
        """What was prepared for a node, as the user that nodes run as."""
        argv = ("sh", "-c", _COPY, "sh", str(spec.data or ""), str(target), str(self.launcher.node_uid))
        if await self.launcher.tool(argv, self.launcher.log(spec.name)):
            raise ResourceError(f"the data of {spec.name} could not be copied{last_lines(spec.name, await self.launcher.tail(spec.name))}")

    async def _give_disk(self, spec: NodeSpec, data: Path) -> None:
        """A file system of its own, that lives in the cell as long as the node is wanted, in place of the directory with the same content."""
        aside = _mount_disk(data, spec.disk_bytes, self.launcher.node_uid)
        argv = ("sh", "-c", 'cp -a "$1/." "$2" && rm -rf "$1"', "sh", str(aside), str(data))
        if await self.launcher.tool(argv, self.launcher.log(spec.name)):
            syscalls.unmount(str(data))
            said = last_lines(spec.name, await self.launcher.tail(spec.name))
            raise ResourceError(f"the data of {spec.name} does not fit into {spec.disk_bytes:,} bytes{said}")

    async def _end(self, unit: Unit[Processes]) -> None:
        await unit.stop()
        data = self.directory / "nodes" / unit.spec.name / "data"
        if unit.spec.disk_bytes:
            with contextlib.suppress(OSError):  # it could not be made
                syscalls.unmount(str(data))
        await self.launcher.beside("rm", "-rf", str(data))

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


def _mount_disk(data: Path, size: int, uid: int) -> Path:
    """An empty file system of that size in the place of a directory; returns where this is now."""
    aside = data.rename(data.with_name("data.new"))
    data.mkdir()
    syscalls.mount("tmpfs", str(data), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"size={size},mode=750,uid={uid},gid={uid}")
    return aside


async def _obey(peer: Peer, pid: int) -> None:
    """Hands on signals until the client goes."""
    while (request := await peer.hear()) is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, request["signal"])
