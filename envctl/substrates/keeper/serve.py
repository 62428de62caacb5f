"""What every keeper answers: the state of an environment, its lease, and what is done to nodes that are there."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import signal as signals
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic

from envctl.errors import EnvctlError, ResourceError
from envctl.model.topology import Resources
from envctl.substrates.keeper import FIRST_LEASE_S
from envctl.substrates.keeper.life import SomeLife
from envctl.substrates.keeper.supervisor import Unit
from envctl.substrates.keeper.wire import Message, Peer

_TICK_S = 1.0


class Keeper(Generic[SomeLife]):
    """The state of a living environment, and what clients may ask of it (`do_…`, one method a request)."""

    looks: ClassVar[tuple[str, ...]] = ("status", "node")  # looking does not prolong a life, using does, for as long as it takes
    with_peer: ClassVar[tuple[str, ...]] = ()  # requests that have descriptors, or more messages than one and its answer

    def __init__(self, env_id: str, directory: Path) -> None:
        self.id, self.directory = env_id, directory
        self.labels: Mapping[str, str] = {}
        self.ttl_s = FIRST_LEASE_S
        self.touched = now()
        self.units: dict[str, Unit[SomeLife]] = {}
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.token = ""  # that every request must bear
        self._in_use = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def until_over(self, tick: Callable[[], None]) -> None:
        """Returns when the lease has run out; calls `tick` every second until then."""
        while self._in_use or now() < self.touched + self.ttl_s:
            await asyncio.sleep(_TICK_S)
            if self._in_use:
                self.touched = now()
            tick()

    @property
    def expires_at(self) -> float:
        """Unix time at which the lease runs out, as it is now."""
        return time.time() + self.touched + self.ttl_s - now()

    def inherit(self, expires_at: float) -> None:
        """Goes on with the lease of the keeper before: one that is started again and again must not live for ever."""
        self.touched = min(now(), now() + expires_at - time.time() - self.ttl_s)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Does something meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def accept(self, listener: socket.socket) -> None:
        """Serves whoever connects to a (non-blocking) listener."""
        while True:
            with contextlib.suppress(OSError):
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                self.spawn(self._serve(Peer(sock)))

    async def _serve(self, peer: Peer) -> None:
        with contextlib.closing(peer):
            if (request := await peer.hear()) is None or not hmac.compare_digest(str(request.pop("token", "")), self.token):
                return
            use = request["do"] not in self.looks
            self._in_use += use
            try:
                await peer.tell(await self._answer(peer, **request))
            finally:
                self._in_use -= use
                self.touched = now() if use else self.touched

    async def _answer(self, peer: Peer, do: str, **fields: Any) -> Message:
        try:
            handler: Callable[..., Awaitable[Message | None]] = getattr(self, f"do_{do}")
            return await handler(**fields, **({"peer": peer} if do in self.with_peer else {})) or {}
        except EnvctlError as error:
            return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and the others are served
            return {"error": "ResourceError", "message": f"{do}: {type(error).__name__}: {error}", "hint": ""}

    def endpoints(self) -> Mapping[str, str]:
        """What is published, by name."""
        return {}

    def notes(self) -> list[str]:
        """What `status` should tell."""
        return []

    def unit(self, name: str) -> Unit[SomeLife]:
        """A node or helper.  Raises ResourceError."""
        if name not in self.units:
            nodes = [each for each, unit in self.units.items() if unit.spec.kind != "helper"]
            raise ResourceError(f"there is no node {name!r} in {self.id}", hint=f"nodes: {', '.join(nodes) or 'none'}")
        return self.units[name]

    # --- what clients may ask ---

    async def do_status(self) -> Message:
        """Everything there is to know."""
        return {
            "id": self.id, "labels": dict(self.labels), "expires_at": self.expires_at,
            "endpoints": dict(self.endpoints()), "notes": self.notes(), "nodes": [asdict(unit.view()) for unit in self.units.values()],
        }

    async def do_node(self, name: str) -> Message:
        """One node or helper."""
        return asdict(self.unit(name).view())

    async def do_renew(self, ttl_s: float, labels: Mapping[str, str] | None = None) -> Message:
        """Lives `ttl_s` from now on, and from each later use."""
        self.ttl_s = ttl_s
        self.labels = self.labels if labels is None else labels
        return {"expires_at": time.time() + ttl_s}

    async def do_wait(self, name: str, timeout_s: float) -> None:
        """Answers once the node is ready."""
        await self.unit(name).wait_ready(timeout_s)

    async def do_signal(self, name: str, signal: int) -> None:
        """Signals the main process; after SIGKILL it answers when the death has been noticed."""
        unit = self.unit(name)
        await (unit.kill() if signal == signals.SIGKILL else unit.signal(signal))

    async def do_hold(self, name: str, lease_s: float) -> None:
        """No restarts for a while."""
        self.unit(name).hold(lease_s)

    async def do_release(self, name: str) -> None:
        """Restarts again."""
        self.unit(name).release()

    async def do_pause(self, name: str, lease_s: float) -> None:
        """Stops a node's processes for a while."""
        await self.unit(name).pause(lease_s)

    async def do_resume(self, name: str) -> None:
        """Lets them go on."""
        await self.unit(name).resume()

    async def do_is_paused(self, name: str) -> Message:
        """Whether a node stands still."""
        return {"paused": await self.unit(name).alive("look at").is_paused()}

    async def do_limit(self, name: str, cpus: float | None, memory_bytes: int | None, lease_s: float) -> None:
        """Bounds what a node may use for a while."""
        await self.unit(name).limit(Resources(cpus, memory_bytes), lease_s)

    async def do_unlimit(self, name: str) -> None:
        """Ends that."""
        await self.unit(name).unlimit()

    async def do_throttled(self, name: str) -> Message:
        """For how long a bound has kept a node from running."""
        return {"seconds": await self.unit(name).alive("look at").throttled()}

    async def do_restart(self, name: str) -> None:
        """Ends it in good order; its supervisor starts it again."""
        await self.unit(name).restart()


def now() -> float:
    """Seconds that count while the machine sleeps, too: a lease does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
