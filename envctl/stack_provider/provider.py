"""Environments, nodes and provisions as resources of Pulumi."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

from pulumi.provider.experimental import provider as sdk
from pulumi.provider.experimental.property_value import PropertyValue

from envctl import __version__
from envctl.errors import CancelledError, DeadlineError, EnvctlError, NoEnvironmentError, ResourceError
from envctl.model.topology import Probe
from envctl.stack_provider.encoding import spec_from_json
from envctl.stack_provider.ground import Substrates, Tally, begin, installed, is_up
from envctl.substrates.base import MakesParts, Notebook, Process, Reach, Realiser

ENVIRONMENT = "envctl:index:Environment"
NODE = "envctl:index:Node"
PROVISION = "envctl:index:Provision"
_LOOK_S = 4.0  # how often it is looked how a node that is waited for is doing
_PATIENT_STARTS = 2  # a node may have to be started again once; more often is worth telling
_KEPT = 1 << 15  # characters of what a provision said
INTAKE_PORT, INTAKE_GRPC_PORT = 4318, 4317

Properties = Mapping[str, PropertyValue]
T = TypeVar("T")


def keep_intake(reach: Reach, directory: Path) -> None:
    """Has the environment keep an OTLP intake running beside the nodes; returns when it is ready."""
    where = ("--directory", str(directory / "telemetry"), "--host", reach.address)
    reach.helper("telemetry", "envctl.telemetry.intake", *where, ready=Probe("tcp", port=INTAKE_PORT))


def indented(text: str, lines: int = 20) -> str:
    """The last lines of a text."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:])


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
        if kind := _part(type_):
            return self._parts(properties).has_part(kind, properties["name"])
        try:
            environment = self._reach(properties).environment()
        except NoEnvironmentError:
            return False
        if type_ == ENVIRONMENT:
            return True
        if type_ == PROVISION:
            return bool(self._notebook(properties).read(_mark(properties)) == properties["digest"])
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
        if kind := _part(type_):
            self._parts(wanted).make_part(kind, wanted["name"], wanted["node"])
            return wanted
        if type_ == ENVIRONMENT:
            self._realiser(wanted).create_environment(wanted["environment"], ttl_s=wanted["ttl_s"], labels=json.loads(wanted["labels"]))
            self._intake = begin(lambda: keep_intake(self._reach(wanted), self._directory(wanted)))  # nodes don't wait for it
            return wanted
        return self._start(wanted) if type_ == NODE else self._provision(wanted)

    def _start(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        self._notebook(wanted).write(_mark(wanted), None)
        spec = spec_from_json(wanted["spec"])
        over = threading.Event()
        begin(lambda: self._tell_ends(wanted, spec.name, over))
        try:
            node = self._realiser(wanted).start_node(spec, ready_timeout_s=wanted["ready_timeout_s"])
        finally:
            over.set()
        self.tally.started.append(node.name)
        self._progress(f"{node.name} {'done' if spec.one_shot else 'ready'}")
        return {**wanted, "address": node.address}

    def _tell_ends(self, wanted: Mapping[str, Any], name: str, over: threading.Event) -> None:
        """Says of a node that is waited for that it ends again and again, with its last words: whoever waits need not wait in vain."""
        told = _PATIENT_STARTS
        while not over.wait(_LOOK_S):
            with suppress(EnvctlError, OSError):
                reach = self._reach(wanted)
                node = reach.node(name)
                if node.starts > told and node.exit_status is not None:
                    told = node.starts
                    last = next(iter(reach.log(name, tail=1)), "")
                    self._progress(f"{name} ends again and again (exit {node.exit_status}, {node.starts} starts): {last}")

    def _provision(self, wanted: Mapping[str, Any]) -> Mapping[str, Any]:
        reach, notebook = self._reach(wanted), self._notebook(wanted)
        for path in json.loads(wanted["files"]):
            reach.show(Path(path))
        argv = (*reach.own, *json.loads(wanted["arguments"]))
        with tempfile.TemporaryFile() as output:
            process = reach.popen(None, argv, env=json.loads(wanted["env"]), stdout=output, stderr=output)
            status = _ended(process, wanted["ready_timeout_s"])
            output.seek(0)
            said = output.read().decode(errors="replace")
        notebook.write(f"{_mark(wanted)}.log", said[-_KEPT:])
        if status is None:
            raise DeadlineError(f"{wanted['component']} was not provisioned after {wanted['ready_timeout_s']:g} s\n{indented(said)}")
        if status:
            raise ResourceError(f"{wanted['component']} could not be provisioned (exit {status})\n{indented(said)}")
        notebook.write(_mark(wanted), wanted["digest"])
        self.tally.provisioned.append(wanted["component"])
        self._progress(f"{wanted['component']} provisioned")
        return wanted

    def _remove(self, type_: str, state: Mapping[str, Any]) -> None:
        if type_ == PROVISION:
            return
        if kind := _part(type_):
            self._parts(state).remove_part(kind, state["name"])
            return
        if type_ == ENVIRONMENT:
            self._realiser(state).end_environment()
            return
        with suppress(NoEnvironmentError):
            self._notebook(state).write(_mark(state), None)
        self._realiser(state).stop_node(state["name"])
        self.tally.ended.append(state["name"])
        self._progress(f"{state['name']} removed")

    def _directory(self, properties: Mapping[str, Any]) -> Path:
        return self._substrates(properties["substrate"]).directory(properties["environment"])

    def _notebook(self, properties: Mapping[str, Any]) -> Notebook:
        return self._substrates(properties["substrate"]).notebook(self._directory(properties))

    def _reach(self, properties: Mapping[str, Any]) -> Reach:
        return self._substrates(properties["substrate"]).attach(self._directory(properties))

    def _realiser(self, properties: Mapping[str, Any]) -> Realiser:
        return self._substrates(properties["substrate"]).realiser(self._directory(properties))

    def _parts(self, properties: Mapping[str, Any]) -> MakesParts:
        return cast("MakesParts", self._realiser(properties))

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


def _ended(process: Process, timeout_s: float) -> int | None:
    """The exit status; None, and the process killed, where it takes longer."""
    try:
        return process.wait(timeout_s)
    except DeadlineError:
        process.signal(signal.SIGKILL)
        return None


def _mark(properties: Mapping[str, Any]) -> str:
    """The name of the note that holds the digest of the provision that a component last had."""
    return f"{properties['component']}.provision"


def _part(type_: str) -> str:
    """The kind of a part that a substrate has declared; empty for what all substrates have."""
    _, module, kind = type_.split(":")
    return "" if module == "index" else kind.lower()


def _identity(type_: str) -> tuple[str, ...]:
    own = {ENVIRONMENT: ("ttl_s", "labels"), NODE: ("name", "digest"), PROVISION: ("digest",)}.get(type_, ("name", "node"))
    return ("environment", "substrate", *own)


def _replaces(changed: list[str]) -> list[str]:
    return [name for name in changed if name in ("environment", "substrate", "name")]


def _plain(properties: Properties) -> dict[str, Any]:
    return {name: value.value for name, value in properties.items()}


def _properties(values: Mapping[str, Any]) -> dict[str, PropertyValue]:
    return {name: PropertyValue(value) for name, value in values.items()}
