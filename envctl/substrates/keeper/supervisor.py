"""Keeps one node, or one helper, running: restarts with backoff, readiness, holding, pausing, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Generic

from envctl.errors import DeadlineError, EnvctlError, ResourceError
from envctl.model.environment import Node, NodeSpec, NodeState
from envctl.model.topology import Resources
from envctl.substrates.keeper.life import Launcher, SomeLife
from envctl.substrates.keeper.probes import condition, until_ready

_BACKOFF_S, _BACKOFF_MAX_S, _LIVED_S = 0.2, 5.0, 10.0
_LAST_LINES = 15


class Unit(Generic[SomeLife]):
    """One supervised node or helper."""

    def __init__(self, spec: NodeSpec, address: str, launcher: Launcher[SomeLife]) -> None:
        self.spec, self.address, self._launcher = spec, address, launcher
        self.zone = spec.zone
        self.state: NodeState = "starting"
        self.starts = 0
        self.started_at: float | None = None
        self.exit_status: int | None = None
        self.life: SomeLife | None = None
        self.error = ""
        self._launching: asyncio.Task[SomeLife] | None = None
        self._held_until = 0.0  # on the monotonic clock
        self._paused: asyncio.TimerHandle | None = None  # what ends the pause when its lease runs out
        self._bounds: tuple[Resources, asyncio.TimerHandle] | None = None  # what it may use now, and what ends that
        self._bounding = asyncio.Lock()
        self._undoing: set[asyncio.Task[None]] = set()  # what has outlived its lease
        self._again = False  # it is ended in order to be started again
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._ended: asyncio.Future[int] | None = None
        self._task = asyncio.create_task(self._supervise())

    def view(self) -> Node:
        """The unit as clients see it."""
        spec = self.spec
        state: NodeState = "paused" if self._paused and self.life else self.state
        return Node(
            spec.name, spec.component, spec.kind, self.zone, self.address, state, self.life.main() if self.life else None,
            self.started_at, self.starts, self.exit_status, dict(spec.ports), spec.digest,
        )

    def alive(self, what: str) -> SomeLife:
        """Its life.  Raises ResourceError with `what` can't be done without."""
        if self.life is None:
            raise ResourceError(f"{self.spec.name} is {self.state}: there is nothing to {what}")
        return self.life

    async def signal(self, number: int) -> None:
        """Sends a signal to the main process."""
        await self.alive("signal").signal(number)

    async def kill(self, by: Callable[[], Awaitable[None]] | None = None) -> None:
        """SIGKILL, or another way; returns once the death has been noticed, so that nobody takes the dead for ready."""
        target, ended = self.alive("signal"), self._ended
        await (by() if by else target.signal(signal.SIGKILL))
        if self._held_until > time.monotonic():  # at once: nobody else may start it meanwhile
            with contextlib.suppress(EnvctlError):
                await self._launcher.keep_down(self.spec)
        if ended:
            self.exit_status = await asyncio.shield(ended)
        if self.life is target:
            self.life = None
            self._enter("starting")

    def hold(self, lease_s: float) -> None:
        """No restarts from now on, for `lease_s` at most: who holds may die.  Another hold renews the lease."""
        self._held_until = time.monotonic() + lease_s
        self._wake.set()

    def release(self) -> None:
        """Restarts are allowed again; one that is due happens at once."""
        self._held_until = 0.0
        self._wake.set()

    async def pause(self, lease_s: float) -> None:
        """Stops every process of the node, for `lease_s` at most.  Another pause renews the lease."""
        life = self.alive("pause")
        self._forget_pause()
        self._paused = self._after(lease_s, self.resume)
        await life.pause(lease_s)
        if self._paused is None and self.life is life:  # resumed, or outlived its lease, while it was being stopped
            await life.resume()

    def _after(self, lease_s: float, undo: Callable[[], Coroutine[None, None, None]]) -> asyncio.TimerHandle:
        def over() -> None:
            task = asyncio.create_task(undo())
            self._undoing.add(task)
            task.add_done_callback(self._undoing.discard)

        return asyncio.get_running_loop().call_later(lease_s, over)

    async def resume(self) -> None:
        """Lets them go on; a node that is not paused is fine."""
        if self._forget_pause() and self.life:
            await self.life.resume()

    def _forget_pause(self) -> bool:
        paused, self._paused = self._paused, None
        if paused:
            paused.cancel()
        return paused is not None

    async def limit(self, bounds: Resources, lease_s: float) -> None:
        """Bounds what the node may use, in all its lives, for `lease_s` at most.  Other bounds take the place of these."""
        self.alive("limit")
        self._bind(bounds, lease_s)
        try:
            await self._fit()
        except BaseException:
            self._bind(None)
            with contextlib.suppress(EnvctlError):  # the bounds before these: their lease has gone with them
                await self._fit()
            raise

    async def unlimit(self) -> None:
        """Gives it back what it may use by itself; a node that is not bounded is fine."""
        self._bind(None)
        await self._fit()

    def _bind(self, bounds: Resources | None, lease_s: float = 0.0) -> None:
        if self._bounds:
            self._bounds[1].cancel()
        self._bounds = (bounds, self._after(lease_s, self.unlimit)) if bounds else None

    async def _fit(self) -> None:
        """Has its present life use what it may now, whatever was asked meanwhile."""
        async with self._bounding:
            if self.life and self._bounds:
                bounds, end = self._bounds
                await self.life.limit(bounds, max(0.0, end.when() - asyncio.get_running_loop().time()))
            elif self.life:
                await self.life.unlimit()

    async def restart(self) -> None:
        """Ends the process in good order, and has it started again at once."""
        if self.life is None or self.spec.one_shot:
            raise ResourceError(f"{self.spec.name} is {self.state}: there is nothing to restart")
        self._again = True
        await self._end()

    async def stop(self) -> None:
        """Ends the process: its stop signal, its grace, then SIGKILL."""
        self._task.cancel()
        await asyncio.wait([self._task])
        if self._launching and self._launcher.gives_up:
            self._launching.cancel()
            await asyncio.wait([self._launching])
        elif self._launching:  # a start can't be taken back half-way: it would leave a process that nobody knows
            with contextlib.suppress(ResourceError, OSError):
                self.life = await self._launching
                self._ended = self.life.ended
        await self._end()
        self.life = None
        self._enter("stopped")

    def forsake(self) -> None:
        """Supervises it no longer; whatever it is goes on."""
        self._task.cancel()
        if self._launching:
            self._launching.cancel()

    async def _end(self) -> None:
        if self.life and self._ended and not self._ended.done():
            await self.resume()
            with contextlib.suppress(ResourceError, ProcessLookupError):
                await self.life.signal(signal.Signals[self.spec.stop_signal])
                await asyncio.wait([self._ended], timeout=self.spec.stop_grace_s)
            if not self._ended.done():
                with contextlib.suppress(ResourceError, ProcessLookupError):
                    await self.life.signal(signal.SIGKILL)
            self.exit_status = await asyncio.shield(self._ended)

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits for readiness (of a job: for its success).  Raises ResourceError where it can't come any more, DeadlineError."""
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._is_ready():
                    await self._changed.wait()
        except TimeoutError:
            unmet = "it exits 0" if self.spec.one_shot else condition(self.spec.ready)
            raise DeadlineError(
                f"{self.spec.name} was not ready after {timeout_s:g} s: it is {self.state}{self._last_exit()}; "
                f"still unmet: {unmet}{await self._last_lines()}"
            ) from None

    async def _is_ready(self) -> bool:
        if self.error:
            raise ResourceError(f"{self.spec.name} could not be started: {self.error}")
        if self.state == "stopped":
            raise ResourceError(f"{self.spec.name} was stopped")
        if self.spec.one_shot and self.state == "exited" and self.exit_status:
            raise ResourceError(f"{self.spec.name} failed{self._last_exit()}{await self._last_lines()}")
        return self.state == ("exited" if self.spec.one_shot else "ready")

    def _last_exit(self) -> str:
        return "" if self.exit_status is None else f" (exit status {self.exit_status}, {self.starts} starts)"

    async def _last_lines(self) -> str:
        return last_lines(self.spec.name, await self._launcher.tail(self.spec.name))

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
        begun = await self._launcher.written(self.spec.name)
        self._enter("starting")
        try:
            self._launching = asyncio.create_task(self._launcher.start(self.spec))
            self.life = await asyncio.shield(self._launching)
        except (EnvctlError, OSError) as error:
            self.error = str(error)
            return self._enter("exited")
        self.error, self._ended, self.address = "", self.life.ended, self.life.address or self.address
        self.zone = self.life.zone or self.spec.zone
        self.starts += 1
        self.started_at = time.time()
        watch = asyncio.create_task(self._watch(begun))
        try:
            if self._bounds:
                with contextlib.suppress(EnvctlError):  # it has ended, or its bounds show no effect
                    await self._fit()
            self.exit_status = await asyncio.shield(self._ended)
            self.life = None
            self._forget_pause()
        finally:
            watch.cancel()
        return None

    async def _watch(self, log_from: int) -> None:
        if self.spec.one_shot:
            return
        if self.spec.ready:
            await until_ready(self.spec.ready, self.address, self._ask, lambda: self._launcher.said(self.spec.name, log_from))
        self._enter("ready")

    async def _ask(self, argv: tuple[str, ...], inside: bool) -> int:
        try:
            if not inside or self.spec.kind == "helper":  # a helper has no inside
                return await self._launcher.beside(*argv)
            return await self._launcher.inside(argv, self.spec, self.alive("enter"))
        except EnvctlError:
            return 125

    async def _rest(self, seconds: float) -> None:
        """Waits before the next start: the backoff, or while held until the release or the end of the hold's lease."""
        due = 0.0 if self._again else time.monotonic() + seconds
        self._again = False
        while (left := max(due, self._held_until) - time.monotonic()) > 0:
            held = self._held_until > time.monotonic()
            self._enter("held" if held else "backoff")
            if held:
                with contextlib.suppress(EnvctlError):
                    await self._launcher.keep_down(self.spec)
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), left)
                due = 0.0  # held or released: no backoff any more


def adoptable(unit: Unit[SomeLife], digest: str) -> bool:
    """Whether a unit is what is wanted: same digest, and not a job that failed or a node that was stopped or never started."""
    failed = bool(unit.error) or (unit.state == "exited" and unit.exit_status != 0)
    return unit.spec.digest == digest and unit.state != "stopped" and not failed


def last_lines(name: str, text: str) -> str:
    """The end of a node's log, for a message."""
    lines = text.splitlines()[-_LAST_LINES:]
    return f"\nlast lines of {name}:\n  " + "\n  ".join(lines) if lines else f"\n{name} has said nothing"
