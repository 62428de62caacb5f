"""Objects of a Kubernetes API server, by what is written in them: for the stand-in of Pulumi's plug-in, which knows no kinds beforehand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import yaml

Object = dict[str, Any]
ATTEMPT_S = 30.0


class RefusedError(Exception):
    """What the API server said instead of doing it: an HTTP status (0: it was not reached), and its words."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


class Api:
    """A cluster as a kubeconfig describes it: its text, or the path of a file; without either, the one that KUBECONFIG names."""

    def __init__(self, kubeconfig: str = "", context: str = "", namespace: str = "") -> None:
        from kubernetes import config

        if kubeconfig and not Path(kubeconfig).is_file():
            whole = yaml.safe_load(kubeconfig)
            self._client = config.new_client_from_config_dict(whole, context or None)  # type: ignore[no-untyped-call]
            chosen = _context(whole, context)
        else:
            self._client = config.new_client_from_config(kubeconfig or None, context or None)  # type: ignore[no-untyped-call]
            contexts, active = config.list_kube_config_contexts(kubeconfig or None)  # type: ignore[no-untyped-call]
            chosen = next((one["context"] for one in contexts if one["name"] == context), active["context"])
        self.namespace: str = namespace or chosen.get("namespace") or "default"
        self._kinds: dict[tuple[str, str], tuple[str, bool]] = {}

    def kind(self, version: str, kind: str) -> tuple[str, bool]:
        """How its objects are called in paths, and whether they are in namespaces.  Raises RefusedError for one that is not served."""
        if (version, kind) not in self._kinds:
            listed = self.call("GET", _root(version))["resources"]
            self._kinds |= {(version, one["kind"]): (one["name"], one["namespaced"]) for one in listed if "/" not in one["name"]}
        if (version, kind) not in self._kinds:
            raise RefusedError(404, "NoMatch", f'no matches for kind "{kind}" in version "{version}"')
        return self._kinds[version, kind]

    def get(self, one: Object) -> Object:
        """The living object of that name."""
        return self.call("GET", self._path(one))

    def create(self, one: Object, manager: str) -> Object:
        """Makes it; one that exists is refused."""
        return self.call("POST", self._path(one, whole=True), one, fieldManager=manager)

    def apply(self, one: Object, manager: str, *, force: bool) -> Object:
        """Applies exactly these fields, as the server does it for a field manager."""
        return self.call("PATCH", self._path(one), one, kind="apply-patch+yaml", fieldManager=manager, force=str(force).lower())

    def delete(self, one: Object, propagation: str) -> Object:
        """Asks for its deletion."""
        return self.call("DELETE", self._path(one), {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation})

    def list(self, version: str, kind: str, namespace: str, labels: str) -> list[Object]:
        """The objects of a kind in a namespace that bear labels."""
        where = self._path({"apiVersion": version, "kind": kind, "metadata": {"name": "", "namespace": namespace}}, whole=True)
        return list(self.call("GET", where, labelSelector=labels).get("items", []))

    def call(self, method: str, path: str, body: Object | None = None, *, kind: str = "json", **query: str) -> Object:
        """One request.  Raises RefusedError with the server's own words."""
        import urllib3

        url = f"{self._client.configuration.host}{path}{'?' if query else ''}{urlencode(query)}"
        headers = {"Accept": "application/json", "Content-Type": f"application/{kind}"}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        sent = body if kind == "json" else json.dumps(body)
        try:
            answer = self._client.rest_client.request(method, url, headers=headers, body=sent, _request_timeout=ATTEMPT_S)
            said = json.loads(answer.read() or b"{}")
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise RefusedError(0, "Unreachable", f"configured Kubernetes cluster is unreachable: {error}") from error
        if answer.status >= 400:
            raise RefusedError(answer.status, said.get("reason", ""), said.get("message", answer.reason))
        return dict(said)

    def _path(self, one: Object, *, whole: bool = False) -> str:
        plural, namespaced = self.kind(one["apiVersion"], one["kind"])
        space = f"/namespaces/{quote(one['metadata'].get('namespace') or self.namespace)}" if namespaced else ""
        return f"{_root(one['apiVersion'])}{space}/{plural}" + ("" if whole else f"/{quote(one['metadata']['name'], safe='')}")


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _context(whole: Object, name: str) -> Object:
    wanted = name or whole["current-context"]
    return next((dict(one["context"]) for one in whole["contexts"] if one["name"] == wanted), {})
