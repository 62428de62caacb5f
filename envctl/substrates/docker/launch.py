"""Starts what an environment's keeper runs: the nodes' containers, helpers beside itself, and commands in both."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
import uuid
from dataclasses import astuple
from datetime import datetime
from pathlib import Path
from typing import Any

from envctl.errors import EnvctlError, ResourceError
from envctl.model.environment import NodeSpec
from envctl.model.topology import Resources
from envctl.substrates.docker.engine import api, translated
from envctl.substrates.docker.exec import MARK, kill_marked
from envctl.substrates.docker.identity import Identity
from envctl.substrates.keeper.helpers import HelperLife, Helpers, beside

_LAST_LINES = 50
_POLL_S = 0.05
_TOLD_S = 5.0  # how late the engine may tell of a death that can be seen
_PERIOD_US, _QUOTA_MIN_US = 100_000, 1_000
ALL_BYTES = 1 << 62


class ContainerLife:
    """One life of a node's container."""

    address = zone = ""

    def __init__(self, container: str, pid: int, ended: asyncio.Future[int], own: Resources) -> None:
        self.container, self._pid, self.ended, self._own = container, pid, ended, own

    def main(self) -> int | None:
        """The process id of its main process on the engine's machine."""
        return self._pid

    async def signal(self, number: int) -> None:
        """Signals the main process."""
        await _in_thread("signalling", api().kill, self.container, int(number))

    async def pause(self, lease_s: float) -> None:  # noqa: ARG002
        """Freezes the container."""
        with contextlib.suppress(ResourceError):  # it may be already
            await _in_thread("pausing", api().pause, self.container)

    async def resume(self) -> None:
        """Thaws it."""
        with contextlib.suppress(ResourceError):
            await _in_thread("resuming", api().unpause, self.container)

    async def is_paused(self) -> bool:
        """Whether it is frozen."""
        return bool((await _in_thread("looking at", api().inspect_container, self.container))["State"]["Paused"])

    async def limit(self, bounds: Resources, lease_s: float) -> None:  # noqa: ARG002
        """Bounds the container; should the keeper be killed, the next one ends that."""
        both = [tuple(each for each in pair if each is not None) for pair in zip(astuple(self._own), astuple(bounds), strict=True)]
        cpus, memory_bytes = (min(pair, default=None) for pair in both)
        await _in_thread("limiting", api().update_container, self.container, **limits(Resources(cpus, memory_bytes)))

    async def unlimit(self) -> None:
        """As it was made."""
        await _in_thread("unlimiting", api().update_container, self.container, **limits(self._own))

    async def throttled(self) -> float:
        """As the kernel has counted it."""
        found = await _in_thread("looking at", api().stats, self.container, stream=False, one_shot=True)
        return float(found["cpu_stats"]["throttling_data"]["throttled_time"]) / 1e9


def limits(resources: Resources) -> dict[str, int]:
    """Limits in the words of an engine's update, for which 0 is no change; it takes no word for the end of a memory limit."""
    cpus, memory = resources.cpus, ALL_BYTES if resources.memory_bytes is None else resources.memory_bytes
    quota = -1 if cpus is None else max(_QUOTA_MIN_US, round(cpus * _PERIOD_US))
    return {"cpu_period": _PERIOD_US, "cpu_quota": quota, "mem_limit": memory, "memswap_limit": memory}


def _is_limited(container: Any, resources: Resources) -> bool:
    """Whether a container may use something else than what it was made with."""
    now, made = container["HostConfig"], limits(resources)
    return max(0, now["CpuQuota"]) != max(0, made["cpu_quota"]) or (now["Memory"] or ALL_BYTES) != made["mem_limit"]


class ContainerLauncher:
    """Starts containers that were made for nodes, as often as they have to be started."""

    def __init__(self, identity: Identity, directory: Path) -> None:
        self._identity, self._helpers = identity, Helpers(directory / "logs")
        self._waiting: dict[str, asyncio.Future[int]] = {}  # by container
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, name="events", daemon=True).start()

    def _watch(self) -> None:
        """Tells of every container of this environment that dies, for as long as the engine answers."""
        since = time.time_ns()
        while True:
            with contextlib.suppress(Exception):  # the engine may be restarted; what was missed is told once it answers again
                filters = {"event": ["die"], **self._identity.filters("node")}
                for event in api().events(since=f"{since // 10**9}.{since % 10**9:09}", decode=True, filters=filters):
                    since = int(event["timeNano"]) + 1  # the death of one life must not be told to the next
                    attributes = event["Actor"]["Attributes"]
                    self._loop.call_soon_threadsafe(self._died, event["Actor"]["ID"], int(attributes.get("exitCode", 0)))
            time.sleep(1)

    def _died(self, container: str, status: int) -> None:
        future = self._waiting.pop(container, None)
        if future and not future.done():
            future.set_result(status)

    async def start(self, spec: NodeSpec) -> ContainerLife | HelperLife:
        """Starts a helper, or the container that was made for a node; one that runs already is adopted."""
        return await (self._helpers.start(spec) if spec.kind == "helper" else self._node(spec))

    async def _node(self, spec: NodeSpec) -> ContainerLife:
        name = self._identity.container(spec.name)
        found = await _in_thread(f"looking at {spec.name}", api().inspect_container, name)
        ended = self._waiting.setdefault(found["Id"], self._loop.create_future())
        begun = False
        if found["State"]["Paused"]:  # by a keeper that was killed
            await _in_thread(f"resuming {spec.name}", api().unpause, name)
        if _is_limited(found, spec.resources):  # in its last life, or by a keeper that was killed
            await _in_thread(f"unlimiting {spec.name}", api().update_container, name, **limits(spec.resources))
        if not found["State"]["Running"] and not (spec.one_shot and found["State"]["Status"] == "exited"):
            await _in_thread(f"starting {spec.name}", api().start, name)
            begun = True
        state = (await _in_thread(f"looking at {spec.name}", api().inspect_container, name))["State"]
        if not state["Running"]:
            if begun:  # the engine will tell; later it would be telling of the next life
                await asyncio.wait([ended], timeout=_TOLD_S)
            self._died(found["Id"], int(state["ExitCode"]))
        return ContainerLife(found["Id"], int(state["Pid"]), ended, spec.resources)

    gives_up = False  # it would leave a container that runs

    async def keep_down(self, spec: NodeSpec) -> None:
        """The engine starts nothing by itself."""

    async def inside(self, argv: tuple[str, ...], spec: NodeSpec, life: ContainerLife | HelperLife) -> int:
        """The exit status of a command in a node."""
        assert isinstance(life, ContainerLife)
        mark = uuid.uuid4().hex
        made = await _in_thread(f"entering {spec.name}", api().exec_create, life.container, list(argv), environment={MARK: mark})
        running = asyncio.create_task(_in_thread(f"entering {spec.name}", api().exec_start, made["Id"]))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            with contextlib.suppress(EnvctlError):  # the node has gone, and with it the command
                await asyncio.to_thread(kill_marked, self._identity, spec.name, mark, signal.SIGKILL)
            raise
        while (status := (await _in_thread(f"entering {spec.name}", api().exec_inspect, made["Id"]))["ExitCode"]) is None:  # noqa: ASYNC110 - the engine tells nobody
            await asyncio.sleep(_POLL_S)  # its output has ended a moment before the engine knows how it did
        return int(status)

    async def beside(self, *argv: str) -> int:
        """The exit status of a command beside the keeper."""
        return await beside(*argv)

    async def written(self, name: str) -> int:
        """A time, by which an engine finds what was said: the end of the last life; zero before the first.

        The begin of a life would not do: an engine notes it a moment after the first words may have been said.
        """
        if self._helpers.log(name).exists():
            return self._helpers.written(name)
        with contextlib.suppress(ResourceError):
            found = await _in_thread(f"looking at {name}", api().inspect_container, self._identity.container(name))
            return max(0, int(_seconds(found["State"]["FinishedAt"]) * 1e9))
        return 0

    async def said(self, name: str, since: int) -> str:
        """What was written since then."""
        if self._helpers.log(name).exists():
            return self._helpers.said(name, since)
        return await self._lines(name, **({"since": since / 1e9} if since else {}))

    async def tail(self, name: str) -> str:
        """The last lines."""
        if self._helpers.log(name).exists():
            return self._helpers.tail(name)
        return await self._lines(name, tail=_LAST_LINES)

    async def _lines(self, name: str, **which: Any) -> str:
        said = await _in_thread(f"reading the log of {name}", api().logs, self._identity.container(name), **which)
        return bytes(said).decode(errors="replace")


def _seconds(time_said: str) -> float:
    """Unix time of what an engine says in RFC 3339, with nanoseconds that Python does not read."""
    return datetime.fromisoformat(f"{time_said[:19]}+00:00").timestamp() + float(f"0{time_said[19:].rstrip('Z') or '.0'}")


async def _in_thread(what: str, call: Any, *arguments: Any, **options: Any) -> Any:
    """A call of the engine's API.  Raises ResourceError and CapabilityError."""

    def work() -> Any:
        with translated(what):
            return call(*arguments, **options)

    return await asyncio.to_thread(work)

