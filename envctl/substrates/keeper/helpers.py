"""Helpers and commands beside a keeper that runs in a container, and logs that are files there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from envctl.errors import ResourceError
from envctl.model.environment import NodeSpec
from envctl.model.topology import Resources

_LAST_LINES = 50


class HelperLife:
    """One life of a helper, a process beside the keeper."""

    address = zone = ""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.ended: asyncio.Future[int] = asyncio.ensure_future(self._end())

    async def _end(self) -> int:
        status = await self._process.wait()
        return 128 - status if status < 0 else status

    def main(self) -> int | None:
        """The process itself."""
        return self._process.pid

    async def signal(self, number: int) -> None:
        """Signals it; SIGKILL ends all of its process group."""
        if number == signal.SIGKILL:
            os.killpg(self._process.pid, number)
        else:
            os.kill(self._process.pid, number)

    async def pause(self, lease_s: float) -> None:  # noqa: ARG002
        """Helpers are not paused."""
        raise ResourceError("a helper can't be paused")

    async def resume(self) -> None:
        """Nothing to do."""

    async def is_paused(self) -> bool:
        """Never."""
        return False

    async def limit(self, bounds: Resources, lease_s: float) -> None:  # noqa: ARG002
        """Helpers are not limited."""
        raise ResourceError("a helper can't be limited")

    async def unlimit(self) -> None:
        """Nothing to do."""

    async def throttled(self) -> float:
        """Never."""
        return 0.0


class Helpers:
    """Starts helpers; what they say is kept in files, one each."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs

    async def start(self, spec: NodeSpec) -> HelperLife:
        """Starts a helper."""
        with self.log(spec.name).open("ab") as log:
            return HelperLife(await asyncio.create_subprocess_exec(
                *spec.command, env={**os.environ, **spec.env}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            ))

    def log(self, name: str) -> Path:
        """The file of a helper's words."""
        return self._logs / f"{name}.log"

    def written(self, name: str) -> int:
        """How much there is of a log."""
        return self.log(name).stat().st_size if self.log(name).exists() else 0

    def said(self, name: str, since: int) -> str:
        """What has come since."""
        return self.log(name).read_bytes()[since:].decode(errors="replace") if self.log(name).exists() else ""

    def tail(self, name: str) -> str:
        """The last lines of a log."""
        return "\n".join(self.said(name, 0).splitlines()[-_LAST_LINES:])


async def beside(*argv: str) -> int:
    """The exit status of a command beside the keeper.  Who stops waiting kills it."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
