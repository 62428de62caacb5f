"""What keeps environments from running in a cluster, found within seconds."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from envctl.errors import EnvctlError
from envctl.substrates.kubernetes import chaos_mesh
from envctl.substrates.kubernetes.api import Api, api, context
from envctl.toolchain.lookup import pulumi_home

_SET = "KUBECONFIG and ENVCTL_KUBERNETES_CONTEXT say which cluster is meant"
_NEEDED = (("", "namespaces", "create"), ("rbac.authorization.k8s.io", "clusterroles", "create"), ("", "pods/portforward", "create"))


def problems() -> tuple[tuple[str, str], ...]:
    """(what is missing, what to do) pairs."""
    if not (name := context()):
        return (("there is no Kubernetes cluster: no kubeconfig with a current context", _SET),)
    try:
        cluster = api(name)
        cluster.ask("GET", "/version")
        return (*_plug_in(), *_rights(cluster, name), *chaos_mesh.lacks(cluster))
    except EnvctlError as error:
        return ((error.message, error.hint or _SET),)


def _rights(cluster: Api, name: str) -> tuple[tuple[str, str], ...]:
    lacks = []
    for group, resource, verb in _NEEDED:
        base, _, sub = resource.partition("/")
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {
            "resourceAttributes": {"group": group, "resource": base, "verb": verb, **({"subresource": sub} if sub else {})},
        }}
        if not cluster.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)["status"].get("allowed"):
            lacks.append((f"in {name} you may not {verb} {resource}", "docs/kubernetes.md lists the rights that are needed"))
    return tuple(lacks)


def _plug_in() -> tuple[tuple[str, str], ...]:
    """Pulumi's plug-in for Kubernetes: installed, on PATH, or attached."""
    home = Path(os.environ.get("PULUMI_HOME") or pulumi_home())
    there = (
        shutil.which("pulumi-resource-kubernetes") or list(home.glob("plugins/resource-kubernetes-v*/pulumi-resource-kubernetes*"))
        or "kubernetes:" in os.environ.get("PULUMI_DEBUG_PROVIDERS", "")
    )
    version = _sdk_version()
    hint = f"`PULUMI_HOME={home} pulumi plugin install resource kubernetes {version}`"
    return () if there else (("Pulumi's plug-in for Kubernetes is not installed", hint),)


def _sdk_version() -> str:
    from importlib.metadata import version

    return version("pulumi-kubernetes")
