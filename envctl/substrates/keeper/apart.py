"""Keepers that share neither descriptors nor files with their clients: what they answer, and how clients reach them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, ClassVar

from envctl.errors import DeadlineError, NoEnvironmentError, ResourceError
from envctl.model.environment import NodeSpec, spec_from
from envctl.model.topology import Probe
from envctl.substrates.base import Completed, Process, Where
from envctl.substrates.keeper import files, streams
from envctl.substrates.keeper.client import KeeperClient, helper_spec
from envctl.substrates.keeper.life import SomeLife
from envctl.substrates.keeper.serve import Keeper
from envctl.substrates.keeper.streams import Streamed, descriptor
from envctl.substrates.keeper.supervisor import Unit, adoptable
from envctl.substrates.keeper.terminal import Size
from envctl.substrates.keeper.wire import Message, Peer

OWN = ("python3", "-P")  # envctl's interpreter in its own image
_HELPER_S = 30.0
_SAID = 1 << 20  # bytes of a log in one answer
_SAID_S, _SAID_POLL_S = 20.0, 0.05  # how long an answer waits for words to come, and how often it looks
Stdio = tuple[int | None, int | None, int | None]


class KeeperApart(Keeper[SomeLife]):
    """Runs helpers and commands, and takes and gives files."""

    with_peer: ClassVar[tuple[str, ...]] = ("spawn", "put", "get")
    looks: ClassVar[tuple[str, ...]] = (*Keeper.looks, "said")

    def __init__(self, env_id: str, directory: Path) -> None:
        super().__init__(env_id, directory)
        self.helpers: dict[str, Message] = {}
        try:
            self.own_address = socket.gethostbyname(socket.gethostname())
        except OSError:  # it was taken off the network by an end that was broken off: what is left to do is that end
            self.own_address = "127.0.0.1"

    def keep(self) -> None:
        """Notes what the next keeper needs to know when this one is killed."""
        raise NotImplementedError

    def made(self, spec: NodeSpec, address: str) -> Unit[SomeLife]:
        """A unit that supervises a node or helper from now on."""
        raise NotImplementedError

    async def do_renew(self, ttl_s: float, labels: Mapping[str, str] | None = None) -> Message:
        """As every keeper."""
        answer = await super().do_renew(ttl_s, labels)
        await asyncio.to_thread(self.keep)
        return answer

    async def do_found(self, name: str, digest: str) -> Message:
        """Whether the node is there as it is wanted; if it is, it need not be made.  `digest`: of the one that is known, if any."""
        unit = self.units.get(name)
        return {"adopted": unit is not None and adoptable(unit, digest), "known": unit is not None, "digest": unit.spec.digest if unit else ""}

    async def do_start(self, spec: Message, timeout_s: float, address: str = "") -> Message:
        """Supervises a helper, or a node whose container has been made, from now on; answers once it is ready."""
        wanted = spec_from(spec)
        async with self.locks[wanted.name]:
            old = self.units.get(wanted.name)
            if not old or not adoptable(old, wanted.digest):
                if wanted.kind == "helper":
                    if old:
                        await old.stop()
                    self.helpers[wanted.name] = spec
                    await asyncio.to_thread(self.keep)
                self.units[wanted.name] = self.made(wanted, address or self.own_address)
        await self.unit(wanted.name).wait_ready(timeout_s)
        return await self.do_node(wanted.name)

    async def do_spawn(self, *, peer: Peer, argv: list[str], env: Mapping[str, str]) -> Message:
        """Runs a command beside the nodes."""
        return await streams.serve(peer, argv, env)

    async def do_put(self, *, peer: Peer, path: str) -> None:
        """Takes a file or directory of the host's."""
        await files.put(peer, path)

    async def do_get(self, *, peer: Peer, path: str, most: int | None) -> Message:
        """Gives a file or directory."""
        return await files.get(peer, path, most)

    async def do_said(self, name: str, at: int) -> Message:
        """What a node or helper has written from a place of its log on, and the next place; waits a while for something to come."""
        self.unit(name)
        file = self.directory / "logs" / f"{name}.log"
        until = time.monotonic() + _SAID_S
        while not file.exists() or file.stat().st_size <= at:
            if time.monotonic() > until:
                return {"data": "", "at": at}
            await asyncio.sleep(_SAID_POLL_S)
        with file.open("rb") as log:
            log.seek(at)
            data = log.read(_SAID)
        return {"data": base64.b64encode(data).decode(), "at": at + len(data)}

    async def do_grown(self, path: str, known: Mapping[str, list[int]]) -> Message:
        """Gives what is new in a directory."""
        return await asyncio.to_thread(files.grown, Path(path), known)


def listener(port: int) -> socket.socket:
    """On all addresses of the keeper's container."""
    made = socket.create_server(("0.0.0.0", port))
    made.setblocking(False)
    return made


class ReachApart(KeeperClient):
    """The part of `Reach` that is the same for all such keepers."""

    beside = False  # whether this process runs beside the keeper

    @property
    def own(self) -> tuple[str, ...]:
        """The interpreter of the keeper's image."""
        return OWN

    def executed(self, node: str, argv: Sequence[str], where: Where, env: Mapping[str, str], stdio: Stdio) -> Process:
        """A command in a node that runs, or in its network namespace."""
        raise NotImplementedError

    def run(
        self, node: str, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: str | None = None, timeout_s: float = 30.0,
    ) -> Completed:
        """Runs a command in a node, or in its network namespace, and waits for it.  Raises DeadlineError (it is killed)."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write((stdin or "").encode())
            given.seek(0)
            process = self._entered(node, argv, where, env, (given.fileno() if stdin else None, out.fileno(), err.fileno()))
            try:
                status = process.wait(timeout_s)
            except DeadlineError as error:
                process.signal(9)
                raise DeadlineError(f"`{' '.join(argv)}` in {node} did not end within {timeout_s:g} s") from error
            said = [_content(file) for file in (out, err)]
        if status in (126, 127) and (why := self.not_run(*said)):
            raise ResourceError(f"`{argv[0]}` can't be run in {node}: {why}")
        return Completed(status, *said)

    def not_run(self, stdout: str, stderr: str) -> str:
        """Why a command was not even started, by what was said instead of it; empty where it was."""
        raise NotImplementedError

    def popen(
        self, node: str | None, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | int | None = None, stdout: IO[bytes] | int | None = None, stderr: IO[bytes] | int | None = None, job: str = "",
    ) -> Process:
        """Starts a command in a node, in its network namespace, or (node None) beside the nodes.  None as `stdin` is none at all."""
        stdio = (descriptor(stdin, None), descriptor(stdout, 1), descriptor(stderr, 2))
        if node is not None:
            return self._entered(node, argv, where, env, stdio)
        return self.worked(argv, env or {}, stdio, job)

    def worked(self, argv: Sequence[str], env: Mapping[str, str], stdio: Stdio, job: str) -> Process:  # noqa: ARG002 - the keeper is one place
        """A command beside the nodes."""
        return self.streamed({"do": "spawn", "argv": list(argv), "env": dict(env)}, stdio)

    def streamed(self, request: Mapping[str, object], stdio: Stdio, terminal: Size | None = None) -> Streamed:
        """A request that runs a command, with its streams.  Raises NoEnvironmentError where the keeper goes meanwhile."""
        lines = self.opened()
        try:
            lines.send({**request, **self.credentials})
            return Streamed(lines, *stdio, terminal)
        except BaseException as error:
            lines.close()
            if isinstance(error, ConnectionError):  # also in place of the first word
                raise self.ended(str(request["do"])) from error
            raise

    def _entered(self, node: str, argv: Sequence[str], where: Where, env: Mapping[str, str] | None, stdio: Stdio) -> Process:
        known = self.node(node)
        if known.pid is None:
            raise ResourceError(f"{node} is {known.state}: there is nothing to enter")
        return self.executed(node, argv, where, env or {}, stdio)

    def helper(self, name: str, module: str, *arguments: str, ready: Probe | None = None) -> None:
        """Keeps a module running beside the nodes, restarted whenever it ends, and waits until it is ready.  Idempotent by name."""
        self.start(helper_spec(name, (*OWN, "-m", module, *arguments), ready), _HELPER_S)

    def logged(self, name: str, tail: int | None) -> list[str]:
        """The lines of a log that is a file beside the keeper, as it is now."""
        with tempfile.TemporaryDirectory() as scratch:
            try:
                self.fetch(self.directory / "logs" / f"{name}.log", Path(scratch) / "log")
                lines = (Path(scratch) / "log").read_text(errors="replace").splitlines()
            except FileNotFoundError:
                lines = []
        return lines if tail is None else lines[max(0, len(lines) - tail):]

    def followed(self, name: str, tail: int | None) -> Iterator[str]:
        """The same, and on as it grows, until the environment has ended."""
        at, rest, first = 0, b"", True
        while True:
            try:
                answer = self.ask("said", name=name, at=at)
            except (NoEnvironmentError, ResourceError):
                if first:
                    raise
                return
            at = answer["at"]
            *lines, rest = (rest + base64.b64decode(answer["data"])).split(b"\n")
            skipped = max(0, len(lines) - tail) if first and tail is not None else 0
            yield from (line.decode(errors="replace") for line in lines[skipped:])
            first = False

    def show(self, path: Path) -> None:
        """Copies a file or directory of the host to the keeper, under the same path."""
        if not self.beside:
            files.send(self, path)

    def mirrored(self, directory: Path) -> contextlib.AbstractContextManager[None]:
        """Brings back what is written beside the nodes."""
        return contextlib.nullcontext() if self.beside else files.Mirror(self, directory)

    def fetch(self, path: Path, target: Path, *, most: int | None = None) -> None:
        """Copies a file or directory from the keeper.  Raises FileNotFoundError."""
        files.fetch(self, path, target, most)

    def keep_data(self, node: str, target: Path) -> None:
        """Not a power of these substrates."""
        raise ResourceError(f"the data of {node} can't be kept on this substrate ({target})")


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
