"""`Reach` into a living cell."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal as signals
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from envctl.errors import DeadlineError
from envctl.model.topology import Probe
from envctl.substrates.base import Completed, Usage, Where
from envctl.substrates.embedded import sockets
from envctl.substrates.embedded.identity import RESOLVER
from envctl.substrates.embedded.logs import lines_of
from envctl.substrates.keeper import wire
from envctl.substrates.keeper.client import KeeperClient, checked, helper_spec
from envctl.substrates.usage import of_namespaces

_HELPER_S = 30.0  # how long a helper may take to be ready


class CellProcess:
    """A command that runs in a cell; the connection is its handle."""

    note = ""

    def __init__(self, lines: wire.Lines) -> None:
        self._lines = lines
        self._status: int | None = None
        self.pid: int = checked(lines.receive())["pid"]

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        with contextlib.suppress(DeadlineError):
            self.wait(0)
        return self._status

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the exit status.  Raises DeadlineError; a cell that ends kills the process: 137."""
        while self._status is None:
            if end := self._lines.taken():
                self._status = int(end["status"])
                self.close()
            elif not select.select([self._lines.sock], [], [], timeout_s)[0]:
                raise DeadlineError(f"the command still runs after {timeout_s:g} s")
            else:
                self._read()
        return self._status

    def _read(self) -> None:
        try:
            self._lines.read()
        except ConnectionError:
            self._status = 128 + signals.SIGKILL
            self.close()

    def signal(self, signal: int) -> None:
        """Sends a signal to it; one that has ended is fine."""
        if self.poll() is None:
            with contextlib.suppress(ConnectionError):
                self._lines.send({"signal": int(signal)})

    def close(self) -> None:
        """Lets go of the handle; a tied command is killed."""
        self._lines.close()


class CellReach(KeeperClient):
    """`Reach` into the cell of one directory; from the host and from helpers inside."""

    substrate = "embedded"

    def connect(self) -> wire.Lines:
        """Over the socket in its directory."""
        return wire.Lines(sockets.connect(self.directory))

    @property
    def own(self) -> tuple[str, ...]:
        """Envctl's interpreter: what runs beside the nodes sees the machine's files."""
        return (sys.executable, "-P")

    @property
    def address(self) -> str:
        """That of the cell's bridge."""
        return RESOLVER

    def run(
        self, node: str, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: str | None = None, timeout_s: float = 30.0,
    ) -> Completed:
        """Runs a command in a node and waits for it.  Raises DeadlineError after `timeout_s` (the command is killed)."""
        with contextlib.ExitStack() as stack:
            # Files in memory instead of pipes: nothing to drain, and no wait for daemons that keep a pipe open.
            files = [stack.enter_context(open(os.memfd_create(name), "w+b")) for name in ("in", "out", "err")]  # noqa: PTH123
            files[0].write((stdin or "").encode())
            files[0].seek(0)
            process = self._spawn(node, argv, where, env, [file.fileno() for file in files], tied=True)
            try:
                status = process.wait(timeout_s)
            except DeadlineError as error:
                raise DeadlineError(f"`{' '.join(argv)}` in {node} did not end within {timeout_s:g} s") from error
            finally:
                process.close()
            out, err = (_content(file) for file in files[1:])
            return Completed(status, out, err)

    def popen(
        self, node: str | None, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | int | None = None, stdout: IO[bytes] | int | None = None, stderr: IO[bytes] | int | None = None,
        job: str = "",  # noqa: ARG002 - every command is a process of its own
    ) -> CellProcess:
        """Starts a command in a node, or (node None) beside the nodes.

        None hands over the caller's own descriptor, `subprocess.DEVNULL` the null device; make pipes with `os.pipe`.
        """
        with open(os.devnull, "r+b") as null:  # noqa: PTH123
            given = (stdin, stdout, stderr)
            fds = [_descriptor(stream, number, null.fileno()) for number, stream in enumerate(given)]
            return self._spawn(node, argv, where, env, fds, tied=False)

    def _spawn(
        self, node: str | None, argv: Sequence[str], where: Where, env: Mapping[str, str] | None, fds: Sequence[int], *, tied: bool,
    ) -> CellProcess:
        machine = node is None or where == "netns"  # it sees the machine's files, so it gets our surroundings too
        lines = self.opened()
        message = {
            "do": "spawn", "node": node, "where": where, "argv": list(argv), "cwd": str(Path.cwd()) if machine else "/",
            "env": {**(os.environ if machine else {}), **(env or {})}, "tied": tied,
        }
        try:
            lines.send(message, fds)
            return CellProcess(lines)
        except ConnectionError as error:
            lines.close()
            raise self.ended("spawn") from error
        except BaseException:
            lines.close()
            raise

    def helper(self, name: str, module: str, *arguments: str, ready: Probe | None = None) -> None:
        """Keeps a module running beside the nodes, restarted whenever it ends, and waits until it is ready.  Idempotent by name."""
        argv = (*self.own, "-m", module, *arguments)
        self.start(helper_spec(name, argv, ready, os.environ, str(Path.cwd())), _HELPER_S)

    def log(self, name: str, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The lines of a node's or helper's log; with `follow` on and on until the cell has ended."""
        return lines_of(self.directory / "logs" / f"{name}.log", tail=tail, there=self.is_alive if follow else None)

    def show(self, path: Path) -> None:
        """It is visible already: what runs beside the nodes sees the machine's files."""

    def mirrored(self, directory: Path) -> contextlib.AbstractContextManager[None]:  # noqa: ARG002 - it is the same directory
        """Nothing has to come back."""
        return contextlib.nullcontext()

    def fetch(self, path: Path, target: Path, *, most: int | None = None) -> None:
        """Copies a file or directory.  Raises FileNotFoundError."""
        files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
        if most is None or sum(each.stat().st_size for each in files) <= most:
            shutil.copyfile(path, target) if path.is_file() else shutil.copytree(path, target)

    def usage(self) -> Mapping[str, Usage]:
        """What the processes of each living node use."""
        return of_namespaces(self.ask("spaces"))

    def keep_data(self, node: str, target: Path) -> None:
        """Copies the `/data` of a node that has ended."""
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(self.directory / "nodes" / node / "data"), str(target)], check=True)

    def publish(self, name: str, node: str, port: int) -> str:
        """Makes a node's TCP port reachable on this process's loopback; idempotent by `name`."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            return str(self.ask("publish", [listener.fileno()], name=name, node=node, port=port, address=address)["address"])


def _descriptor(stream: IO[bytes] | int | None, own: int, null: int) -> int:
    if stream is None:
        try:
            os.fstat(own)
        except OSError:
            return null
        return own
    if stream == subprocess.DEVNULL:
        return null
    return stream if isinstance(stream, int) else stream.fileno()


def _content(file: IO[bytes]) -> str:
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")
