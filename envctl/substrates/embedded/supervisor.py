"""Keeps one node, or one helper, running: restarts with backoff, readiness, holding, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from envctl.errors import DeadlineError, ResourceError
from envctl.model.environment import Node, NodeSpec, NodeState
from envctl.substrates.embedded.launch import Launcher, status_of
from envctl.substrates.embedded.probes import condition, until_ready
from envctl.substrates.embedded.spawn import Command, Started

_BACKOFF_S, _BACKOFF_MAX_S, _LIVED_S = 0.2, 5.0, 10.0
_LAST_LINES = 15


class Unit:
    """One supervised process."""

    def __init__(self, spec: NodeSpec, address: str, launcher: Launcher) -> None:
        self.spec, self.address, self._launcher = spec, address, launcher
        self._log = launcher.log(spec.name)
        self.state: NodeState = "starting"
        self.starts = 0
        self.started_at: float | None = None
        self.exit_status: int | None = None
        self.pid: int | None = None  # of the node's PID 1, or of the helper
        self.error = ""
        self._launching: asyncio.Task[Started] | None = None
        self._held_until = 0.0  # on the monotonic clock
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._ended: asyncio.Future[int] | None = None
        self._task = asyncio.create_task(self._supervise())

    def view(self) -> Node:
        """The unit as clients see it."""
        spec = self.spec
        return Node(
            spec.name, spec.component, spec.kind, spec.zone, self.address, self.state, self.main_pid(), self.started_at,
            self.starts, self.exit_status, dict(spec.ports), spec.digest,
        )

    def main_pid(self) -> int | None:
        """The node's main process (the only child that its init starts), or the helper itself."""
        if self.pid is None or self.spec.kind == "helper":
            return self.pid
        try:
            return int(Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()[0])
        except (OSError, IndexError):
            return None

    async def enter(self, command: Command) -> Started:
        """Runs a command in the node; a helper has no inside."""
        if self.pid is None:
            raise ResourceError(f"{self.spec.name} is {self.state}: there is nothing to enter")
        if self.spec.kind == "helper":
            return await self._launcher.beside(command)
        return await self._launcher.inside(command, self.spec, self.pid)

    async def _ask(self, argv: tuple[str, ...], inside: bool) -> int:
        try:
            if not inside:
                return await self._launcher.tool(*argv)
            return await status_of(self.enter(Command(argv, {}, "/", self._launcher.quiet)))
        except ResourceError:
            return 125

    def signal(self, number: int) -> None:
        """Sends a signal to the main process; SIGKILL goes to the node's PID 1 and so ends everything in the node."""
        target = self.pid if number == signal.SIGKILL else self.main_pid()
        if target is None:
            raise ResourceError(f"{self.spec.name} is {self.state}: there is no process to signal")
        if self.spec.kind == "helper" and number == signal.SIGKILL:
            os.killpg(target, number)  # it has no PID namespace that would end with it
        else:
            os.kill(target, number)

    async def kill(self) -> None:
        """SIGKILL; returns once the death has been noticed, so that nobody takes the dead for ready."""
        target, ended = self.pid, self._ended
        self.signal(signal.SIGKILL)
        if ended:
            self.exit_status = await ended
        if self.pid == target:
            self.pid = None
            self._enter("starting")

    def hold(self, lease_s: float) -> None:
        """No restarts from now on, for `lease_s` at most: who holds may die.  Another hold renews the lease."""
        self._held_until = time.monotonic() + lease_s
        self._wake.set()

    def release(self) -> None:
        """Restarts are allowed again; one that is due happens at once."""
        self._held_until = 0.0
        self._wake.set()

    async def stop(self) -> None:
        """Ends the process: its stop signal, its grace, then SIGKILL."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._launching:  # a start can't be taken back half-way: it would leave a process that nobody knows
            with contextlib.suppress(ResourceError, OSError):
                self.pid, self._ended = await self._launching
        if self._ended and not self._ended.done():
            with contextlib.suppress(ResourceError, ProcessLookupError):
                self.signal(signal.Signals[self.spec.stop_signal])
                await asyncio.wait([self._ended], timeout=self.spec.stop_grace_s)
            if not self._ended.done():
                self.signal(signal.SIGKILL)
            self.exit_status = await self._ended
        self.pid = None
        self._enter("stopped")

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits for readiness (of a job: for its success).  Raises ResourceError where it can't come any more, DeadlineError."""
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_ready():
                    await self._changed.wait()
        except TimeoutError:
            unmet = "it exits 0" if self.spec.one_shot else condition(self.spec.ready)
            raise DeadlineError(
                f"{self.spec.name} was not ready after {timeout_s:g} s: it is {self.state}{self._last_exit()}; "
                f"still unmet: {unmet}{last_lines(self._log)}"
            ) from None

    def _is_ready(self) -> bool:
        if self.error:
            raise ResourceError(f"{self.spec.name} could not be started: {self.error}")
        if self.state == "stopped":
            raise ResourceError(f"{self.spec.name} was stopped")
        if self.spec.one_shot and self.state == "exited" and self.exit_status:
            raise ResourceError(f"{self.spec.name} failed{self._last_exit()}{last_lines(self._log)}")
        return self.state == ("exited" if self.spec.one_shot else "ready")

    def _last_exit(self) -> str:
        return "" if self.exit_status is None else f" (exit status {self.exit_status}, {self.starts} starts)"

    def _enter(self, state: NodeState) -> None:
        self.state = state
        self._changed.set()
        self._changed.clear()

    async def _supervise(self) -> None:
        backoff = _BACKOFF_S
        while True:
            begun = time.monotonic()
            await self._live()
            if self.spec.one_shot:
                return self._enter("exited")
            backoff = _BACKOFF_S if time.monotonic() - begun > _LIVED_S else backoff
            await self._rest(backoff)
            backoff = min(backoff * 2, _BACKOFF_MAX_S)

    async def _live(self) -> None:
        """One life, from the start to the exit."""
        start = self._log.stat().st_size if self._log.exists() else 0
        self._enter("starting")
        try:
            self._launching = asyncio.create_task(self._launcher.start(self.spec))
            self.pid, ended = await asyncio.shield(self._launching)
        except (ResourceError, OSError) as error:
            self.error = str(error)
            return self._enter("exited")
        self.error, self._ended = "", ended
        self.starts += 1
        self.started_at = time.time()
        watch = asyncio.create_task(self._watch(start))
        try:
            self.exit_status = await asyncio.shield(ended)
            self.pid = None
        finally:
            watch.cancel()
        return None

    async def _watch(self, log_from: int) -> None:
        if self.spec.one_shot:
            return
        if self.spec.ready:
            await until_ready(self.spec.ready, self.address, self._log, log_from, self._ask)
        self._enter("ready")

    async def _rest(self, seconds: float) -> None:
        """Waits before the next start: the backoff, or while held until the release or the end of the hold's lease."""
        due = time.monotonic() + seconds
        while (left := max(due, self._held_until) - time.monotonic()) > 0:
            self._enter("held" if self._held_until > time.monotonic() else "backoff")
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)
                due = 0.0  # held or released: no backoff any more


def last_lines(log: Path) -> str:
    """The end of a log, for a message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8192))
        lines = file.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
    return f"\nlast lines of {log}:\n  " + "\n  ".join(lines) if lines else f"\n{log} is empty"
