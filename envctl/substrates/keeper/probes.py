"""Readiness: waits, from beside the nodes, until a node's probe holds."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable

from envctl.model.topology import Probe

_FIRST_S, _LAST_S, _TRY_S = 0.02, 0.2, 5.0
Run = Callable[[tuple[str, ...], bool], Awaitable[int]]
"""Runs a command, inside the node or (False) beside it, and gives its exit status."""
Said = Callable[[], Awaitable[str]]
"""What the node has written since it was started."""


def condition(probe: Probe | None) -> str:
    """The probe in words, for messages about what was waited for."""
    if probe is None:
        return "it runs"
    words = {
        "http": f"HTTP GET {probe.target or '/'} on port {probe.port} answers 2xx",
        "tcp": f"port {probe.port} accepts connections",
        "log": f"its log has a line that matches {probe.target!r}",
        "exec": f"`{' '.join(probe.command)}` exits 0",
        "grpc": f"gRPC health of {probe.target or 'the server'!r} on port {probe.port} is SERVING",
    }
    held = f" for {probe.healthy_for_s:g} s" if probe.healthy_for_s else ""
    return words[probe.kind] + held


async def until_ready(probe: Probe, address: str, run: Run, said: Said) -> None:
    """Returns once the probe has held for `healthy_for_s` without a break."""
    since: float | None = None
    pause = _FIRST_S
    while True:
        if await _holds(probe, address, run, said):
            since = time.monotonic() if since is None else since
            if time.monotonic() - since >= probe.healthy_for_s:
                return
        else:
            since = None
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, _LAST_S)


async def _holds(probe: Probe, address: str, run: Run, said: Said) -> bool:
    try:
        async with asyncio.timeout(_TRY_S):
            match probe.kind:
                case "tcp":
                    return await _tcp(address, probe.port)
                case "http":
                    return await _http(address, probe.port, probe.target or "/")
                case "log":
                    return re.search(probe.target, await said(), re.MULTILINE) is not None
                case "exec":
                    return await run(probe.command, True) == 0
                case "grpc":
                    return await run(_grpc(address, probe), False) == 0
    except (OSError, TimeoutError, ValueError, IndexError):
        return False


async def _tcp(address: str, port: int) -> bool:
    _, writer = await asyncio.open_connection(address, port)
    writer.close()
    return True


async def _http(address: str, port: int, target: str) -> bool:
    reader, writer = await asyncio.open_connection(address, port)
    try:
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n".encode())
        status = await reader.readline()
        return status.split()[1].startswith(b"2")
    finally:
        writer.close()


def _grpc(address: str, probe: Probe) -> tuple[str, ...]:
    module = "envctl.substrates.keeper.grpc_probe"
    return (sys.executable, "-P", "-m", module, f"{address}:{probe.port}", probe.target)
