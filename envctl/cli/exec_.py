"""`envctl exec`: runs a command inside a node, with a terminal when there is one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from envctl.cli.environments import meant
from envctl.errors import UsageError

if TYPE_CHECKING:
    from envctl.substrates.base import Process, Reach


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--env", "environment", metavar="ENV", help="Another environment than this checkout's.")
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(*, environment: str | None, node: str, command: tuple[str, ...]) -> int:
    """Run COMMAND inside NODE, in all its namespaces and as its user, and exit as it does.

    With a terminal on both ends the command gets one of its own, so that shells and editors work.
    """
    from envctl.lease import locate

    reach, found = locate(meant(environment))
    check_node(node, [each.name for each in found.nodes])
    argv = command[1:] if command[0] == "--" else command
    if sys.stdin.isatty() and sys.stdout.isatty():
        return with_terminal(reach, node, argv)
    process = reach.popen(node, argv, stdin=0, stdout=1, stderr=2)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:  # the command has no terminal to learn it from
            process.signal(signal.SIGINT)


def check_node(name: str, nodes: Sequence[str]) -> None:
    """Refuses a name that no node has.  Raises UsageError."""
    from envctl.plugins import nearest

    if name not in nodes:
        raise UsageError(f"no node is called {name!r}", hint=nearest(name, tuple(nodes)))


def with_terminal(reach: Reach, node: str, argv: Sequence[str]) -> int:
    """Runs a command on a new terminal and connects it with ours until the command ends."""
    ours, theirs = pty.openpty()
    _copy_size(theirs)
    environment = {"TERM": os.environ.get("TERM", "xterm")}
    process = reach.popen(node, argv, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    before = termios.tcgetattr(0)
    resized = signal.signal(signal.SIGWINCH, lambda *_: _copy_size(ours))
    try:
        tty.setraw(0)
        _relay(ours, process)
        return process.wait()
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, resized)
        os.close(ours)


def _relay(terminal: int, process: Process) -> None:
    """Copies both ways until the command has ended and everything it said is copied."""
    inputs: list[Any] = [0, terminal]
    while True:
        readable, _, _ = select.select(inputs, [], [], 0.1)
        if terminal in readable:
            said = _read(terminal)
            if not said:
                return  # nobody holds its other end any more
            _write(1, said)
        elif process.poll() is not None:
            return
        if 0 in readable:
            typed = _read(0)
            if typed:
                _write(terminal, typed)
            else:
                inputs.remove(0)


def _read(descriptor: int) -> bytes:
    with suppress(OSError):
        return os.read(descriptor, 65536)
    return b""


def _write(descriptor: int, words: bytes) -> None:
    """All of it: a signal, such as that of a new size, may end a write early."""
    while words:
        words = words[os.write(descriptor, words) :]


def _copy_size(terminal: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"\0" * 8))
