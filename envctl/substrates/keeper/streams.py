"""A command beside a keeper that shares no descriptors with its client: what it reads and writes goes over the connection.

The client sends {"in": base64}, empty at the end, {"signal": N} and {"size": [lines, columns]}; the keeper {"pid": N}, {"out": base64}, {"err": base64}
and at last {"status": N}; an empty {"out": ""} now and then.  When the client goes, the command's standard input ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import select
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import IO, Any

from envctl.errors import DeadlineError
from envctl.substrates.keeper.client import checked
from envctl.substrates.keeper.terminal import Size, Terminal, size_of
from envctl.substrates.keeper.wire import Lines, Message, Peer

CHUNK = 1 << 16
KILLED = 128 + signal.SIGKILL
_BEAT_S = 30.0
_AHEAD = 1 << 24  # bytes that may wait for a command that doesn't read, before signals behind them go unheard
Tell = Callable[[asyncio.subprocess.Process, int], Awaitable[None]]
"""How the command of a process that was started is signalled."""


async def serve(
    peer: Peer, argv: list[str], env: Mapping[str, str], tell: Tell | None = None, terminal: Size | None = None, begun: Callable[[asyncio.subprocess.Process], None] | None = None,
) -> Message:
    """Runs a command for a client to its end.  Raises OSError when it can't be started.

    With `tell`, which signals what the process stands for, the command is killed when its client goes.  `begun` is told the process.
    """
    its = Terminal(terminal) if terminal else None
    ends = [its.far if its else subprocess.PIPE] * 3
    process = await asyncio.create_subprocess_exec(
        *argv, env={**os.environ, **env}, stdin=ends[0], stdout=ends[1], stderr=ends[2], start_new_session=True,
    )
    if begun:
        begun(process)
    await peer.tell({"pid": process.pid})
    telling = asyncio.Lock()
    stdin = await its.typed() if its else process.stdin
    says = {"out": its} if its else {"out": process.stdout, "err": process.stderr}
    beating = asyncio.create_task(_beat(peer, telling))
    hearing = asyncio.create_task(_hear(peer, process, stdin, its, tell or _tell_itself))
    ending = asyncio.create_task(_end(process, [_tell(peer, name, one, telling) for name, one in says.items() if one], its))
    await asyncio.wait([hearing, ending], return_when=asyncio.FIRST_COMPLETED)
    async with telling:  # not in the middle of a word
        beating.cancel()
    if not ending.done():  # the client has gone: whom nobody waits for is no use of the environment
        if tell:
            await tell(process, signal.SIGKILL)
        _left.add(ending)
        ending.add_done_callback(_left.discard)
        return {}
    hearing.cancel()
    await asyncio.wait([hearing])  # it must have let go of the socket before it is closed
    status = ending.result()
    return {"status": 128 - status if status < 0 else status}


_left: set[asyncio.Task[int]] = set()


async def last_ends() -> list[int]:
    """Waits for the commands whose clients have gone; how each ended, as `Popen.returncode`."""
    return await asyncio.gather(*_left)


async def _end(process: asyncio.subprocess.Process, telling_all: Iterable[Awaitable[None]], its: Terminal | None) -> int:
    await asyncio.gather(*telling_all)
    if its:
        its.close()
    return await process.wait()


async def _tell(peer: Peer, name: str, stream: asyncio.StreamReader | Terminal, telling: asyncio.Lock) -> None:
    while data := await stream.read(CHUNK):
        async with telling:
            with contextlib.suppress(OSError, ValueError):  # the client has gone
                await peer.tell({name: base64.b64encode(data).decode()})


async def _beat(peer: Peer, telling: asyncio.Lock) -> None:
    """Says nothing now and then: what carries a connection may give up one that is silent."""
    while True:
        await asyncio.sleep(_BEAT_S)
        async with telling:
            with contextlib.suppress(OSError, ValueError):
                await peer.tell({"out": ""})


async def _tell_itself(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def _hear(
    peer: Peer, process: asyncio.subprocess.Process, stdin: asyncio.StreamWriter | None, its: Terminal | None, tell: Tell,
) -> None:
    assert stdin
    stdin.transport.set_write_buffer_limits(_AHEAD)
    while (message := await peer.hear()) is not None:
        if "signal" in message:
            await tell(process, message["signal"])
        elif "size" in message:
            with contextlib.suppress(OSError):  # it has ended
                its.fit(message["size"]) if its else None
        elif message["in"]:
            with contextlib.suppress(ConnectionError):
                stdin.write(base64.b64decode(message["in"]))
                await stdin.drain()
        else:
            stdin.close()
    stdin.close()


class Awaited:
    """A process that a thread of ours follows to its end: half of a `Process` of the door."""

    note = ""

    def __init__(self) -> None:
        self._status: int | None = None
        self._ended = threading.Event()

    def _end(self, status: int) -> None:
        self._status = status
        self._ended.set()

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._status if self._ended.is_set() else None

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the exit status.  Raises DeadlineError; what is killed with its surroundings ends with 137."""
        if not self._ended.wait(timeout_s):
            raise DeadlineError(f"the command still runs after {timeout_s:g} s")
        assert self._status is not None
        return self._status


class Streamed(Awaited):
    """The client's end of such a command; a `Process` of the door."""

    def __init__(self, lines: Lines, stdin: int | None, stdout: int | None, stderr: int | None, terminal: Size | None = None) -> None:
        """The descriptors stay the caller's own; without `stdin` the command finds its standard input at its end.

        `terminal`: the size of `stdin` as the command knows it, where that is a terminal.
        """
        self.pid: int = checked(lines.receive())["pid"]
        lines.sock.settimeout(None)  # it may be silent for long
        self._lines = lines
        self._sending = threading.Lock()
        self._size = terminal and tuple(terminal)
        super().__init__()
        outputs = {name: os.open(os.devnull, os.O_WRONLY) if each is None else os.dup(each) for name, each in (("out", stdout), ("err", stderr))}
        threading.Thread(target=self._receive, args=(outputs,), daemon=True).start()
        if stdin is None:
            self._send({"in": ""})
        else:
            threading.Thread(target=self._feed, args=(os.dup(stdin),), daemon=True).start()

    def _send(self, message: Mapping[str, Any]) -> None:
        with self._sending, contextlib.suppress(OSError):
            self._lines.send(message)

    def _feed(self, stdin: int) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                if self._size and self._size != (size := size_of(stdin)):
                    self._size = size
                    self._send({"size": size})
                if select.select([stdin], [], [], 0.5)[0]:
                    data = os.read(stdin, CHUNK)
                    self._send({"in": base64.b64encode(data).decode()})
                    if not data:
                        break
        os.close(stdin)

    def _receive(self, outputs: Mapping[str, int]) -> None:
        try:
            while "status" not in (message := self._lines.receive()):
                for name, data in message.items():
                    write_all(outputs[name], base64.b64decode(data))
            status = int(message["status"])
        except OSError:
            status, why = self.lost()
            write_all(outputs["err"], why.encode())
        for descriptor in outputs.values():
            os.close(descriptor)
        self._end(status)
        self._lines.close()

    def lost(self) -> tuple[int, str]:
        """The exit status of a command that can't tell its own any more, and what is to be said of it on its standard error."""
        return KILLED, ""  # what served it has gone

    def signal(self, signal: int) -> None:
        """Sends a signal to it; one that has ended is fine."""
        self._send({"signal": int(signal)})


def descriptor(stream: IO[bytes] | int | None, own: int | None) -> int | None:
    """The descriptor that a caller of `popen` means; None for none at all."""
    if stream is None:
        return own
    number = stream if isinstance(stream, int) else stream.fileno()
    return None if number == subprocess.DEVNULL else number


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all of it, to whoever still listens."""
    with contextlib.suppress(OSError):  # nobody listens any more
        while data:
            data = data[os.write(descriptor, data):]
