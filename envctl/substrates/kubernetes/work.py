"""Work beside the nodes in a pod of its own: a Job with the keeper's image and files, in which `python -m envctl.substrates.kubernetes.work COMMAND…` runs.

Where the keeper's machine has no room for it the command runs in the keeper's pod instead, which has that already.

Whoever wants the work reaches its pod through the cluster's API, so that a keeper that is replaced meanwhile takes nothing with
it; what the work writes is on the keeper's volume, so that a pod that is killed takes nothing with it either.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import hmac
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from envctl.errors import EnvctlError, ResourceError
from envctl.substrates.base import LOST
from envctl.substrates.keeper import streams, wire
from envctl.substrates.keeper.place import KEEPER_AT, TOKEN
from envctl.substrates.kubernetes.api import Api, MissingError, Object
from envctl.substrates.kubernetes.identity import MAIN, PART, Identity
from envctl.substrates.kubernetes.objects import UNMOVED, literal
from envctl.substrates.kubernetes.pods import NO_POD_S, ended_of, not_made, trouble, unplaced
from envctl.substrates.kubernetes.volume import lead_all
from envctl.waiting import until

if TYPE_CHECKING:
    from envctl.substrates.kubernetes.reach import PodReach

PORT = 7413
_START_S = 120.0  # how long a pod may take that nothing is said against
_ANSWER_S, _AGAIN_S = 10.0, 0.1
_LOOK_S = 5.0
_CLIENT_S = 60.0  # how long a pod waits for whoever has made it
_KEPT_S = 300  # how long a Job is kept that nobody removes: longer than it takes to find out how it has ended
_GRACE_S = 30  # for work that is to end: a run heals its faults
_LOST_S, _LOST_AGAIN_S = _GRACE_S + 60.0, 0.5  # how long a pod whose connection was lost may take to end in good order, an API that is away to come back
_ENDED = 128 + signal.SIGTERM
_NO_ROOM = ("OutOf", "Evicted")  # begins what a machine says that has no room after all
_OF_JOB = "batch.kubernetes.io/job-name"  # label


def keeper_of(api: Api, namespace: str) -> Object | None:
    """The keeper's Deployment where its files are on a volume that other pods can have, too."""
    try:
        keeper = api.get("Deployment", "keeper", namespace)
    except MissingError:
        return None
    volumes = keeper["spec"]["template"]["spec"].get("volumes", ())
    return keeper if any("persistentVolumeClaim" in volume for volume in volumes) else None


def work_object(identity: Identity, name: str, argv: Sequence[str], keeper: Object) -> Object:
    """The Job: on the keeper's machine, where its volume is, and with no right to ask anything of the API."""
    pod = copy.deepcopy(keeper["spec"]["template"]["spec"])
    (container,) = pod.pop("containers")
    for right in ("serviceAccountName", "serviceAccount"):
        pod.pop(right, None)
    kept = {field: container[field] for field in ("image", "imagePullPolicy", "securityContext", "volumeMounts")}
    made = {
        **kept, "name": MAIN, "command": ["python3", "-P", "-m", "envctl.substrates.kubernetes.work"], "args": literal(argv),
        "env": [*container["env"], {"name": KEEPER_AT, "value": "telemetry"}],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "2Gi"}},
    }
    near = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {PART: "keeper"}}}
    pod |= {
        "containers": [made], "restartPolicy": "Never", "automountServiceAccountToken": False, "terminationGracePeriodSeconds": _GRACE_S,
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [near]}},
    }
    labels = identity.labels("work")
    return {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "namespace": identity.namespace, "labels": labels},
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": _KEPT_S, "template": {"metadata": {"labels": labels, "annotations": dict(UNMOVED)}, "spec": pod}},
    }


# --- whoever wants it ---


class NoRoomError(ResourceError):
    """Its pod was not to be had beside the keeper's, and nothing of it has begun."""


class Work:
    """One Job, from its making to its removal."""

    def __init__(self, reach: PodReach, job: str) -> None:
        self.reach, self.space = reach, reach.identity.namespace
        self.name = f"envctl-{job}-{secrets.token_hex(3)}"
        self._asked = False  # whether the command may have begun

    def start(self, argv: Sequence[str], env: Mapping[str, str], stdio: tuple[int | None, int | None, int | None], keeper: Object) -> Worked:
        """Makes it, and returns once the command runs.  Raises NoRoomError, ResourceError, with the object and the reason."""
        begun = time.monotonic()
        self.reach.api.apply(work_object(self.reach.identity, self.name, argv, keeper))
        try:
            while True:
                if (pod := self._running(time.monotonic() - begun)) and (worked := self._joined(pod, env, stdio)):
                    return worked
                time.sleep(_AGAIN_S)
        except BaseException:
            self.remove()
            raise

    def _running(self, waited_s: float) -> str:
        """The name of its pod once it runs."""
        pod = self.pod()
        if (why := self._no_room(pod, waited_s)) and not self._asked:
            raise NoRoomError(why)
        if not why and pod and not (why := trouble(self.reach.api, pod, waited_s)) and (ended := ended_of(pod)):
            why = f"its pod {ended[1]} before it {'had told that it had' if self._asked else 'had'} begun"
        if why or waited_s > _START_S:
            raise ResourceError(f"{self.name} could not be {'followed' if self._asked else 'started'}: {why or f'it has no pod that runs after {_START_S:g} s'}")
        return str(pod["metadata"]["name"]) if pod and pod["status"].get("phase") == "Running" else ""

    def _no_room(self, pod: Object | None, waited_s: float) -> str:
        """Why it has no pod on the keeper's machine; one that is added would be another."""
        if pod is None:
            return not_made(self.reach.api, self.space, "Job", self.name) if waited_s > NO_POD_S else ""
        if str(pod["status"].get("reason", "")).startswith(_NO_ROOM):
            return f"pod {pod['metadata']['name']}: {pod['status']['reason']}: {pod['status'].get('message', '')}"
        return unplaced(pod, waited_s)

    def _joined(self, pod: str, env: Mapping[str, str], stdio: tuple[int | None, int | None, int | None]) -> Worked | None:
        """The command, unless nobody listens there yet."""
        try:
            lines = wire.Lines(self.reach.api.dial(pod, self.space, PORT))
        except OSError:
            return None
        try:
            lines.sock.settimeout(_ANSWER_S)
            request = {"env": dict(env), "token": self.reach.token()}
            self._asked = True
            lines.send(request)
            return Worked(self, lines, stdio)
        except OSError:
            lines.close()
            return None

    def pod(self) -> Object | None:
        """Its only pod."""
        found = self.reach.api.find("Pod", self.space, f"{_OF_JOB}={self.name}")
        return found[0] if found else None

    def how_it_ended(self) -> tuple[int, str]:
        """Exit status of a pod whose connection was lost, and what is to be said of it, as the cluster has it.

        One that lives ends in good order when it notices, and is waited for: what it records meanwhile belongs to the record.
        """
        told: list[tuple[int, str]] = []

        def has_ended() -> bool:
            with contextlib.suppress(EnvctlError):  # an API that is away comes back
                told.extend(self._end())
            return bool(told)

        until(has_ended, _LOST_S, poll_s=_LOST_AGAIN_S)
        return told[0] if told else (streams.KILLED, f"the connection to {self.name} was lost, and nobody tells that it has ended")

    def _end(self) -> Iterator[tuple[int, str]]:
        """How it has ended, if it has."""
        if (pod := self.pod()) is None:
            yield streams.KILLED, f"the pod of {self.name} was deleted"
        elif ended := ended_of(pod):
            lost = f"the connection to {self.name} was lost; it ended in good order"
            yield ended[0], lost if ended[0] == LOST else f"the pod of {self.name} {ended[1]}"
        else:
            self._tell_lost(pod["metadata"]["name"])

    def _tell_lost(self, pod: str) -> None:
        """Takes the place of the connection that was lost: what carried it may not have noticed at the other end."""
        with contextlib.suppress(OSError), contextlib.closing(wire.Lines(self.reach.api.dial(pod, self.space, PORT))) as lines:
            lines.sock.settimeout(_ANSWER_S)
            lines.send({"token": self.reach.token()})
            lines.receive()

    def remove(self) -> None:
        """It and its pod; a cluster that does not answer removes it by itself, once it has ended."""
        with contextlib.suppress(EnvctlError):
            self.reach.api.delete("Job", self.name, self.space)


class Worked(streams.Streamed):
    """The command of a Job, as its client sees it."""

    def __init__(self, work: Work, lines: wire.Lines, stdio: tuple[int | None, int | None, int | None]) -> None:
        self._work = work
        super().__init__(lines, *stdio)
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        """Keeps the environment in use meanwhile, and notices a pod that went without a word."""
        gone = 0
        while not self._ended.wait(_LOOK_S):
            with contextlib.suppress(EnvctlError):
                pod = self._work.pod()
                gone = gone + 1 if pod is None or ended_of(pod) else 0
            if gone > 1:  # its last words had their time
                with contextlib.suppress(OSError):
                    self._lines.sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(EnvctlError):
                self._work.reach.ask("use")

    def lost(self) -> tuple[int, str]:
        """By what the cluster says of its pod."""
        status, why = self._work.how_it_ended()
        return status, f"envctl: {why}\n"

    def _end(self, status: int) -> None:
        self._work.remove()
        super()._end(status)


# --- in the pod ---


class Worker:
    """Runs one command for the first who asks with the right token."""

    def __init__(self, argv: list[str]) -> None:
        self._argv = argv
        self._process: asyncio.subprocess.Process | None = None
        self._is_to_end = False
        self._clients: asyncio.Queue[tuple[wire.Peer, wire.Message]] = asyncio.Queue()
        self._greetings: set[asyncio.Task[None]] = set()

    async def live(self) -> int:
        """The exit status."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._end)
        with socket.create_server(("127.0.0.1", PORT)) as listener:
            listener.setblocking(False)
            accepting = asyncio.create_task(self._accept(listener))
            try:
                return await self._serve_first()
            finally:
                accepting.cancel()
                await asyncio.wait([accepting])

    async def _serve_first(self) -> int:
        try:
            peer, request = await asyncio.wait_for(self._clients.get(), _CLIENT_S)
        except TimeoutError:
            return 1
        with contextlib.closing(peer):
            later = asyncio.create_task(self._give_way(peer))
            try:
                return await self._serve(peer, request)
            finally:
                later.cancel()
                await asyncio.wait([later])

    async def _serve(self, peer: wire.Peer, request: wire.Message) -> int:
        try:
            answer = await streams.serve(peer, self._argv, request["env"], begun=self._begin)
        except OSError as error:
            await peer.tell({"error": "ResourceError", "message": f"{self._argv[0]} can't be run: {error}", "hint": ""})
            return 127
        if "status" not in answer:  # the client has gone: what would only be of use to it is to be taken back
            self._tell(signal.SIGHUP)
        left = [_left(status) for status in await streams.last_ends()]
        status = _ENDED if self._is_to_end else int(answer.get("status", (*left, LOST)[0]))
        with contextlib.suppress(OSError):
            if self._is_to_end:
                await peer.tell({"err": base64.b64encode(b"envctl: the pod was told to end\n").decode()})
            await peer.tell({"status": status})
        return status

    async def _accept(self, listener: socket.socket) -> None:
        """Only the machine's own forwarding gets here, and with it whoever may use it; nodes don't."""
        while True:
            try:
                sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            except OSError:  # it went before it was taken, or there are too many
                await asyncio.sleep(_AGAIN_S)
                continue
            greeting = asyncio.create_task(self._greet(wire.Peer(sock)))  # who says nothing keeps nobody waiting
            self._greetings.add(greeting)
            greeting.add_done_callback(self._greetings.discard)

    async def _greet(self, peer: wire.Peer) -> None:
        """Lets in who has the token."""
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):  # among them TimeoutError, and all that is no request
            request = await asyncio.wait_for(peer.hear(), _ANSWER_S)
            if request and hmac.compare_digest(str(request.get("token", "")), os.environ[TOKEN]):
                return self._clients.put_nowait((peer, request))
        return peer.close()

    async def _give_way(self, peer: wire.Peer) -> None:
        """A client who comes again has lost its connection, whatever still holds this end of it."""
        later, _ = await self._clients.get()
        with contextlib.suppress(OSError):
            peer.sock.shutdown(socket.SHUT_RDWR)
        later.close()

    def _begin(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def _end(self) -> None:
        """The cluster wants the machine, or somebody the pod's end: in good order, if it can be had in the time that is left."""
        self._is_to_end = True
        if self._process is None:
            os._exit(_ENDED)
        self._tell(signal.SIGTERM)

    def _tell(self, number: int) -> None:
        if self._process:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


def _left(status: int) -> int:
    """The exit status of a command whose client has gone: `LOST` for one that has ended in good order, or because it was told to; else its own."""
    return LOST if status in (0, _ENDED) else 128 - status if status < 0 else status


if __name__ == "__main__":
    lead_all()
    sys.exit(asyncio.run(Worker(sys.argv[1:]).live()))
