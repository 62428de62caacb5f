"""The keeper of an environment in a cluster: `python -m envctl.substrates.kubernetes.keeper`, in a pod of the environment's namespace.

It follows the nodes' pods by the cluster's API, and ends the namespace, itself with it, when the lease has run out.  A keeper
that is killed is started again by the cluster, and finds everything by labels, in the namespace's notes and on its volume.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import ClassVar

from envctl.errors import EnvctlError, ResourceError
from envctl.model.environment import NodeSpec, spec_from
from envctl.substrates.keeper.apart import KeeperApart, listener
from envctl.substrates.keeper.helpers import HelperLife
from envctl.substrates.keeper.place import DIRECTORY, KEEPER_PORT, PLACE_OF, TOKEN
from envctl.substrates.keeper.supervisor import Unit
from envctl.substrates.keeper.terminal import Size
from envctl.substrates.keeper.wire import Message, Peer
from envctl.substrates.kubernetes import chaos_mesh
from envctl.substrates.kubernetes.api import Api, api, path_of
from envctl.substrates.kubernetes.chaos_mesh import ChaosMesh
from envctl.substrates.kubernetes.identity import AGENT, AGENT_OF, EXPIRES, NEXT_AGENT, SPEC, Identity
from envctl.substrates.kubernetes.launch import PodLauncher, PodLife
from envctl.substrates.kubernetes.notes import Notes
from envctl.substrates.kubernetes.objects import WORKLOADS
from envctl.substrates.kubernetes.volume import lead, lead_all

_KEPT = "keeper.json"
_THREADS = 64
_CHUNK = 1 << 16
_TOLD_EVERY_S = 20.0  # how often the namespace is told how long it is to live, for whoever ends it when there is no keeper
Life = PodLife | HelperLife


class PodKeeper(KeeperApart[Life]):
    """What clients may ask of it, with the right token."""

    with_peer: ClassVar[tuple[str, ...]] = (*KeeperApart.with_peer, "enter", "dial")

    looks: ClassVar[tuple[str, ...]] = (*KeeperApart.looks, "dial")  # a connection that somebody forgot must not keep an environment alive

    def __init__(self, identity: Identity, directory: Path) -> None:
        super().__init__(identity.env_id, directory)
        self.identity, self.api = identity, api("")
        self.token = os.environ[TOKEN]
        self.launcher = PodLauncher(identity, directory, self.api)
        self.chaos = ChaosMesh(self.api, identity) if chaos_mesh.is_asked_for() else None
        self._notes = Notes(lambda: self.api, identity)

    async def live(self) -> None:
        """Serves until the lease has run out."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, os._exit, 0)
        await asyncio.to_thread(self._take_over)
        await asyncio.to_thread(self._adopt)
        self.spawn(self.accept(listener(KEEPER_PORT)))
        self.spawn(self._tell_for_ever())
        await self.until_over(lambda: None)
        while True:  # the last act; with the namespace goes this process
            with contextlib.suppress(Exception):  # whatever it is, it has to be tried again
                await asyncio.to_thread(self.api.delete, "Namespace", self.identity.namespace)
            await asyncio.sleep(5)

    def _take_over(self) -> None:
        """Its files, once no earlier keeper is left that writes to them."""
        lead_all()
        logs = lead(self.directory) / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._alone = logs.with_name(".keeper").open("w")
        with contextlib.suppress(OSError):  # storage without locks
            fcntl.flock(self._alone, fcntl.LOCK_EX)

    def _adopt(self) -> None:
        """What an earlier keeper of this environment knew, and the workloads that there are."""
        if self.chaos:
            self.chaos.recover()
        kept = json.loads(self._kept() or "{}")
        self.ttl_s, self.labels = kept.get("ttl_s", self.ttl_s), kept.get("labels", {})
        if kept and (told := self.api.get("Namespace", self.identity.namespace)["metadata"].get("annotations", {}).get(EXPIRES)):
            self.inherit(float(told) + _TOLD_EVERY_S)
        here = {kept.get("address"): self.own_address}  # a pod has an address of its own, at which helpers listen
        for name, helper in kept.get("helpers", {}).items():
            self.helpers[name] = {**helper, "command": [here.get(word, word) for word in helper["command"]]}
        if self.helpers:
            self.keep()
        specs = [*self.helpers.values()]
        for kind in WORKLOADS if kept else ():
            found = self.api.find(kind, self.identity.namespace)
            specs += [json.loads(text) for thing in found if (text := thing["metadata"].get("annotations", {}).get(SPEC))]
        self.launcher.loop.call_soon_threadsafe(self._supervise, specs)

    def _kept(self) -> str | None:
        """What the last keeper noted.  Waits for the cluster: without an answer a lease could not be known."""
        while True:
            with contextlib.suppress(EnvctlError):
                data = self.api.get("ConfigMap", "notes", self.identity.namespace).get("data") or {}
                return data.get(_KEPT) and str(data[_KEPT])
            time.sleep(1)

    def _supervise(self, specs: list[Message]) -> None:
        self.launcher.adopted = {spec["name"] for spec in specs}
        for spec in map(spec_from, specs):
            self.units[spec.name] = self.made(spec, self.own_address if spec.kind == "helper" else "")

    def keep(self) -> None:
        """In the namespace's notes."""
        kept = {"ttl_s": self.ttl_s, "labels": dict(self.labels), "helpers": self.helpers, "address": self.own_address}
        self._notes.write(_KEPT, json.dumps(kept, default=str))

    async def _tell_for_ever(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # whatever it is: who is not told would end what is alive
                await asyncio.to_thread(tell, self.api, self.identity.namespace, int(self.expires_at), os.environ[AGENT_OF])
            await asyncio.sleep(_TOLD_EVERY_S)

    def made(self, spec: NodeSpec, address: str) -> Unit[Life]:
        """A node has the address of its pod."""
        return Unit(spec, address if spec.kind == "helper" else "", self.launcher)

    # --- what clients may ask ---

    async def do_use(self) -> None:
        """Is one: who follows work in another pod asks it again and again."""

    async def do_status(self) -> Message:
        """As every keeper, with the address from which what runs here speaks."""
        return {**await super().do_status(), "address": self.own_address}

    async def do_put(self, *, peer: Peer, path: str) -> None:
        """Takes a file or directory of the host's onto the volume."""
        await super().do_put(peer=peer, path=str(await asyncio.to_thread(lead, Path(path))))

    async def do_stop(self, name: str) -> None:
        """Ends a node in good order, so that its workload may be removed."""
        async with self.locks[name]:
            if not (unit := self.units.pop(name, None)):
                return
            if isinstance(unit.life, PodLife):
                ended = unit.life.ended
                if unit.spec.stop_signal != "SIGTERM":
                    with contextlib.suppress(ResourceError):
                        await unit.life.signal(signal.Signals[unit.spec.stop_signal])
                await self.launcher.keep_down(unit.spec)
                await asyncio.wait([ended], timeout=unit.spec.stop_grace_s + 2)
            await unit.stop()
            (self.directory / "logs" / f"{name}.log").unlink(missing_ok=True)

    async def do_forget(self, name: str) -> None:
        """Follows a node no longer; its workload stays as it is."""
        async with self.locks[name]:
            if unit := self.units.pop(name, None):
                unit.forsake()

    async def do_usage(self) -> Message:
        """What each living node uses."""
        living = {name: unit.life for name, unit in self.units.items() if isinstance(unit.life, PodLife)}
        answers = await asyncio.gather(*(life.ask("usage") for life in living.values()), return_exceptions=True)
        return {"nodes": {name: answer["usage"] for name, answer in zip(living, answers, strict=True) if isinstance(answer, dict)}}

    async def do_enter(self, *, peer: Peer, name: str, where: str, argv: list[str], env: Mapping[str, str], terminal: Size | None = None) -> None:
        """Runs a command in a node, by the agent on its machine."""
        life = self.unit(name).alive("enter")
        if not isinstance(life, PodLife):
            raise ResourceError(f"{name} is a helper, which has no inside")
        request = life.request("enter", where=where, argv=argv, env=dict(env), terminal=terminal)
        lines = await asyncio.to_thread(self.launcher.agents.open, life.machine, request)
        with contextlib.closing(lines):
            await _joined(peer, lines.sock.detach())

    async def do_signal(self, name: str, signal: int) -> None:
        """As always, but Chaos Mesh kills where that is asked for."""
        life, chaos = self.unit(name).life, self.chaos
        if signal == SIGKILL and chaos and isinstance(life, PodLife):
            await self.unit(name).kill(partial(chaos.kill, name, life.pod))
        else:
            await super().do_signal(name, signal)

    async def do_lose(self, name: str, senders: list[str], share: float, lease_s: float) -> Message:
        """Has packets lost by Chaos Mesh, where that is asked for."""
        if self.chaos:
            pods = {each: life.pod for each in (name, *senders) if isinstance(life := self.unit(each).life, PodLife)}
            await self.chaos.lose(name, pods, share, lease_s)
        return {"lost": self.chaos is not None}

    async def do_unlose(self, name: str) -> None:
        """Ends that."""
        if self.chaos:
            await self.chaos.unlose(name)

    async def do_dial(self, *, peer: Peer, name: str, port: int) -> None:
        """Joins the client to a port of a node."""
        unit = self.unit(name)
        unit.alive("reach")
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(unit.address, port), 10)
        except (OSError, TimeoutError) as error:
            raise ResourceError(f"port {port} of {name} can't be reached: {error}") from error
        await peer.tell({"connected": True})
        await _pumped(peer, reader, writer)


def tell(cluster: Api, namespace: str, expires_at: int, version: str) -> None:
    """Has a keeper's namespace say how long it lives, and that it speaks to the agents of this version; it is no longer to be, then."""
    path = path_of("Namespace", namespace)
    cluster.merge(path, {"metadata": {"annotations": {EXPIRES: str(expires_at)}, "labels": {AGENT: version}}})
    told = cluster.get("Namespace", namespace)["metadata"]
    if told["labels"].get(NEXT_AGENT) == version:  # and not a later one, which has been said meanwhile
        cluster.merge(path, {"metadata": {"resourceVersion": told["resourceVersion"], "labels": {NEXT_AGENT: None}}})


async def _joined(peer: Peer, descriptor: int) -> None:
    other = socket.socket(fileno=descriptor)
    other.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=other)
    await _pumped(peer, reader, writer)


async def _pumped(peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carries bytes both ways until both sides have ended, or the far one has."""
    loop = asyncio.get_running_loop()

    async def away() -> None:
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(peer.sock, _CHUNK):
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()

    async def back() -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await loop.sock_sendall(peer.sock, data)

    going = asyncio.create_task(away())
    await back()
    going.cancel()
    await asyncio.wait([going])
    writer.close()
    with contextlib.suppress(OSError):
        peer.sock.shutdown(socket.SHUT_RDWR)  # no answer follows what was carried


async def main() -> None:
    """The life of a keeper."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    directory = Path(os.environ[DIRECTORY])
    await PodKeeper(Identity(directory.name, os.environ[PLACE_OF]), directory).live()


if __name__ == "__main__":
    asyncio.run(main())
