"""`Reach` into an environment of containers, from the host and from beside its keeper."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from envctl.errors import EnvctlError, ResourceError
from envctl.substrates.base import Usage, Where
from envctl.substrates.docker.engine import MissingError, api, ask, translated
from envctl.substrates.docker.exec import Executed
from envctl.substrates.docker.identity import Identity
from envctl.substrates.docker.position import enter
from envctl.substrates.keeper import wire
from envctl.substrates.keeper.apart import ReachApart, Stdio
from envctl.substrates.keeper.place import KEEPER_PORT, TOKEN, is_beside

_HELPER_S = 30.0
OWN = ("python3", "-P")


_AGAIN_S = 0.1  # how often it looks whether a node lives again


class ContainerReach(ReachApart):
    """`Reach` into the environment of one directory."""

    substrate = "docker"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.identity = Identity.of_directory(self.directory)
        self.beside = is_beside(self.directory)
        self._where: tuple[str, int] | None = None

    def connect(self) -> wire.Lines:
        """To the keeper's port, which the engine has published on loopback."""
        if self._where is None:
            self._where = self._look()
        try:
            return _connected(self._where)
        except OSError:
            self._where = self._look()  # a keeper that was restarted has another port
            return _connected(self._where)

    def _look(self) -> tuple[str, int]:
        if self.beside:
            self.credentials = {"token": os.environ[TOKEN]}
            return "127.0.0.1", KEEPER_PORT
        found = self._keeper()
        published = (found["NetworkSettings"]["Ports"] or {}).get(f"{KEEPER_PORT}/tcp")
        if not found["State"]["Running"] or not published:
            raise ConnectionRefusedError(f"the keeper of {self.identity.env_id} does not run, or is ending")
        variables = dict(each.split("=", 1) for each in found["Config"]["Env"])
        self.credentials = {"token": variables[TOKEN]}
        return "127.0.0.1", int(published[0]["HostPort"])

    def _keeper(self) -> Any:
        try:
            return ask("GET", f"/containers/{self.identity.keeper}/json")
        except MissingError as error:
            raise FileNotFoundError(f"there is no {self.identity.keeper}") from error

    @property
    def address(self) -> str:
        """The keeper's."""
        (network,) = self._keeper()["NetworkSettings"]["Networks"].values()
        return str(network["IPAddress"])

    def executed(self, node: str, argv: Sequence[str], where: Where, env: Mapping[str, str], stdio: Stdio) -> Executed:
        """By the engine, in the node's container or its position."""
        container = enter(self.identity, node) if where == "netns" else self.identity.container(node)
        return Executed(self.identity, node, container, argv, env, stdio)

    def not_run(self, stdout: str, stderr: str) -> str:  # noqa: ARG002
        """By the words of the engine's runtime."""
        return stdout.strip() if "OCI runtime exec failed" in stdout else ""

    def log(self, name: str, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The lines that a node's container or a helper has written."""
        if self.node(name).kind == "helper":
            yield from self.followed(name, tail) if follow else self.logged(name, tail)
            return
        if not follow:
            yield from self._said(name, 0, follow=False, tail=tail)
            return
        read = 0 if tail is None else max(0, sum(1 for _ in self._said(name, 0, follow=False)) - tail)
        while True:  # the engine's word ends with a life of the container, its log goes on with the next
            for line in self._said(name, read, follow=True):
                read += 1
                yield line
            if not self._goes_on(name):
                return

    def _said(self, name: str, skipped: int, *, follow: bool, tail: int | None = None) -> Iterator[str]:
        """The lines of a node's container but for the first ones."""
        with translated(f"reading the log of {name}"):
            said = api().logs(self.identity.container(name), stream=True, follow=follow, tail="all" if tail is None else tail)
            yield from (line.decode(errors="replace").rstrip("\r") for line in itertools.islice(_lines(said), skipped, None))

    def _goes_on(self, name: str) -> bool:
        """Waits for the next life of a node; False where there is none to come."""
        with contextlib.suppress(EnvctlError):
            while (node := self.node(name)).state != "exited":
                if node.pid is not None:
                    return True
                time.sleep(_AGAIN_S)
        return False

    def usage(self) -> Mapping[str, Usage]:
        """What the engine has counted of each running container, as one whole."""
        nodes = [node.name for node in self.environment().nodes if node.pid is not None]
        with ThreadPoolExecutor(max(1, len(nodes))) as pool:
            found = dict(zip(nodes, pool.map(self._use_of, nodes), strict=True))
        return {name: {"": one} for name, one in found.items() if one is not None}

    def _use_of(self, node: str) -> tuple[float, int] | None:
        try:
            with translated(f"looking at {node}"):
                found = api().stats(self.identity.container(node), stream=False, one_shot=True)
            memory = found["memory_stats"]
            cached = memory.get("stats", {}).get("inactive_file", memory.get("stats", {}).get("total_inactive_file", 0))
            return found["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, int(memory["usage"] - cached)
        except (ResourceError, KeyError):
            return None

    def publish(self, name: str, node: str, port: int) -> str:
        """Leads a port of loopback to a node's, through the keeper; idempotent by `name`."""
        return str(self.ask("publish", name=name, node=node, port=port)["address"])


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _connected(where: tuple[str, int]) -> wire.Lines:
    sock = socket.create_connection(where, timeout=10)
    sock.settimeout(None)  # of what follows, each caller knows how long it may take
    return wire.Lines(sock)
