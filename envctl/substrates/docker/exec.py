"""Commands in containers, by the engine's exec API, which can neither signal nor end what it has started.

So every command bears a mark in its environment, and the position container of its node, which shares the node's process ids,
finds it by the mark.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal as signals
import struct
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envctl.substrates.docker.engine import api, translated
from envctl.substrates.docker.identity import Identity
from envctl.substrates.docker.position import enter
from envctl.substrates.keeper.streams import Awaited, write_all
from envctl.substrates.keeper.terminal import given, size_of

MARK = "ENVCTL_EXEC"
_HEADER = struct.Struct(">BxxxL")  # of a frame: 1 for stdout, 2 for stderr; its length
_CHUNK = 1 << 16


class Executed(Awaited):
    """A command in a container; a `Process` of the door."""

    def __init__(
        self, identity: Identity, node: str, container: str, argv: Sequence[str], env: Mapping[str, str],
        stdio: tuple[int | None, int | None, int | None],
    ) -> None:
        self._identity, self._node, self._mark = identity, node, uuid.uuid4().hex
        super().__init__()
        stdin, stdout, stderr = stdio
        self._terminal = given(stdin, stdout)
        self._size: tuple[int, int] | None = None  # that the command's terminal has been given
        with translated(f"entering {node}"):
            made = api().exec_create(
                container, list(argv), stdin=stdin is not None, tty=bool(self._terminal), environment={**env, MARK: self._mark},
            )
            self._id: str = made["Id"]
            answer = api().exec_start(self._id, tty=bool(self._terminal), socket=True)
        self._socket = getattr(answer, "_sock", answer)
        self._socket.settimeout(None)  # a command may be silent for as long as it likes
        self._answer = answer  # which closes it when nobody has it any more
        # Where the answer's head was read, and with it, on a busy machine, what the command said first.
        self._said = answer._response.raw._fp.fp  # noqa: SLF001 - docker-py reads past it
        outputs = {1: _copy(stdout), 2: _copy(stderr)}
        threading.Thread(target=self._receive, args=(outputs,), daemon=True).start()
        if stdin is not None:
            threading.Thread(target=self._feed, args=(os.dup(stdin),), daemon=True).start()
        self.pid = int(self._look()["Pid"])

    def _look(self) -> Any:
        with translated(f"entering {self._node}"):
            return api().exec_inspect(self._id)

    def _feed(self, stdin: int) -> None:
        with contextlib.suppress(OSError):
            while not self._ended.is_set():
                if self._terminal and self._size != (size := size_of(stdin)):
                    self._fit(*size)
                if select.select([stdin], [], [], 0.5)[0]:
                    if not (data := os.read(stdin, _CHUNK)):
                        self._socket.shutdown(1)
                        break
                    self._socket.sendall(data)
        os.close(stdin)

    def _fit(self, lines: int, columns: int) -> None:
        """Gives the command's terminal the size of ours."""
        with contextlib.suppress(Exception):  # it is only a size
            api().exec_resize(self._id, height=lines, width=columns)
            self._size = lines, columns

    def _receive(self, outputs: Mapping[int, int | None]) -> None:
        with contextlib.suppress(OSError):
            if self._terminal:
                while data := self._said.read1(_CHUNK):
                    _write(outputs[1], data)
            else:
                while header := self._exactly(_HEADER.size):
                    stream, length = _HEADER.unpack(header)
                    _write(outputs[stream], self._exactly(length))
        for descriptor in outputs.values():
            if descriptor is not None:
                os.close(descriptor)
        self._end(self._exit_status())
        self._socket.close()

    def _exactly(self, length: int) -> bytes:
        data: bytes = self._said.read(length)
        return data if len(data) == length else b""

    def _exit_status(self) -> int:
        """The engine says that the stream has ended a moment before it knows how the command did."""
        try:
            while (found := self._look())["Running"]:
                self._ended.wait(0.02)
            return int(found["ExitCode"])
        except Exception:  # noqa: BLE001 - the container has gone, and with it whatever ran in it
            return 128 + signals.SIGKILL

    def signal(self, signal: int) -> None:
        """Sends a signal to it, and to all it has started; one that has ended is fine."""
        if self.poll() is None:
            kill_marked(self._identity, self._node, self._mark, signal)


def kill_marked(identity: Identity, node: str, mark: str, number: int) -> None:
    """Signals every process of a node that bears the mark."""
    argv = ["python3", "-P", "-m", "envctl.substrates.docker.exec", mark, str(int(number))]
    with translated(f"signalling in {node}"):
        made = api().exec_create(enter(identity, node), argv)
        api().exec_start(made["Id"])


def _copy(descriptor: int | None) -> int | None:
    return None if descriptor is None else os.dup(descriptor)


def _write(descriptor: int | None, data: bytes) -> None:
    if descriptor is not None:
        write_all(descriptor, data)


def main(mark: str, number: int) -> None:
    """In the position container: signals what bears the mark."""
    wanted = f"{MARK}={mark}".encode()
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), number)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
