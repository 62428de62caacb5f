"""`Reach` into an environment in a cluster, from the host and from beside its keeper."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from envctl.errors import NoEnvironmentError
from envctl.model.environment import Environment
from envctl.substrates.base import Process, Usage, Where
from envctl.substrates.keeper import wire
from envctl.substrates.keeper.apart import ReachApart, Stdio
from envctl.substrates.keeper.place import KEEPER_AT, KEEPER_PORT, TOKEN, is_beside
from envctl.substrates.keeper.streams import write_all
from envctl.substrates.keeper.terminal import given
from envctl.substrates.kubernetes import forward
from envctl.substrates.kubernetes.api import Api, MissingError, api
from envctl.substrates.kubernetes.clusters import context_of
from envctl.substrates.kubernetes.identity import PART, Identity
from envctl.substrates.kubernetes.pods import is_ready
from envctl.substrates.kubernetes.work import NoRoomError, Work, keeper_of

NOT_STARTED = "envctl can't execute"  # what the agent's way in says in place of a command
_BACK_S, _AGAIN_S = 60.0, 0.3  # how long a keeper that has answered and is replaced is waited for
_FIRST_S = 2.0  # one that has not may never have been there
_CONNECT_S = 5.0
_ONCE = ("signal", "restart")  # what must not happen twice
_NO_VOLUME = (
    "the cluster has no default storage class: what is kept beside the nodes ends with the keeper's pod, and seeds and runs are in it"
    " (ENVCTL_KUBERNETES_STORAGE names a class)"
)
Answer = TypeVar("Answer")


class _BrokenOffError(NoEnvironmentError):
    """The keeper went in the middle of a request."""


class PodReach(ReachApart):
    """`Reach` into the environment of one directory."""

    substrate = "kubernetes"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.identity = Identity.of_directory(self.directory)
        self.beside = is_beside(self.directory)
        self._at = os.environ.get(KEEPER_AT, "127.0.0.1")
        self._keeper = ""
        self._met = False  # whether it has answered

    @property
    def api(self) -> Api:
        """The cluster.  Raises CapabilityError."""
        return api("" if self.beside else context_of(self.directory))

    # --- a keeper that is replaced comes back ---

    def connect(self) -> wire.Lines:
        """To the keeper's port, once it is there: through the cluster's API, or directly from beside it.  Raises OSError."""
        patience_s = 0.0 if self.beside and KEEPER_AT not in os.environ else _BACK_S if self._met else _FIRST_S
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return self._connected()
            except FileNotFoundError:
                raise
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_S)

    def _connected(self) -> wire.Lines:
        lines = self._dialled()
        self._met = True
        return lines

    def _dialled(self) -> wire.Lines:
        if self.beside:
            self.credentials = {"token": os.environ[TOKEN]}
            sock = socket.create_connection((self._at, KEEPER_PORT), timeout=_CONNECT_S)
            sock.settimeout(None)
            return wire.Lines(sock)
        if self._keeper:
            with contextlib.suppress(ConnectionRefusedError):  # a keeper that was replaced has another name
                return wire.Lines(self.api.dial(self._keeper, self.identity.namespace, KEEPER_PORT))
        self._look()
        return wire.Lines(self.api.dial(self._keeper, self.identity.namespace, KEEPER_PORT))

    def _look(self) -> None:
        """Finds the keeper's pod.  Raises OSError where none is ready, FileNotFoundError where none will be."""
        space = self.identity.namespace
        if context_of(self.directory) == "":
            raise FileNotFoundError("there is no cluster")
        self.token()
        for pod in self.api.find("Pod", space, f"{PART}=keeper"):
            if is_ready(pod) and not pod["metadata"].get("deletionTimestamp"):
                self._keeper = pod["metadata"]["name"]
                return
        if self._comes_back():
            raise ConnectionRefusedError(f"the keeper of {self.identity.env_id} does not run")
        raise FileNotFoundError(f"{self.identity.env_id} ends")

    def token(self) -> str:
        """What the keeper and those beside it want to hear.  Raises FileNotFoundError where there is no environment."""
        try:
            secret = self.api.get("Secret", "keeper", self.identity.namespace)
        except MissingError as error:
            raise FileNotFoundError(f"there is no namespace {self.identity.namespace} with a keeper") from error
        token = base64.b64decode(secret["data"]["token"]).decode()
        self.credentials = {"token": token}
        return token

    def _comes_back(self) -> bool:
        space = self.identity.namespace
        try:
            things = (self.api.get("Namespace", space), self.api.get("Deployment", "keeper", space))
        except MissingError:
            return False
        return not any(thing["metadata"].get("deletionTimestamp") for thing in things)

    def ended(self, do: str) -> NoEnvironmentError:
        """Its keeper may be replaced."""
        return _BrokenOffError(super().ended(do).message)

    def _again(self, do: Callable[[], Answer]) -> Answer:
        """What may be asked twice, until it is answered by one keeper."""
        deadline = time.monotonic() + _BACK_S
        while True:
            try:
                return do()
            except _BrokenOffError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_AGAIN_S)

    def ask(self, do: str, fds: Sequence[int] = (), **fields: Any) -> wire.Message:
        """As every client; a keeper that goes in the middle is asked again when it has come back."""
        ask = partial(super().ask, do, fds, **fields)
        return ask() if do in _ONCE else self._again(ask)

    def show(self, path: Path) -> None:
        """As every client."""
        self._again(partial(super().show, path))

    def fetch(self, path: Path, target: Path, *, most: int | None = None) -> None:
        """As every client."""
        self._again(partial(super().fetch, path, target, most=most))

    # --- what else differs ---

    @property
    def address(self) -> str:
        """The keeper's."""
        return str(self.ask("status")["address"])

    def notes(self) -> tuple[str, ...]:
        """Also where work runs."""
        kept = self.beside or keeper_of(self.api, self.identity.namespace)
        return (*super().notes(), *(() if kept else (_NO_VOLUME,)))

    def environment(self) -> Environment:
        """What is there now; published ports are this machine's."""
        return replace(super().environment(), endpoints=forward.published(self.directory))

    def executed(self, node: str, argv: Sequence[str], where: Where, env: Mapping[str, str], stdio: Stdio) -> Process:
        """By the agent on the node's machine."""
        terminal = given(*stdio[:2])
        return self.streamed({"do": "enter", "name": node, "where": where, "argv": list(argv), "env": dict(env), "terminal": terminal}, stdio, terminal)

    def worked(self, argv: Sequence[str], env: Mapping[str, str], stdio: Stdio, job: str) -> Process:
        """A Job where it is work of its own and finds room; else a command beside the keeper."""
        keeper = keeper_of(self.api, self.identity.namespace) if job and not self.beside else None
        if not keeper:
            return super().worked(argv, env, stdio, job)
        try:
            return Work(self, job).start(argv, env, stdio, keeper)
        except NoRoomError as error:
            note = f"the {job} is in the keeper's pod, and ends with it: {error.message}"
        if stdio[2] is not None:
            write_all(stdio[2], f"envctl: {note}\n".encode())
        process = super().worked(argv, env, stdio, job)
        process.note = note
        return process

    def not_run(self, stdout: str, stderr: str) -> str:  # noqa: ARG002
        """By the words of the agent."""
        return stderr.strip() if NOT_STARTED in stderr else ""

    def lose(self, node: str, senders: Sequence[str], share: float, lease_s: float) -> bool:
        """By Chaos Mesh, where that is asked for."""
        return bool(self.ask("lose", name=node, senders=list(senders), share=share, lease_s=lease_s)["lost"])

    def unlose(self, node: str) -> None:
        """Likewise."""
        self.ask("unlose", name=node)

    def log(self, name: str, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The lines that a node or helper has written, over all its lives."""
        self.node(name)
        yield from self.followed(name, tail) if follow else self.logged(name, tail)

    def usage(self) -> Mapping[str, Usage]:
        """What the agents have counted of each running container, by process."""
        nodes = self.ask("usage")["nodes"]
        return {name: {process: (cpu, memory) for process, (cpu, memory) in use.items()} for name, use in nodes.items()}

    def publish(self, name: str, node: str, port: int) -> str:
        """Leads a port of loopback to a node's, through a process of ours on this machine; idempotent by `name`."""
        return forward.publish(self.directory, name, node, port)

    def dialled(self, node: str, port: int) -> socket.socket:
        """A connection to a port of a node.  Raises ResourceError."""
        from envctl.substrates.keeper.client import checked

        lines = self.opened()
        try:
            lines.send({"do": "dial", "name": node, "port": port, **self.credentials})
            checked(lines.receive())
        except BaseException as error:
            lines.close()
            if isinstance(error, ConnectionError):
                raise self.ended("dial") from error
            raise
        return lines.sock
