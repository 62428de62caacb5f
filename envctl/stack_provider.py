"""The Pulumi provider `envctl`: environments, nodes and provisions as resources.

It runs in envctl's own process, where the engine attaches to it, and as the plug-in `pulumi-resource-envctl`, so that a plain
`pulumi` can refresh and destroy.  Both believe the living environment, not the state: a difference is a digest that changed
*or* a node that is not ready, so every update repairs what died without a refresh.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from google.protobuf import empty_pb2
from pulumi.provider.experimental import provider as sdk
from pulumi.provider.experimental.property_value import PropertyValue
from pulumi.provider.experimental.server import ProviderServicer
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from envctl import __version__
from envctl.errors import CancelledError, EnvctlError, NoEnvironmentError, ResourceError
from envctl.model.environment import Mount, Node, NodeSpec
from envctl.model.topology import Probe, Resources
from envctl.substrates.base import Reach, Realiser

ENVIRONMENT = "envctl:index:Environment"
NODE = "envctl:index:Node"
PROVISION = "envctl:index:Provision"

Properties = Mapping[str, PropertyValue]
T = TypeVar("T")


class Ground(Protocol):
    """Where the provider finds the substrate of an environment."""

    def realiser(self, substrate: str, env_id: str) -> Realiser:
        """Makes and ends nodes of the environment."""

    def reach(self, substrate: str, env_id: str) -> Reach:
        """Looks at the living environment.  Raises NoEnvironmentError."""


class PluginGround:
    """The substrates of this installation, by name."""

    def realiser(self, substrate: str, env_id: str) -> Realiser:
        """As `Ground.realiser`."""
        from envctl.plugins import load

        realiser: Realiser = load("envctl.substrates", substrate).realiser(env_id)
        return realiser

    def reach(self, substrate: str, env_id: str) -> Reach:
        """As `Ground.reach`."""
        from envctl.plugins import load

        reach: Reach = load("envctl.substrates", substrate).reach(env_id)
        return reach


def spec_to_json(spec: NodeSpec) -> str:
    """A NodeSpec as one line of JSON, the same for equal specs."""
    return json.dumps(asdict(spec), default=str, sort_keys=True, separators=(",", ":"))


def spec_from_json(text: str) -> NodeSpec:
    """The inverse of `spec_to_json`."""
    raw = json.loads(text)
    raw["command"] = tuple(raw["command"])
    raw["mounts"] = tuple(Mount(Path(m["source"]), m["target"], m["writable"]) for m in raw["mounts"])
    raw["data"] = None if raw["data"] is None else Path(raw["data"])
    raw["resources"] = Resources(**raw["resources"])
    if raw["ready"] is not None:
        raw["ready"] = Probe(**{**raw["ready"], "command": tuple(raw["ready"]["command"])})
    known = {each.name for each in fields(NodeSpec)}
    return NodeSpec(**{name: value for name, value in raw.items() if name in known})


def is_up(node: Node) -> bool:
    """Whether a node does its work: ready, or, for a job, done.  A held node was stopped on purpose and counts as not up."""
    return node.state == "ready" or (node.state == "exited" and node.exit_status == 0)


def log_tail(paths: tuple[Path, ...], lines: int = 20) -> str:
    """The last lines of the newest of some log files, indented; empty when there are none."""
    for path in reversed(paths):
        text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
        if text:
            return "\n".join(f"    {line}" for line in text)
    return ""


@dataclass(slots=True)
class Tally:
    """What an update did, by name of resource, and what went wrong: the engine reports neither in a form worth parsing."""

    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    provisioned: list[str] = field(default_factory=list)
    failures: list[EnvctlError] = field(default_factory=list)


class EnvctlProvider(sdk.Provider):
    """Creates, reads, updates and deletes the three kinds of resource through a substrate."""

    def __init__(self, ground: Ground | None = None, progress: Callable[[str], None] | None = None) -> None:
        """`progress` gets one line for each node that became ready or was removed."""
        self.ground = ground or PluginGround()
        self.tally = Tally()
        self._progress = progress or (lambda _: None)
        self._cancelled: asyncio.Event | None = None

    async def configure(self, request: sdk.ConfigureRequest) -> sdk.ConfigureResponse:  # noqa: ARG002
        """Takes no configuration; previews are computed by the engine alone."""
        return sdk.ConfigureResponse(accept_secrets=False, supports_preview=False, accept_resources=False, accept_outputs=False)

    async def get_schema(self, request: sdk.GetSchemaRequest) -> sdk.GetSchemaResponse:  # noqa: ARG002
        """The least schema that lets `pulumi` show what there is."""
        resources: dict[str, Any] = {token: {"inputProperties": {}, "properties": {}} for token in (ENVIRONMENT, NODE, PROVISION)}
        return sdk.GetSchemaResponse(json.dumps({"name": "envctl", "version": __version__, "resources": resources}))

    async def diff(self, request: sdk.DiffRequest) -> sdk.DiffResponse:
        """Compares with the old inputs and with what is alive."""
        new = _plain(request.new_inputs)
        changed = await self._in_thread(lambda: self._differs(request.type, _plain(request.old_state), new))
        return sdk.DiffResponse(changes=bool(changed), diffs=changed, replaces=_replaces(changed), delete_before_replace=True)

    def _differs(self, type_: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
        changed = [name for name in _identity(type_) if old.get(name) != new.get(name)]
        return changed or ([] if self._alive(type_, new) else ["alive"])

    def _alive(self, type_: str, properties: Mapping[str, Any]) -> bool:
        try:
            reach = self.ground.reach(properties["substrate"], properties["environment"])
            environment = reach.environment()
        except NoEnvironmentError:
            return False
        if type_ == ENVIRONMENT:
            return True
        if type_ == PROVISION:
            return _mark(environment.directory, properties["component"]).holds(properties["digest"])
        return any(n.name == properties["name"] and n.digest == properties["digest"] and is_up(n) for n in environment.nodes)

    async def create(self, request: sdk.CreateRequest) -> sdk.CreateResponse:
        """Makes the resource, or adopts the living one."""
        outputs = await self._in_thread(lambda: self._realise(request.type, _plain(request.properties)))
        return sdk.CreateResponse(request.name, _properties(outputs))

    async def update(self, request: sdk.UpdateRequest) -> sdk.UpdateResponse:
        """As `create`: the substrate replaces a node that has another digest."""
        outputs = await self._in_thread(lambda: self._realise(request.type, _plain(request.news)))
        return sdk.UpdateResponse(_properties(outputs))

    async def read(self, request: sdk.ReadRequest) -> sdk.ReadResponse:
        """Tells the truth: what is not there any more has no id."""
        state = _plain(request.properties)
        if await self._in_thread(lambda: self._alive(request.type, state)):
            return sdk.ReadResponse(request.resource_id, dict(request.properties), dict(request.inputs))
        return sdk.ReadResponse("")

    async def delete(self, request: sdk.DeleteRequest) -> None:
        """Removes the resource; one that is not there is fine."""
        await self._in_thread(lambda: self._remove(request.type, _plain(request.properties)))

    async def cancel(self) -> None:
        """Gives up what is under way; nodes that were started stay in the environment and are adopted by the next update."""
        if self._cancelled is not None:
            self._cancelled.set()

    def _realise(self, type_: str, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        if type_ == ENVIRONMENT:
            realiser = self.ground.realiser(wanted["substrate"], wanted["environment"])
            realiser.create_environment(wanted["environment"], ttl_s=wanted["ttl_s"], labels=json.loads(wanted["labels"]))
            return wanted
        return self._start(wanted) if type_ == NODE else self._provision(wanted)

    def _start(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        substrate, env_id = wanted["substrate"], wanted["environment"]
        _mark(self.ground.reach(substrate, env_id).environment().directory, wanted["component"]).clear()
        spec = spec_from_json(wanted["spec"])
        node = self.ground.realiser(substrate, env_id).start_node(spec, ready_timeout_s=wanted["ready_timeout_s"])
        self.tally.started.append(node.name)
        self._progress(f"{node.name} {'done' if spec.one_shot else 'ready'}")
        return {**wanted, "address": node.address}

    def _provision(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        reach = self.ground.reach(wanted["substrate"], wanted["environment"])
        directory = reach.environment().directory
        log = directory / "logs" / f"{wanted['component']}.provision.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = reach.popen(
                None, json.loads(wanted["command"]), env=json.loads(wanted["env"]), stdout=output, stderr=output
            )
            status = process.wait(wanted["ready_timeout_s"])
        if status:
            raise ResourceError(f"{wanted['component']} could not be provisioned (exit {status})\n{log_tail((log,))}")
        _mark(directory, wanted["component"]).write(wanted["digest"])
        self.tally.provisioned.append(wanted["component"])
        self._progress(f"{wanted['component']} provisioned")
        return wanted

    def _remove(self, type_: str, state: Mapping[str, Any]) -> None:
        if type_ == PROVISION:
            return
        realiser = self.ground.realiser(state["substrate"], state["environment"])
        if type_ == ENVIRONMENT:
            realiser.end_environment()
            return
        try:
            _mark(self.ground.reach(state["substrate"], state["environment"]).environment().directory, state["component"]).clear()
            realiser.stop_node(state["name"])
        except NoEnvironmentError:
            return  # the environment ended, and its nodes with it
        self.tally.ended.append(state["name"])
        self._progress(f"{state['name']} removed")

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, done in a thread of its own that never keeps the process from ending; ends early on cancel."""
        loop = asyncio.get_running_loop()
        self._cancelled = self._cancelled or asyncio.Event()
        done: asyncio.Future[T] = loop.create_future()
        threading.Thread(target=_settle, args=(loop, done, work), daemon=True).start()
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait((done, cancelled), return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                raise CancelledError("cancelled")
            return done.result()
        except EnvctlError as error:
            self.tally.failures.append(error)
            raise
        finally:
            cancelled.cancel()


def _settle(loop: asyncio.AbstractEventLoop, done: asyncio.Future[T], work: Callable[[], T]) -> None:
    def tell(setter: Callable[[Any], None], value: object) -> None:
        if not loop.is_closed():  # nobody waits any more after a cancel
            loop.call_soon_threadsafe(lambda: None if done.done() else setter(value))

    try:
        tell(done.set_result, work())
    except Exception as error:  # noqa: BLE001 — handed over to whoever awaits
        tell(done.set_exception, error)


@dataclass(frozen=True, slots=True)
class _Mark:
    """The digest of the provision that a component last had, kept with the environment because it is true only there."""

    path: Path

    def holds(self, digest: str) -> bool:
        return self.path.exists() and self.path.read_text() == digest

    def write(self, digest: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(digest)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)


def _mark(directory: Path, component: str) -> _Mark:
    return _Mark(directory / "provisions" / component)


def _identity(type_: str) -> tuple[str, ...]:
    own = {ENVIRONMENT: ("ttl_s", "labels"), NODE: ("name", "digest"), PROVISION: ("digest",)}[type_]
    return ("environment", "substrate", *own)


def _replaces(changed: list[str]) -> list[str]:
    return [name for name in changed if name in ("environment", "substrate", "name")]


def _plain(properties: Properties) -> dict[str, Any]:
    return {name: value.value for name, value in properties.items()}


def _properties(values: Mapping[str, Any]) -> dict[str, PropertyValue]:
    return {name: PropertyValue(value) for name, value in values.items()}


class Servicer(ProviderServicer):
    """The SDK's servicer with what an attached provider needs, and with errors that are messages instead of tracebacks."""

    async def Handshake(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802 — the protocol's name
        """Agrees to be attached."""
        return provider_pb2.ProviderHandshakeResponse()

    async def Attach(self, request: Any, context: Any) -> Any:  # noqa: ARG002, N802
        """The engine tells its address; nothing of ours calls back."""
        self._engine_address = request.address
        return empty_pb2.Empty()

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Create, request, context)

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Update, request, context)

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Delete, request, context)

    async def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Diff, request, context)

    async def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        """As the SDK's."""
        return await self._explained(super().Read, request, context)

    @staticmethod
    async def _explained(method: Callable[[Any, Any], Any], request: Any, context: Any) -> Any:
        try:
            return await method(request, context)
        except EnvctlError as error:
            await context.abort(grpc.StatusCode.UNKNOWN, error.message)


async def serve(provider: sdk.Provider) -> tuple[grpc.aio.Server, int]:
    """Starts the provider's server on loopback; returns it and its port."""
    server = grpc.aio.server(options=_GRPC_CHANNEL_OPTIONS)
    servicer = Servicer([], __version__, provider, engine_address="")
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return server, port


def main(ground: Ground | None = None) -> None:
    """The plug-in `pulumi-resource-envctl`: prints its port and serves until the engine ends it."""

    async def run() -> None:
        server, port = await serve(EnvctlProvider(ground))
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()
        await server.wait_for_termination()

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(0)
