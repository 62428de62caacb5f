"""Environments, nodes and provisions as resources of Pulumi."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar, runtime_checkable

from pulumi.provider.experimental import provider as sdk
from pulumi.provider.experimental.property_value import PropertyValue

from envctl import __version__
from envctl.errors import CancelledError, EnvctlError, NoEnvironmentError, ResourceError
from envctl.model.topology import Probe
from envctl.stack_provider.encoding import spec_from_json
from envctl.stack_provider.ground import Substrates, Tally, begin, installed, is_up
from envctl.substrates.base import Reach, Realiser

ENVIRONMENT = "envctl:index:Environment"
NODE = "envctl:index:Node"
PROVISION = "envctl:index:Provision"
INTAKE_HOST = "198.18.0.1"
INTAKE_PORT = 4318

Properties = Mapping[str, PropertyValue]
T = TypeVar("T")


@runtime_checkable
class Supervising(Protocol):
    """A `Reach` that keeps helpers running beside the nodes."""

    def helper(self, name: str, argv: Sequence[str], *, ready: Probe | None = None) -> None:
        """Starts it, idempotent by name, and waits until it is ready."""


def keep_intake(reach: Reach, directory: Path) -> None:
    """Has the environment keep an OTLP intake running, where it has room for helpers; returns when it is ready."""
    if isinstance(reach, Supervising):
        module = ("-P", "-m", "envctl.telemetry.intake", "--directory", str(directory / "telemetry"), "--host", INTAKE_HOST)
        reach.helper("telemetry", (sys.executable, *module), ready=Probe("tcp", port=INTAKE_PORT))


def log_tail(paths: tuple[Path, ...], lines: int = 20) -> str:
    """The last lines of the newest of some log files, indented; empty when there are none."""
    for path in reversed(paths):
        text = path.read_text(errors="replace").splitlines()[-lines:] if path.exists() else []
        if text:
            return "\n".join(f"    {line}" for line in text)
    return ""


class EnvctlProvider(sdk.Provider):
    """Creates, reads, updates and deletes the three kinds of resource through a substrate."""

    def __init__(self, substrates: Substrates = installed, progress: Callable[[str], None] | None = None) -> None:
        """`progress` gets one line for each node that became ready or was removed."""
        self._substrates = substrates
        self.tally = Tally()
        self._progress = progress or (lambda _: None)
        self._cancelled: asyncio.Event | None = None
        self._intake: Future[None] | None = None

    def settle(self) -> None:
        """Waits for what was begun and not waited for.  Raises what went wrong with it."""
        if self._intake is not None:
            self._intake.result()

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
            environment = self._reach(properties).environment()
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
            self._realiser(wanted).create_environment(wanted["environment"], ttl_s=wanted["ttl_s"], labels=json.loads(wanted["labels"]))
            self._intake = begin(lambda: keep_intake(self._reach(wanted), self._directory(wanted)))  # nodes don't wait for it
            return wanted
        return self._start(wanted) if type_ == NODE else self._provision(wanted)

    def _start(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        _mark(self._directory(wanted), wanted["component"]).clear()
        spec = spec_from_json(wanted["spec"])
        node = self._realiser(wanted).start_node(spec, ready_timeout_s=wanted["ready_timeout_s"])
        self.tally.started.append(node.name)
        self._progress(f"{node.name} {'done' if spec.one_shot else 'ready'}")
        return {**wanted, "address": node.address}

    def _provision(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        reach, directory = self._reach(wanted), self._directory(wanted)
        log = directory / "logs" / f"{wanted['component']}.provision.log"
        log.parent.mkdir(exist_ok=True)  # not what is above: the environment may have ended
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
        if type_ == ENVIRONMENT:
            self._realiser(state).end_environment()
            return
        _mark(self._directory(state), state["component"]).clear()
        self._realiser(state).stop_node(state["name"])
        self.tally.ended.append(state["name"])
        self._progress(f"{state['name']} removed")

    def _directory(self, properties: Mapping[str, Any]) -> Path:
        return self._substrates(properties["substrate"]).directory(properties["environment"])

    def _reach(self, properties: Mapping[str, Any]) -> Reach:
        return self._substrates(properties["substrate"]).attach(self._directory(properties))

    def _realiser(self, properties: Mapping[str, Any]) -> Realiser:
        return self._substrates(properties["substrate"]).realiser(self._directory(properties))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, done in a thread of its own that never keeps the process from ending; ends early on cancel."""
        self._cancelled = self._cancelled or asyncio.Event()
        done = asyncio.wrap_future(begin(work))
        cancelled = asyncio.ensure_future(self._cancelled.wait())
        try:
            await asyncio.wait((done, cancelled), return_when=asyncio.FIRST_COMPLETED)
            return done.result() if done.done() else _give_up()
        except Exception as error:
            known = error if isinstance(error, EnvctlError) else EnvctlError(f"{type(error).__name__}: {error}")
            self.tally.failures.append(known)
            raise known from error
        finally:
            cancelled.cancel()


def _give_up() -> NoReturn:
    raise CancelledError("cancelled")


@dataclass(frozen=True, slots=True)
class _Mark:
    """The digest of the provision that a component last had, kept with the environment because it is true only there."""

    path: Path

    def holds(self, digest: str) -> bool:
        return self.path.exists() and self.path.read_text() == digest

    def write(self, digest: str) -> None:
        self.path.parent.mkdir(exist_ok=True)
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
