"""The API of a cluster: objects as plain data, and errors that say which object and why."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from envctl.errors import CapabilityError, EnvctlError, ResourceError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Object = dict[str, Any]
MANAGER = "envctl"  # the field manager of what is applied here
CONTEXT = "ENVCTL_KUBERNETES_CONTEXT"  # which cluster; the current context of the kubeconfig where it is not set
_CONNECT_S, _ANSWER_S = 3.0, 30.0
_WATCH_S = 240  # after which the API ends a watch; one that is silent for longer is dead
_SILENT_S = 300.0  # after which a log that says nothing is asked for anew: nobody tells of a stream that was lost on the way
_HINT = "`kubectl cluster-info` shows whether it answers; KUBECONFIG and ENVCTL_KUBERNETES_CONTEXT say which cluster is meant"
_NOT_RIGHTS = ("exceeded quota", "being terminated")  # also answered by 403
_PLACES: Mapping[str, tuple[str, str]] = {  # kind → root of its API, plural
    **{kind: ("/api/v1", f"{kind.lower()}s") for kind in (
        "Namespace", "Secret", "ConfigMap", "Service", "ServiceAccount", "LimitRange", "ResourceQuota", "Pod", "Node", "Event",
        "PersistentVolumeClaim", "PersistentVolume",
    )},
    **{kind: ("/apis/apps/v1", f"{kind.lower()}s") for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")},
    "Job": ("/apis/batch/v1", "jobs"),
    "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    **{kind: ("/apis/chaos-mesh.org/v1alpha1", kind.lower()) for kind in ("NetworkChaos", "PodChaos")},
    "StorageClass": ("/apis/storage.k8s.io/v1", "storageclasses"),
    **{kind: ("/apis/rbac.authorization.k8s.io/v1", f"{kind.lower()}s") for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")},
}


class MissingError(ResourceError):
    """There is no such object."""


class ChangedError(ResourceError):
    """Somebody has changed the object meanwhile."""


def path_of(kind: str, name: str = "", namespace: str = "") -> str:
    """The path of an object, or of all of a kind."""
    root, plural = _PLACES[kind]
    return f"{root}{f'/namespaces/{namespace}' if namespace else ''}/{plural}{f'/{name}' if name else ''}"


def path_for(thing: Mapping[str, Any]) -> str:
    """The path of an object that is described."""
    metadata = thing["metadata"]
    return path_of(thing["kind"], metadata["name"], metadata.get("namespace", ""))


class Api:
    """One cluster, as one user."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @property
    def port(self) -> int | None:
        """The port at which it is reached from here."""
        return urlsplit(str(self._client.configuration.host)).port

    def ask(
        self, method: str, path: str, body: Any = None, *, query: Sequence[tuple[str, str]] = (), form: str = "application/json",
        timeout_s: float | None = _ANSWER_S,
    ) -> Any:
        """One request.  Raises MissingError, ResourceError with what the API says, CapabilityError where it does not answer or forbids."""
        with self.opened(method, path, body, query=query, form=form, timeout_s=timeout_s) as answer:
            return json.loads(answer.data)

    @contextmanager
    def opened(
        self, method: str, path: str, body: Any = None, *, query: Sequence[tuple[str, str]] = (), form: str = "application/json",
        timeout_s: float | None = _ANSWER_S,
    ) -> Iterator[Any]:
        """A request whose answer is read by the caller, as it comes."""
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", "Content-Type": form}
        try:
            made = self._client.param_serialize(method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"])
            answer = self._client.call_api(*made, _request_timeout=(_CONNECT_S, timeout_s)).response
            try:
                if answer.status >= 400:
                    raise _refusal(method, path, answer.status, answer.data)
                yield answer
            finally:
                answer.release_conn() if timeout_s == _ANSWER_S else answer.close()
        except HTTPError as error:  # also in the middle of an answer
            raise unreachable(self._client.configuration.host, error) from error

    def get(self, kind: str, name: str, namespace: str = "") -> Object:
        """One object.  Raises MissingError."""
        found: Object = self.ask("GET", path_of(kind, name, namespace))
        return found

    def find(self, kind: str, namespace: str = "", labels: str = "", *, most: int = 0) -> list[Object]:
        """All of a kind, in one namespace or in all, that bear labels; no more than `most` where it is given."""
        query = [(name, value) for name, value in (("labelSelector", labels), ("limit", str(most or ""))) if value]
        found: list[Object] = self.ask("GET", path_of(kind, "", namespace), query=query)["items"]
        return found

    def apply(self, thing: Object, *, only_try: bool = False) -> Object:
        """Makes an object as it is described, or changes what is there: server-side apply, with our word over others'."""
        query = [("fieldManager", MANAGER), ("force", "true"), *([("dryRun", "All")] if only_try else [])]
        made: Object = self.ask("PATCH", path_for(thing), thing, query=query, form="application/apply-patch+yaml")
        return made

    def merge(self, path: str, change: Object) -> None:
        """Changes some fields of an object."""
        self.ask("PATCH", path, change, query=[("fieldManager", MANAGER)], form="application/merge-patch+json")

    def delete(self, kind: str, name: str, namespace: str = "", *, grace_s: int | None = None) -> None:
        """Begins the end of an object; what it owns follows.  One that is not there is fine."""
        options: Object = {"propagationPolicy": "Background"} | ({} if grace_s is None else {"gracePeriodSeconds": grace_s})
        try:
            self.ask("DELETE", path_of(kind, name, namespace), options)
        except MissingError:
            return

    def delete_unchanged(self, kind: str, thing: Object) -> bool:
        """Begins the end of an object unless somebody has changed it since it was looked at; whether it has begun.  What it owns follows."""
        told = thing["metadata"]
        unchanged = {"propagationPolicy": "Background", "preconditions": {name: told[name] for name in ("uid", "resourceVersion")}}
        with suppress(ChangedError, MissingError):
            self.ask("DELETE", path_of(kind, told["name"], told.get("namespace", "")), unchanged)
            return True
        return False

    def watch(self, kind: str, namespace: str, labels: str) -> Iterator[Object]:
        """Pods and others as they are, and each time one changes: events `{type, object}`; ends when the API ends it."""
        listed = self.ask("GET", path_of(kind, "", namespace), query=[("labelSelector", labels)])
        yield {"type": "LISTED", "items": listed["items"]}
        query = [("watch", "1"), ("labelSelector", labels), ("resourceVersion", listed["metadata"]["resourceVersion"]),
                 ("timeoutSeconds", str(_WATCH_S))]
        with self.opened("GET", path_of(kind, "", namespace), query=query, timeout_s=_WATCH_S + _ANSWER_S) as answer:
            for line in _lines(answer):
                event = json.loads(line)
                if event["type"] == "ERROR":  # what is known is too old to go on from (410): whoever watches lists again
                    return
                yield event

    def log(self, pod: str, namespace: str, container: str, *, since: str | None = None, previous: bool = False) -> Iterator[bytes]:
        """What a container has written and writes, each line with its time, until it ends, or the stream does.

        `since`: a time (RFC 3339, whole seconds).  `previous`: the life before the present one.
        """
        query = [("container", container), ("follow", "true"), ("timestamps", "true")]
        query += [*([("sinceTime", since)] if since else []), *([("previous", "true")] if previous else [])]
        with self.opened("GET", f"{path_of('Pod', pod, namespace)}/log", query=query, timeout_s=_SILENT_S) as answer:
            while data := answer.read1(1 << 16):
                yield data

    def words(self, pod: str, namespace: str, container: str, *, lines: int, of_last: bool = False) -> list[str]:
        """The last lines that a container has written in its present life, or in the one before; none where nobody knows them."""
        query = [("container", container), ("tailLines", str(lines)), *([("previous", "true")] if of_last else [])]
        try:
            with self.opened("GET", f"{path_of('Pod', pod, namespace)}/log", query=query) as answer:
                return str(answer.data.decode(errors="replace")).splitlines()
        except EnvctlError:
            return []

    def dial(self, pod: str, namespace: str, port: int) -> socket.socket:
        """A connection to a port of a pod, through the API.  Raises ConnectionRefusedError."""
        from kubernetes.stream.ws_client import create_websocket, get_websocket_url
        from websocket import WebSocketException

        path = f"{path_of('Pod', pod, namespace)}/portforward"
        _, url, headers, *_ = self._client.param_serialize(
            "GET", path, query_params=[("ports", str(port))], header_params={}, auth_settings=["BearerToken"],
        )
        try:
            opened = create_websocket(self._client.configuration, get_websocket_url(url), headers)  # type: ignore[no-untyped-call]
        except (WebSocketException, OSError) as error:
            raise ConnectionRefusedError(f"{pod} can't be reached: {error}") from error
        return _carried(opened, port)


def _carried(websocket: Any, port: int) -> socket.socket:
    """What comes and goes by a websocket of the API's; each ends with the other, however that ends."""
    from kubernetes.stream.ws_client import PortForward
    from websocket import WebSocketException

    class Forward(PortForward):
        def _proxy(self) -> None:
            try:
                with suppress(OSError, WebSocketException, ValueError, RuntimeError):  # lost, or no sense in it: the library's thread would end with a traceback
                    super()._proxy()  # type: ignore[no-untyped-call]
            finally:
                self.local_ports[port].python.close()
                with suppress(OSError):
                    websocket.shutdown()

    connected: socket.socket = Forward(websocket, [port]).socket(port)._socket  # type: ignore[no-untyped-call]  # noqa: SLF001 - the wrapper lacks what descriptors need
    return connected


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    while data := answer.read1(1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _refusal(method: str, path: str, status: int, said: bytes) -> EnvctlError:
    """What the API says, as our error."""
    try:
        message = str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{method} {path}: {status} {said[:200].decode(errors='replace')}"
    if status == 404:
        return MissingError(message)
    if status == 409:
        return ChangedError(message)
    if status in (401, 403) and not any(words in message for words in _NOT_RIGHTS):
        return CapabilityError(f"the cluster forbids it: {message}", hint="`kubectl auth can-i --list` shows what you may do")
    return ResourceError(f"the cluster refuses: {message}")


def unreachable(host: str, error: Exception) -> CapabilityError:
    """For an API that does not answer."""
    cause = str(getattr(error, "reason", None) or error).rpartition(">: ")[2]
    return CapabilityError(f"the cluster at {host} does not answer: {cause}", hint=_HINT)


def context() -> str:
    """The context that is meant when a new environment is made; empty where there is no kubeconfig.  Raises CapabilityError."""
    from kubernetes.config import ConfigException, list_kube_config_contexts

    if given := os.environ.get(CONTEXT):
        return given
    try:
        return str(list_kube_config_contexts(os.environ.get("KUBECONFIG"))[1]["name"])  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, KeyError, TypeError):
        return ""


def contexts() -> frozenset[str] | None:
    """Those of the kubeconfig; None where it can't be read."""
    from kubernetes.config import ConfigException, list_kube_config_contexts

    try:
        return frozenset(str(each["name"]) for each in list_kube_config_contexts(os.environ.get("KUBECONFIG"))[0])  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, KeyError, TypeError):
        return None


@cache
def api(name: str) -> Api:
    """The cluster of a context; empty: the one in which this process runs.  Raises CapabilityError."""
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    settings = Configuration()
    settings.retries = False
    try:
        if name:
            load_kube_config(os.environ.get("KUBECONFIG"), context=name, client_configuration=settings)  # type: ignore[no-untyped-call]
        else:
            load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError) as error:
        raise CapabilityError(f"there is no cluster {name or 'here'}: {error}", hint=_HINT) from error
    settings.connection_pool_maxsize = 32
    settings.keep_alive = True  # a connection whose other end has gone silently is noticed
    return Api(ApiClient(settings))
