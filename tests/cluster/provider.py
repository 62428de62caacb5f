# ruff: noqa: N802, ARG002 - methods have the names and arguments of the protocol
"""A stand-in for Pulumi's plug-in for Kubernetes, which can't be had where the tests run: `python -m cluster.provider` as an engine starts it.

It gives the API server exactly what the SDK of the plug-in's release 4.34 sends, by server-side apply, waits as the plug-in waits
(`awaiting.py`), and sees the same differences (`differences.py`).  It knows neither Helm, previews, nor Patch resources.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent import futures
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc
from cluster.api import Api, Object, RefusedError
from cluster.awaiting import NotReadyError, Wait
from cluster.differences import UNKNOWN, changed, plain, prune, replacing
from google.protobuf import any_pb2, empty_pb2, json_format, struct_pb2
from pulumi.runtime._grpc_settings import _GRPC_CHANNEL_OPTIONS
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

VERSION = "4.34.2"
WORKERS = 128  # every resource that is waited for has one
_RETRIES_S = (1, 2, 4, 8, 16)
_SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270"}
"""What marks a secret among properties."""


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends that fails: with details, if the object exists nevertheless."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...] = ()


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """The package `kubernetes`, one cluster."""

    def __init__(self) -> None:
        self._options: dict[str, str] = {}
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._opened: Api | None = None

    def Handshake(self, request: Any, context: Any) -> Any:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=False)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version=VERSION)

    def GetSchema(self, request: Any, context: Any) -> Any:
        return provider_pb2.GetSchemaResponse(schema=f'{{"name": "kubernetes", "version": "{VERSION}"}}')

    def CheckConfig(self, request: Any, context: Any) -> Any:
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:
        """Another cluster replaces everything; which cluster it is, an identifier says before its address does."""
        old, new = _read(request.olds), _read(request.news)
        diffs = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
        replaces = [name for name in diffs if name in ("clusterIdentifier", "kubeconfig", "context", "cluster", "renderYamlToDirectory")]
        if "clusterIdentifier" in new and old.get("clusterIdentifier") == new["clusterIdentifier"]:
            replaces = []
        return _difference(diffs, replaces)

    def Configure(self, request: Any, context: Any) -> Any:
        self._options = {name: str(value) for name, value in _read(request.args).items() if value != UNKNOWN}
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=False)

    def Attach(self, request: Any, context: Any) -> Any:
        return empty_pb2.Empty()

    def Cancel(self, request: Any, context: Any) -> Any:
        self._cancelled.set()
        return empty_pb2.Empty()

    def Check(self, request: Any, context: Any) -> Any:
        """Gives a name to what has none, and the namespace that objects have by default."""
        old, new = _read(request.olds), _read(request.news)
        metadata = new.setdefault("metadata", {})
        if not metadata.get("name"):
            before = old.get("metadata", {})
            own = f"{request.urn.rpartition('::')[2]}-{request.randomSeed.hex()[:8]}"
            metadata["name"] = before["name"] if _is_autonamed(before) else own
            metadata["annotations"] = {**metadata.get("annotations", {}), "pulumi.com/autonamed": "true"}
        try:
            if not metadata.get("namespace") and self._api.kind(new["apiVersion"], new["kind"])[1]:
                metadata["namespace"] = self._api.namespace
        except RefusedError as error:
            if error.status not in (0, 404):
                _abort(context, str(error))
        return provider_pb2.CheckResponse(inputs=_written(new))

    def Diff(self, request: Any, context: Any) -> Any:
        state, new = _read(request.olds), _read(request.news)
        before = state.pop("__inputs", {})
        paths = changed(state, before, new)
        replaces = replacing(paths, new, secrets_change=self._is_on("enableSecretMutable"), maps_change=self._is_on("enableConfigMapMutable"))
        places = [{name: each["metadata"].get(name) for name in ("name", "namespace")} for each in (state, new)]
        same_place = not _is_autonamed(new["metadata"]) and places[0] == places[1]
        return _difference(sorted({path.partition(".")[0] for path in paths}), replaces, delete_first=bool(replaces) and same_place)

    def Create(self, request: Any, context: Any) -> Any:
        inputs = _read(request.properties)
        manager = f"pulumi-kubernetes-{hashlib.sha256(request.urn.encode()).hexdigest()[:8]}"
        if self._is_on("upsertExistingObjects"):
            make = partial(self._api.apply, inputs, manager, force=self._is_forced(inputs))
        else:
            make = partial(self._api.create, inputs, "pulumi-kubernetes")
        try:
            live = self._retried(make)
        except RefusedError as error:
            _abort(context, f'resource "{request.urn}" was not successfully created by the Kubernetes API server: {_explained(error, manager)}')
        live = self._ready(request, context, inputs, live, manager, update=False)
        return provider_pb2.CreateResponse(id=_id(live), properties=_checkpoint(live, inputs, manager))

    def Update(self, request: Any, context: Any) -> Any:
        inputs, state = _read(request.news), _read(request.olds)
        manager = state["__fieldManager"]
        try:
            self._api.get(state)
            live = self._api.apply(inputs, manager, force=self._is_forced(inputs))
        except RefusedError as error:
            _abort(context, f'resource "{request.urn}" was not successfully updated by the Kubernetes API server: {_explained(error, manager)}')
        live = self._ready(request, context, inputs, live, manager, update=True)
        return provider_pb2.UpdateResponse(properties=_checkpoint(live, inputs, manager))

    def Read(self, request: Any, context: Any) -> Any:
        state, inputs = _read(request.properties), _read(request.inputs)
        kind = request.urn.split("::")[2].rpartition("$")[2].removeprefix("kubernetes:")
        version, _, name = kind.partition(":")
        space, _, own = request.id.rpartition("/")
        asked = {"apiVersion": version.removeprefix("core/"), "kind": name, "metadata": {"name": own, "namespace": space}}
        try:
            live = self._api.get(asked)
        except RefusedError as error:
            if error.status == 404:
                return provider_pb2.ReadResponse()
            _abort(context, str(error))
        inputs = prune(live, inputs) if inputs else {name: value for name, value in live.items() if name != "status"}
        manager = state.get("__fieldManager", "pulumi-kubernetes")
        return provider_pb2.ReadResponse(id=request.id, properties=_checkpoint(live, inputs, manager), inputs=_written(inputs))

    def Delete(self, request: Any, context: Any) -> Any:
        state = _read(request.properties)
        inputs = state.pop("__inputs", {})
        policy = inputs.get("metadata", {}).get("annotations", {}).get("pulumi.com/deletionPropagationPolicy", "foreground")
        try:
            self._api.delete(state, policy.capitalize())
            Wait(self._api, inputs, update=True, cancelled=self._cancelled).until_gone(state, request.timeout)
        except RefusedError as error:
            if error.status != 404:
                _abort(context, str(error))
        except NotReadyError as error:
            _abort(context, "; ".join([str(error), *error.reasons]))
        return empty_pb2.Empty()

    @property
    def _api(self) -> Api:
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = Api(*(self._options.get(name, "") for name in ("kubeconfig", "context", "namespace")))
                except Exception as error:
                    raise RefusedError(0, "Unreachable", f"configured Kubernetes cluster is unreachable: unable to load the kubeconfig: {error}") from error
            return self._opened

    def _is_on(self, option: str) -> bool:
        return self._options.get(option, "").lower() == "true"

    def _is_forced(self, inputs: Object) -> bool:
        return self._is_on("enablePatchForce") or inputs["metadata"].get("annotations", {}).get("pulumi.com/patchForce") == "true"

    def _retried(self, make: Callable[[], Object]) -> Object:
        """What an object needs, its namespace for one, may come a little later than itself."""
        for pause_s in _RETRIES_S:
            try:
                return make()
            except RefusedError as error:
                if error.status != 404 or self._cancelled.wait(pause_s):
                    raise
        return make()

    def _ready(self, request: Any, context: Any, inputs: Object, live: Object, manager: str, *, update: bool) -> Object:
        done = "updated" if update else "created"
        try:
            return Wait(self._api, inputs, update=update, cancelled=self._cancelled).until_ready(live, request.timeout)
        except (NotReadyError, RefusedError) as error:
            reasons = [str(error), *getattr(error, "reasons", [])]
            live = getattr(error, "live", live)
            said = f'resource "{request.urn}" was successfully {done}, but the Kubernetes API server reported that it failed to fully initialize or become live: {error}'
            detail = provider_pb2.ErrorResourceInitFailed(id=_id(live), properties=_checkpoint(live, inputs, manager), reasons=reasons)
            _abort(context, said, detail)


def _abort(context: Any, message: str, detail: Any = None) -> NoReturn:
    metadata: tuple[tuple[str, bytes], ...] = ()
    if detail is not None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        whole = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=message, details=[packed])
        metadata = (("grpc-status-details-bin", whole.SerializeToString()),)
    context.abort_with_status(Status(grpc.StatusCode.UNKNOWN, message, metadata))
    raise AssertionError


def _explained(error: RefusedError, manager: str) -> str:
    if error.reason == "AlreadyExists":
        return f"{error}\n\nThe resource already exists in the cluster; set upsertExistingObjects on the provider to update existing objects on create."
    if error.reason == "Conflict":
        return f'Server-side apply field conflict detected.\nThe resource managed by field manager "{manager}" had an apply conflict: {error}'
    return str(error)


def _difference(diffs: list[str], replaces: list[str], *, delete_first: bool = False) -> Any:
    some = provider_pb2.DiffResponse.DIFF_SOME if diffs else provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(changes=some, diffs=diffs, replaces=replaces, deleteBeforeReplace=delete_first)


def _checkpoint(live: Object, inputs: Object, manager: str) -> Any:
    """What the state keeps of an object."""
    if live["kind"] == "Secret":
        inputs = {name: {**_SECRET, "value": each} if name in ("data", "stringData") else each for name, each in inputs.items()}
    return _written({**live, "__inputs": inputs, "__initialApiVersion": live["apiVersion"], "__fieldManager": manager})


def _id(live: Object) -> str:
    space = live["metadata"].get("namespace")
    return f"{space}/{live['metadata']['name']}" if space else str(live["metadata"]["name"])


def _is_autonamed(metadata: Object) -> bool:
    return bool(metadata.get("annotations", {}).get("pulumi.com/autonamed") == "true")


def _read(properties: struct_pb2.Struct) -> Object:
    return dict(plain(json_format.MessageToDict(properties)))


def _written(value: Object) -> struct_pb2.Struct:
    written = struct_pb2.Struct()
    written.update(value)
    return written


def serve(provider: Provider) -> tuple[grpc.Server, int]:
    """Starts its server on the loopback; returns it and its port."""
    server = grpc.server(futures.ThreadPoolExecutor(WORKERS), options=_GRPC_CHANNEL_OPTIONS)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main() -> None:
    """Prints the port, and serves until the engine ends it, or has ended without doing so."""
    engine = os.getppid()
    _, port = serve(Provider())
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while os.getppid() == engine:
        time.sleep(0.5)


if __name__ == "__main__":
    main()
