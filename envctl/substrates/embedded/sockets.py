"""Where a cell listens: a Unix socket in its directory."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path


def listen(directory: Path) -> socket.socket:
    """The (non-blocking) socket of the cell whose directory this is."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(directory) as address:
        listener.bind(address)
    listener.listen(64)
    listener.setblocking(False)
    return listener


def connect(directory: Path) -> socket.socket:
    """A client's connection to the cell whose directory this is.  Raises OSError when no cell listens there."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _address(directory) as address:
            sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def _address(directory: Path) -> Iterator[str]:
    """A socket's address holds 107 bytes at most, so the path goes through a descriptor of its directory."""
    anchor = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{anchor}/cell.sock"
    finally:
        os.close(anchor)
