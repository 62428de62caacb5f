"""Terminals over a connection: a command has one of its own where it runs, and the one of its client's only carries."""

from __future__ import annotations

import asyncio
import os
import pty
import termios
import tty
from collections.abc import Sequence

from envctl.substrates.keeper.wire import readable

Size = Sequence[int]  # lines, columns


class Terminal:
    """A terminal for a command; `far` is the command's end of it, ours is the near one."""

    def __init__(self, size: Size) -> None:
        self._near, self.far = pty.openpty()
        self.fit(size)

    def fit(self, size: Size) -> None:
        """Gives it a size, of which the command is told."""
        termios.tcsetwinsize(self._near, (size[0], size[1]))

    async def typed(self) -> asyncio.StreamWriter:
        """What is written to it is typed.  To be asked for once the command has the far end, which is ours no longer."""
        os.close(self.far)
        os.set_blocking(self._near, False)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(os.dup(self._near), "wb", 0))
        return asyncio.StreamWriter(transport, protocol, None, loop)

    async def read(self, most: int) -> bytes:
        """What the command says; nothing at its end."""
        await readable(self._near)
        try:
            return os.read(self._near, most)
        except OSError:  # nobody has the far end any more
            return b""

    def close(self) -> None:
        """The near end."""
        os.close(self._near)


def size_of(terminal: int) -> tuple[int, int]:
    """The size of a terminal of ours."""
    size = os.get_terminal_size(terminal)
    return size.lines, size.columns


def given(stdin: int | None, stdout: int | None) -> tuple[int, int] | None:
    """The size of the terminal that a command is given for what it reads and writes; None where it is given none.

    From now on that terminal only carries: to echo, to edit lines and to make signals of keys is for the command's own.
    """
    if stdin is None or stdout is None or not (os.isatty(stdin) and os.isatty(stdout)):
        return None
    tty.setraw(stdin)
    return size_of(stdin)
