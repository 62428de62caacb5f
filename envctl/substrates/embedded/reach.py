"""`Reach` into a living cell."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal as signals
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from envctl import errors
from envctl.errors import DeadlineError, NoEnvironmentError, ResourceError
from envctl.model.environment import Environment, Node, NodeSpec
from envctl.model.topology import Probe
from envctl.substrates.base import Completed, Where
from envctl.substrates.embedded import wire

_MARGIN_S = 60.0  # for what the cell itself does, such as ending an old node, beyond the time-out of a request


class CellProcess:
    """A command that runs in a cell; the connection is its handle."""

    def __init__(self, lines: wire.Lines) -> None:
        self._lines = lines
        self._status: int | None = None
        self.pid: int = _checked(lines.receive())["pid"]

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


class CellReach:
    """`Reach` into the cell of one directory; from the host and from helpers inside."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()

    def ask(self, do: str, fds: Sequence[int] = (), **fields: Any) -> wire.Message:
        """One request and its answer.  Raises NoEnvironmentError, or what the cell says went wrong."""
        lines = self._connect()
        lines.sock.settimeout(float(fields.get("timeout_s", 0)) + _MARGIN_S)
        try:
            lines.send({"do": do, **fields}, fds)
            return _checked(lines.receive())
        except TimeoutError as error:
            raise DeadlineError(f"the cell of {self.directory.name} does not answer `{do}`") from error
        except ConnectionError as error:
            raise self._ended(do) from error
        finally:
            lines.close()

    def _ended(self, do: str) -> NoEnvironmentError:
        return NoEnvironmentError(f"the environment {self.directory.name} ended in the middle of `{do}`")

    def _connect(self) -> wire.Lines:
        try:
            return wire.connect(self.directory)
        except OSError as error:
            raise NoEnvironmentError(
                f"there is no living environment {self.directory.name}", hint="`envctl list` shows what is alive, `envctl up` makes one",
            ) from error

    def environment(self) -> Environment:
        """What is there now.  `stack` and `plan_digest` are the labels of those names."""
        status = self.ask("status")
        labels, units = status["labels"], [Node(**unit) for unit in status["nodes"]]
        return Environment(
            id=status["id"], stack=labels.get("stack", ""), substrate="embedded", directory=self.directory,
            plan_digest=labels.get("plan_digest", ""), nodes=tuple(unit for unit in units if unit.kind != "helper"),
            endpoints=status["endpoints"], expires_at=status["expires_at"], labels=labels,
        )

    def notes(self) -> tuple[str, ...]:
        """What `status` should tell about this environment, such as limits that are not enforced."""
        return tuple(self.ask("status")["notes"])

    def node(self, name: str) -> Node:
        """One node (or helper) as it is now.  Raises ResourceError for an unknown name."""
        return Node(**self.ask("node", name=name))

    def start(self, spec: NodeSpec, ready_timeout_s: float) -> Node:
        """Starts a node or helper, adopts the one with the same digest, or replaces the one with another; waits until it is ready."""
        return Node(**self.ask("start", spec=asdict(spec), timeout_s=ready_timeout_s))

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
        lines = self._connect()
        message = {
            "do": "spawn", "node": node, "where": where, "argv": list(argv), "cwd": str(Path.cwd()) if machine else "/",
            "env": {**(os.environ if machine else {}), **(env or {})}, "tied": tied,
        }
        try:
            lines.send(message, fds)
            return CellProcess(lines)
        except ConnectionError as error:
            lines.close()
            raise self._ended("spawn") from error
        except BaseException:
            lines.close()
            raise

    def helper(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, ready: Probe | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Keeps a command running beside the nodes, restarted whenever it ends, and waits until it is ready.

        Idempotent by name; another command of the same name replaces the old one.
        """
        surroundings = {**os.environ, **(env or {})}
        digest = hashlib.sha256(json.dumps([list(argv), dict(env or {})]).encode()).hexdigest()[:16]
        spec = NodeSpec(name, name, "helper", "", tuple(argv), digest, env=surroundings, cwd=str(Path.cwd()), ready=ready)
        self.start(spec, timeout_s)

    def signal(self, node: str, signal: int) -> None:
        """Sends a signal to the node's main process; SIGKILL ends everything in the node."""
        self.ask("signal", name=node, signal=int(signal))

    def hold(self, node: str, lease_s: float) -> None:
        """No restarts from now on, until `release`, and for `lease_s` seconds at most.  Called again it renews the lease."""
        self.ask("hold", name=node, lease_s=lease_s)

    def release(self, node: str) -> None:
        """Restarts again; a node that is down starts at once.  Idempotent."""
        self.ask("release", name=node)

    def wait_ready(self, node: str, timeout_s: float) -> None:
        """Waits until the node is ready.  Raises DeadlineError with the unmet condition and the last log lines."""
        self.ask("wait", name=node, timeout_s=timeout_s)

    def logs(self, node: str) -> tuple[Path, ...]:
        """Log files of a node, oldest first."""
        logs = self.directory / "logs"
        return tuple(path for path in (logs / f"{node}.log.1", logs / f"{node}.log") if path.exists())

    def publish(self, name: str, node: str, port: int) -> str:
        """Makes a node's TCP port reachable on this process's loopback; idempotent by `name`."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = f"127.0.0.1:{listener.getsockname()[1]}"
            return str(self.ask("publish", [listener.fileno()], name=name, node=node, port=port, address=address)["address"])

    def renew(self, ttl_s: float) -> float:
        """Moves the expiry to `ttl_s` from now (and from each later use); returns it as Unix time."""
        return float(self.ask("renew", ttl_s=ttl_s)["expires_at"])


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


def _checked(reply: wire.Message) -> wire.Message:
    if "error" in reply:
        kind = getattr(errors, reply["error"], ResourceError)
        raise kind(reply["message"], hint=reply["hint"])
    return reply
