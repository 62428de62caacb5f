"""Starts what an environment's keeper runs in a cluster: the nodes' workloads, helpers beside itself, and commands in both."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envctl.errors import EnvctlError, ResourceError
from envctl.model.environment import NodeSpec
from envctl.model.topology import Resources
from envctl.substrates.keeper.helpers import HelperLife, Helpers, beside
from envctl.substrates.keeper.wire import Lines, Message
from envctl.substrates.kubernetes.agents import open_agent, selector
from envctl.substrates.kubernetes.api import Api, MissingError, Object, path_of
from envctl.substrates.kubernetes.identity import AGENT_OF, AGENTS, PART, Identity
from envctl.substrates.kubernetes.logs import Kept, followed
from envctl.substrates.kubernetes.nodes import workload_kind
from envctl.substrates.kubernetes.pods import NO_POD_S, exit_status, newest, node_of, not_made, trouble, waiting_of

_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
_LEASE_MARGIN_S = 5.0
_ANSWER_S = 30.0
_LOG_END_S = 2.0  # the last words of a container that has ended


@dataclass(slots=True)
class PodLife:
    """One life of a node's container."""

    pod: str
    uid: str
    container: str
    address: str
    agent: Agents
    machine: str  # the cluster's node on which it runs
    ended: asyncio.Future[int]
    zone: str = ""  # that of its machine, where it has one
    kept: Kept = field(default_factory=Kept)
    over: bool = False  # its end has been told, or is about to be

    def main(self) -> int | None:
        """A number that no other life has: process ids are the machine's own affair."""
        return int(self.container[:7], 16)

    async def ask(self, do: str, **fields: Any) -> Message:
        """A request to the agent on its machine."""
        return await asyncio.to_thread(self.agent.ask, self.machine, self.request(do, **fields))

    def request(self, do: str, **fields: Any) -> Message:
        """A request about this container."""
        return {"do": do, "pod": self.uid, "container": self.container, **fields}

    async def signal(self, number: int) -> None:
        """Signals the main process."""
        await self.ask("signal", signal=int(number))

    async def pause(self, lease_s: float) -> None:
        """Stops all processes; should the keeper be killed, the agent lets them go on."""
        await self.ask("pause", lease_s=lease_s + _LEASE_MARGIN_S)

    async def resume(self) -> None:
        """Lets them go on."""
        with contextlib.suppress(EnvctlError):  # it has ended
            await self.ask("resume")

    async def is_paused(self) -> bool:
        """Whether none of them could run, as the agent on its machine sees it."""
        return bool((await self.ask("is_paused"))["paused"])

    async def limit(self, bounds: Resources, lease_s: float) -> None:
        """Bounds what it uses; should the keeper be killed, the agent ends that."""
        await self.ask("limit", cpus=bounds.cpus, memory_bytes=bounds.memory_bytes, lease_s=lease_s + _LEASE_MARGIN_S)

    async def unlimit(self) -> None:
        """As its pod says."""
        await self.ask("unlimit")

    async def throttled(self) -> float:
        """As the kernel of its machine has counted it."""
        return float((await self.ask("throttled"))["seconds"])


class Agents:
    """The node agents of the cluster, of one version."""

    def __init__(self, api: Api, version: str) -> None:
        self._api, self._version = api, version
        self._addresses: dict[str, str] = {}

    def open(self, machine: str, request: Mapping[str, Any]) -> Lines:
        """A connection to the agent of a machine, with a request under way.  Raises ResourceError."""
        token = {"token": _TOKEN.read_text(encoding="utf-8").strip()}
        for _ in range(2):
            if machine not in self._addresses:
                self._look(machine)
            try:
                return open_agent(self._addresses[machine], {**request, **token})
            except OSError:
                self._addresses.pop(machine, None)  # an agent that was replaced has another address
        raise ResourceError(f"the node agent of {machine} does not answer", hint=f"`kubectl -n {AGENTS} get pods`")

    def _look(self, machine: str) -> None:
        for pod in self._api.find("Pod", AGENTS, selector(self._version)):
            if pod["spec"].get("nodeName") == machine and (address := pod["status"].get("podIP")):
                self._addresses[machine] = address
                return
        raise ResourceError(f"there is no node agent on {machine}", hint=f"`kubectl -n {AGENTS} get pods`")

    def ask(self, machine: str, request: Mapping[str, Any]) -> Message:
        """A request and its answer.  Raises ResourceError."""
        from envctl.substrates.keeper.client import checked

        lines = self.open(machine, request)
        lines.sock.settimeout(_ANSWER_S)
        with contextlib.closing(lines):
            try:
                return checked(lines.receive())
            except OSError as error:
                raise ResourceError(f"the node agent of {machine} went in the middle of `{request['do']}`") from error


class PodLauncher:
    """Starts workloads that were made for nodes, and tells of each life of their containers."""

    gives_up = True  # the cluster's controllers start pods, here they are only waited for

    def __init__(self, identity: Identity, directory: Path, api: Api) -> None:
        self._identity, self._api, self.agents = identity, api, Agents(api, os.environ[AGENT_OF])
        self._helpers = Helpers(directory / "logs")
        self._pods: dict[str, dict[str, Object]] = {}  # node → uid → pod
        self._lives: dict[str, PodLife] = {}  # node → its life, or its last
        self._known: set[str] = set()  # containers that have had their life
        self._words: dict[str, int] = {}  # node → where in its log the words of its present life begin
        self._changed: dict[str, asyncio.Event] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self.adopted: set[str] = set()  # nodes of a keeper that was killed, who may have paused or limited them
        self.loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, name="pods", daemon=True).start()

    # --- what the cluster says ---

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # the API may be away for a while; then all are listed again
                for event in self._api.watch("Pod", self._identity.namespace, f"{PART}=node"):
                    self.loop.call_soon_threadsafe(self._hear, event)
            time.sleep(0.2)

    def _hear(self, event: Object) -> None:
        if event["type"] == "LISTED":
            self._pods = {}
            for pod in event["items"]:
                self._pods.setdefault(node_of(pod), {})[pod["metadata"]["uid"]] = pod
            nodes = {*self._pods, *self._lives}
        elif event["type"] in ("ADDED", "MODIFIED", "DELETED"):
            pod = event["object"]
            node = node_of(pod)
            known = self._pods.setdefault(node, {})
            known[pod["metadata"]["uid"]] = pod
            self._end(node)
            if event["type"] == "DELETED":
                del known[pod["metadata"]["uid"]]
            nodes = {node}
        else:
            return
        for node in nodes:
            self._end(node)
            self._event(node).set()

    def _event(self, node: str) -> asyncio.Event:
        return self._changed.setdefault(node, asyncio.Event())

    def _end(self, node: str) -> None:
        """Tells a life that it is over."""
        life = self._lives.get(node)
        if life is None or life.over:
            return
        pod = self._pods.get(node, {}).get(life.uid)
        status = 137 if pod is None else exit_status(pod, life.container)
        if status is not None:
            life.over = True
            ending = self.loop.create_task(self._over(life, status))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    @staticmethod
    async def _over(life: PodLife, status: int) -> None:
        await asyncio.to_thread(life.kept.wait, _LOG_END_S)
        life.ended.set_result(status)

    # --- a launcher ---

    async def start(self, spec: NodeSpec) -> PodLife | HelperLife:
        """Starts a helper, or waits for the next life of a node's container, or adopts the present one."""
        if spec.kind == "helper":
            return await self._helpers.start(spec)
        await self.scale(spec, 1)
        begun = time.monotonic()
        while True:
            self._event(spec.name).clear()
            pod = self._present(spec.name)
            if pod and (life := self._lives.get(spec.name)) and newest(pod) == life.container and not life.ended.done():
                return life  # somebody else had followed it
            if pod and (container := newest(pod)) and container not in self._known:
                if (former := self._lives.get(spec.name)) and not former.kept.is_whole:
                    await former.kept.end()
                    continue
                life = self._born(spec, pod, container)
                with contextlib.suppress(EnvctlError):  # then it is where it was to be, as far as is known
                    life.zone = (await life.ask("zone"))["zone"]
                if spec.name in self.adopted:
                    self.adopted.discard(spec.name)
                    await life.resume()
                    with contextlib.suppress(EnvctlError):  # then the agent ends it in time
                        await life.unlimit()
                return life
            await self._look_for_trouble(spec, pod, time.monotonic() - begun)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event(spec.name).wait(), 1.0)

    def _present(self, node: str) -> Object | None:
        pods = [pod for pod in self._pods.get(node, {}).values() if not pod["metadata"].get("deletionTimestamp")]
        return max(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)

    def _born(self, spec: NodeSpec, pod: Object, container: str) -> PodLife:
        life = PodLife(
            pod["metadata"]["name"], pod["metadata"]["uid"], container, pod["status"].get("podIP", ""), self.agents, pod["spec"]["nodeName"],
            self.loop.create_future(),
        )
        self._lives[spec.name] = life
        self._known.add(container)
        self._words[spec.name] = self._begin(spec.name, container)
        threading.Thread(target=self._follow, args=(spec.name, life), name=f"words of {container}", daemon=True).start()
        self._end(spec.name)
        return life

    def _begin(self, node: str, container: str) -> int:
        """Where in a node's log a container's words begin.  What an earlier keeper has kept of them makes room: they come again, from the first."""
        log, mark = self._helpers.log(node), self._helpers.log(f".{node}")
        at = self._helpers.written(node)
        with contextlib.suppress(OSError, ValueError):
            known, begun = mark.read_text(encoding="utf-8").split()
            if known == container and int(begun) <= at:
                os.truncate(log, int(begun))
                return int(begun)
        mark.write_text(f"{container} {at}", encoding="utf-8")
        return at

    def _follow(self, node: str, life: PodLife) -> None:
        """Keeps what a container says: the cluster forgets it with the pod."""
        life.kept.keep(followed(self._api, self._identity.namespace, life.pod, life.container, lambda: life.over), self._helpers.log(node))

    async def _look_for_trouble(self, spec: NodeSpec, pod: Object | None, waited_s: float) -> None:
        """Raises ResourceError with the object and the reason where a pod can't come to life; a pod that is backed off is replaced."""
        if pod is None:
            if waited_s > NO_POD_S and (why := await asyncio.to_thread(not_made, self._api, self._identity.namespace, workload_kind(spec), spec.name)):
                raise ResourceError(why)
        elif waiting_of(pod).get("reason") == "CrashLoopBackOff":  # how long to wait between starts is the keeper's to say, as everywhere
            await asyncio.to_thread(self._api.delete, "Pod", pod["metadata"]["name"], self._identity.namespace, grace_s=0)
        elif why := await asyncio.to_thread(trouble, self._api, pod, waited_s):
            raise ResourceError(why)

    async def scale(self, spec: NodeSpec, replicas: int) -> None:
        """One pod, or none; a job is never started again."""
        if (kind := workload_kind(spec)) != "Job":
            path = f"{path_of(kind, spec.name, self._identity.namespace)}/scale"
            await asyncio.to_thread(self._api.merge, path, {"spec": {"replicas": replicas}})

    async def keep_down(self, spec: NodeSpec) -> None:
        """The cluster would start the container again by itself."""
        with contextlib.suppress(MissingError):
            await self.scale(spec, 0)

    async def inside(self, argv: tuple[str, ...], spec: NodeSpec, life: PodLife | HelperLife) -> int:
        """The exit status of a command in a node."""
        assert isinstance(life, PodLife), spec.name
        request = life.request("enter", argv=list(argv), env={}, where="node")
        lines = await asyncio.to_thread(self.agents.open, life.machine, request)
        waiting = asyncio.create_task(asyncio.to_thread(_ended, lines))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                lines.sock.shutdown(2)  # the agent ends what nobody waits for
            raise

    async def beside(self, *argv: str) -> int:
        """The exit status of a command beside the keeper."""
        return await beside(*argv)

    async def written(self, name: str) -> int:
        """How much there is of a log."""
        return self._helpers.written(name)

    async def said(self, name: str, since: int) -> str:
        """What has come since; of a node what its present life has said, whoever kept it."""
        return self._helpers.said(name, self._words.get(name, since))

    async def tail(self, name: str) -> str:
        """The last lines."""
        return self._helpers.tail(name)


def _ended(lines: Lines) -> int:
    from envctl.substrates.keeper.client import checked

    with contextlib.closing(lines):
        try:
            lines.send({"in": ""})
            while "status" not in (message := checked(lines.receive())):
                pass
        except (OSError, EnvctlError):
            return 125
        return int(message["status"])
