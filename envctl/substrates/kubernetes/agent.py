"""The agent of a node: `python -m envctl.substrates.kubernetes.agent`, in a privileged pod of envctl's on every node of a cluster.

It alone has rights on the node, and uses them for keepers: it enters pods, signals and pauses them.  A keeper proves who it is by its
service account's token, and may touch only pods of its own namespace that bear an environment's label, on this node.  One agent
of the cluster also removes the namespaces whose lease has long run out, should their keepers have failed to.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from envctl.errors import CredentialsError, EnvctlError, ResourceError
from envctl.substrates.base import Where
from envctl.substrates.keeper import streams
from envctl.substrates.keeper.terminal import Size
from envctl.substrates.keeper.wire import Message, Peer
from envctl.substrates.kubernetes import enter, inside
from envctl.substrates.kubernetes.agents import end_unused, selector, uses
from envctl.substrates.kubernetes.api import Api, api, path_of
from envctl.substrates.kubernetes.identity import AGENT, AGENT_OF, AGENT_PORT, AGENTS, ENV, EXPIRES, ZONE
from envctl.substrates.kubernetes.pods import is_ready

_TOKEN_S, _POD_S = 60.0, 10.0  # how long a proof holds
_KNOWN = 10_000  # proofs
_FIRST_WORD_S, _REQUEST = 10.0, 1 << 23  # within which a request comes; its bytes
_REAP_S, _GRACE_S = 30.0, 120.0
_POLL_S = 0.02
_KEEPER = "keeper"  # service account
_STATUSES = ("containerStatuses", "initContainerStatuses")


class Caller(Peer):
    """A client who has not yet shown who it is: it gets no more memory than a request needs."""

    def read(self) -> None:
        """As always."""
        if len(self._buffer) > _REQUEST:
            raise ConnectionError("the request is too long")
        super().read()


class Proofs:
    """What was proved to be so, for a while."""

    def __init__(self, lifetime_s: float) -> None:
        self._lifetime_s = lifetime_s
        self._known: dict[str, tuple[float, str]] = {}

    async def of(self, parts: tuple[str, ...], prove: Callable[[], str]) -> str:
        """What `prove` returned last time, or returns now; what it raises is not kept."""
        key, now = hashlib.sha256("\0".join(parts).encode()).hexdigest(), time.monotonic()
        if (known := self._known.get(key)) and now < known[0]:
            return known[1]
        said = await asyncio.to_thread(prove)
        self._known = {key: one for key, one in self._known.items() if now < one[0]} if len(self._known) < _KNOWN else {}
        self._known[key] = (now + self._lifetime_s, said)
        return said


class Agent:
    """What keepers may ask of it (`do_…`, one method a request), each for one container."""

    def __init__(self, cluster: Api, node: str, pod: str, version: str) -> None:
        self._api, self._node, self._pod, self._version = cluster, node, pod, version
        self._tokens, self._pods = Proofs(_TOKEN_S), Proofs(_POD_S)
        self._leases: dict[tuple[Callable[[str], None], str], asyncio.TimerHandle] = {}  # when what was done to a container is undone
        self._idle = 0  # how often it has looked for environments and found none

    async def live(self) -> None:
        """Serves until it is ended."""
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        await self._until_done(self._recover)
        with socket.create_server(("0.0.0.0", AGENT_PORT)) as listener:
            listener.setblocking(False)
            meanwhile(self._accept(listener))
            meanwhile(self._reap_for_ever())
            await ended.wait()
        for undo, container in list(self._leases):
            with contextlib.suppress(EnvctlError, OSError):  # the others have to be undone all the same
                await self._undo(undo, container)

    async def _until_done(self, work: Callable[[], None]) -> None:
        while True:
            try:
                return await asyncio.to_thread(work)
            except EnvctlError as error:
                print(f"{error.message}; trying again", flush=True)  # noqa: T201 - its log
                await asyncio.sleep(1)

    def _recover(self) -> None:
        """What an agent before this one left, when it was killed; those of other versions may live, and have pods of their own."""
        spaces = {space["metadata"]["name"] for space in self._api.find("Namespace", labels=f"{AGENT}={self._version}")}
        for pod in self._pods_here():
            for container in _containers(pod) if pod["metadata"]["namespace"] in spaces else ():
                inside.recover(container)

    def _pods_here(self, namespace: str = "") -> list[Any]:
        query = [("fieldSelector", f"spec.nodeName={self._node}"), ("labelSelector", ENV)]
        found: list[Any] = self._api.ask("GET", path_of("Pod", "", namespace), query=query)["items"]
        return found

    # --- who asks, and for what ---

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            with contextlib.suppress(OSError):
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
                sock.setblocking(False)
                meanwhile(self._serve(Caller(sock)))

    async def _serve(self, peer: Peer) -> None:
        with contextlib.closing(peer), contextlib.suppress(OSError):
            _keep_alive(peer.sock)
            try:
                request = await asyncio.wait_for(peer.hear(), _FIRST_WORD_S)
            except (TimeoutError, ValueError):
                return
            if isinstance(request, dict):
                await peer.tell(await self._answer(peer, request))

    async def _answer(self, peer: Peer, request: Message) -> Message:
        do = request.get("do")
        try:
            container = await self._allowed(request)
            if do == "enter":
                return await self._enter(peer, container, request["argv"], request["env"], request["where"], request.get("terminal"))
            handler: Callable[..., Awaitable[Message | None]] = getattr(self, f"do_{do}")
            fields = {name: value for name, value in request.items() if name not in ("do", "token", "pod", "container")}
            return await handler(container, **fields) or {}
        except EnvctlError as error:
            return {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        except Exception as error:  # noqa: BLE001 - whatever it is, the client is told, and the others are served
            return {"error": "ResourceError", "message": f"{do}: {type(error).__name__}: {error}", "hint": ""}

    async def _allowed(self, request: Mapping[str, Any]) -> str:
        """The container that is asked for.  Raises CredentialsError for who may not ask, or not for that."""
        token, pod, container = (str(request[name]) for name in ("token", "pod", "container"))
        namespace = await self._tokens.of((token,), partial(self._namespace_of, token))
        return await self._pods.of((namespace, pod, container), partial(self._checked, namespace, pod, container))

    def _namespace_of(self, token: str) -> str:
        """The namespace whose keeper bears this token."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
        said = self._api.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review).get("status", {})
        if not said.get("authenticated"):
            raise CredentialsError("the token is not good here")
        user = said["user"]["username"].split(":")
        if len(user) != 4 or user[:2] != ["system", "serviceaccount"] or user[3] != _KEEPER:
            raise CredentialsError(f"{':'.join(user)} is no keeper of an environment")
        return str(user[2])

    def _checked(self, namespace: str, uid: str, container: str) -> str:
        """The container, if it is one of an environment's pod in that namespace, on this node."""
        for pod in self._pods_here(namespace):
            if pod["metadata"]["uid"] == uid and container in _containers(pod):
                return container
        raise CredentialsError(f"no pod of an environment in {namespace} has the container {container[:12]} on {self._node}")

    # --- what they may ask ---

    async def _enter(
        self, peer: Peer, container: str, argv: list[str], env: Mapping[str, str], where: Where, terminal: Size | None,
    ) -> Message:
        """Runs a command in the container, or in its network."""
        if where not in ("node", "netns") or not argv:
            raise ResourceError("a command is entered in `node` or `netns`")
        command, group = await asyncio.to_thread(inside.entry, container, argv, env, where)
        try:
            return await streams.serve(peer, command, {}, partial(tell, group), terminal)
        finally:
            meanwhile(asyncio.to_thread(inside.remove, group))

    async def do_signal(self, container: str, signal: int) -> None:
        """Signals the main process; SIGKILL ends all."""
        await asyncio.to_thread(inside.signal, container, signal)

    async def do_pause(self, container: str, lease_s: float) -> None:
        """Stops all of its processes for a while."""
        self._lease(inside.resume, container, lease_s)
        await asyncio.to_thread(inside.pause, container)

    def _lease(self, undo: Callable[[str], None], container: str, lease_s: float) -> None:
        """Undoes something after `lease_s` seconds, instead of when it would have been undone before."""
        self._forget(undo, container)
        loop = asyncio.get_running_loop()
        self._leases[undo, container] = loop.call_later(lease_s, lambda: meanwhile(self._undo(undo, container)))

    def _forget(self, undo: Callable[[str], None], container: str) -> None:
        if before := self._leases.pop((undo, container), None):
            before.cancel()

    async def _undo(self, undo: Callable[[str], None], container: str) -> None:
        self._forget(undo, container)
        await asyncio.to_thread(undo, container)

    async def do_resume(self, container: str) -> None:
        """Lets them go on."""
        await self._undo(inside.resume, container)

    async def do_is_paused(self, container: str) -> Message:
        """Whether they all stand still."""
        return {"paused": await asyncio.to_thread(inside.is_paused, container)}

    async def do_limit(self, container: str, cpus: float | None, memory_bytes: int | None, lease_s: float) -> None:
        """Bounds what it may use for a while."""
        self._lease(inside.unlimit, container, lease_s)
        await asyncio.to_thread(inside.limit, container, cpus, memory_bytes)

    async def do_throttled(self, container: str) -> Message:
        """For how long a quota has kept it from running."""
        return {"seconds": await asyncio.to_thread(inside.throttled, container)}

    async def do_unlimit(self, container: str) -> None:
        """Ends that."""
        await self._undo(inside.unlimit, container)

    async def do_zone(self, container: str) -> Message:  # noqa: ARG002 - every request is about a container
        """The zone in which this machine is; empty where the cluster knows of none."""
        labels = (await asyncio.to_thread(self._api.get, "Node", self._node))["metadata"].get("labels", {})
        return {"zone": labels.get(ZONE, "")}

    async def do_usage(self, container: str) -> Message:
        """What its processes use."""
        return {"usage": await asyncio.to_thread(inside.usage, container)}

    # --- the last keeper of leases ---

    async def _reap_for_ever(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # next time
                await asyncio.to_thread(self._reap)
            await asyncio.sleep(_REAP_S)

    def _reap(self) -> None:
        """Removes namespaces whose lease has long run out, if this is the agent that does so."""
        agents = self._api.find("Pod", AGENTS, selector(self._version))
        if self._pod != min((each["metadata"]["name"] for each in agents if is_ready(each)), default=""):
            return
        spaces = self._api.find("Namespace", labels=ENV)
        self._idle = 0 if any(uses(space, self._version) for space in spaces) else self._idle + 1
        if self._idle * _REAP_S > _GRACE_S:  # the last environment ended by itself, and nobody came to send the agents away
            end_unused(self._api, self._version)
        for space in filter(_has_expired, spaces):  # its keeper may renew it just now
            if self._api.delete_unchanged("Namespace", space):
                told = space["metadata"]
                print(f"removed {told['name']}: its lease ran out at {told['annotations'][EXPIRES]}", flush=True)  # noqa: T201 - its log


async def tell(group: Path, process: asyncio.subprocess.Process, number: int) -> None:
    """Signals a command that has entered, and all it has started."""
    if number == signal.SIGKILL:
        await asyncio.shield(meanwhile(_kill(group, process)))  # to the end, whether or not anybody waits for it
        return
    while not inside.tell(group, number) and process.returncode is None:  # noqa: ASYNC110 - it has yet to enter
        await asyncio.sleep(_POLL_S)


async def _kill(group: Path, process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    while process.returncode is None:  # noqa: ASYNC110 - `wait` would wait for all who have its streams
        await asyncio.sleep(_POLL_S)
    await asyncio.to_thread(inside.kill_all, group)  # nothing enters it any more


_tasks: set[asyncio.Task[Any]] = set()


def meanwhile(work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Does something to its end."""
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


def _containers(pod: Mapping[str, Any]) -> set[str]:
    """The ids of a pod's containers."""
    told = [each for name in _STATUSES for each in pod["status"].get(name, ())]
    return {each["containerID"].rpartition("/")[2] for each in told if each.get("containerID")}


def _has_expired(space: Mapping[str, Any]) -> bool:
    """Whether nobody has renewed a namespace's lease for long; one that says nothing of a lease is left alone."""
    told = space["metadata"]
    try:
        return "deletionTimestamp" not in told and float(told.get("annotations", {})[EXPIRES]) < time.time() - _GRACE_S
    except (KeyError, ValueError):
        return False


def _keep_alive(sock: socket.socket) -> None:
    """A client whose node has gone is noticed within a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in ((socket.TCP_KEEPIDLE, 20), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 4)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


async def main() -> None:
    """The life of an agent."""
    enter.see_groups_of(1)
    await Agent(api(""), os.environ["NODE_NAME"], os.environ["POD_NAME"], os.environ[AGENT_OF]).live()


if __name__ == "__main__":
    asyncio.run(main())
