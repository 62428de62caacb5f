"""The stand-in of Pulumi's plug-in for Kubernetes under the real engine, with what the real SDK sends, on a real cluster."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pulumi
import pytest
from cluster import build
from cluster.cluster import Cluster
from cluster.differences import changed, plain, replacing
from cluster.plugin import Plugin

from envctl.errors import ResourceError
from envctl.stack import engine
from envctl.stack.state import State
from envctl.stack_provider.provider import EnvctlProvider
from envctl.toolchain import lookup

FAST = {"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}


@dataclass
class Stack:
    """A stack of Pulumi whose program is a function of the namespace and of options of the provider."""

    root: Path
    namespace: str

    @property
    def state(self) -> State:
        return State(self.root / "state", "things", self.namespace)

    def up(self, program: Callable[..., None], **options: Any) -> None:
        from pulumi_kubernetes import Provider

        def whole() -> None:
            wanted = {"upsert_existing_objects": True, "enable_patch_force": True, **options}
            given = pulumi.ResourceOptions(provider=Provider("cluster", cluster_identifier="test", **wanted))
            program(self.namespace, given)

        engine.update(self._pulumi, self.state, EnvctlProvider(), whole, cwd=self.root, cache=self.root / "cache")

    def down(self) -> None:
        engine.destroy(self._pulumi, self.state, EnvctlProvider(), cwd=self.root, cache=self.root / "cache")

    def outputs(self, name: str) -> Any:
        return next(each["outputs"] for each in self.state.resources() if each["urn"].endswith(name))

    @property
    def _pulumi(self) -> Path:
        return lookup.find("pulumi").programs["pulumi"]


@pytest.fixture
def stack(cluster: Cluster, kubernetes_plugin: Plugin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    for name, value in kubernetes_plugin.environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "Pulumi.yaml").write_text("name: things\nruntime: python\n")
    one = Stack(tmp_path, f"p-{uuid.uuid4().hex[:8]}")
    yield one
    cluster.kubectl("delete", "namespace", one.namespace, "--wait=false", "--ignore-not-found")


def template(name: str, *command: str, **container: Any) -> dict[str, Any]:
    main = {"name": "main", "image": build.BUSYBOX, "command": list(command or ("sleep", "3600")), **container}
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [main], "terminationGracePeriodSeconds": 1}}


def space(name: str, options: pulumi.ResourceOptions) -> pulumi.ResourceOptions:
    """The namespace; what is in it depends on it."""
    from pulumi_kubernetes.core.v1 import Namespace

    made = Namespace("namespace", metadata={"name": name, "labels": {"of": "test"}}, opts=options)
    return pulumi.ResourceOptions.merge(options, pulumi.ResourceOptions(depends_on=[made], deleted_with=made))


def everything(namespace: str, options: pulumi.ResourceOptions, *, answer: str = "42", selector: str = "web", image: str = build.BUSYBOX) -> None:
    from pulumi_kubernetes.apps.v1 import Deployment, StatefulSet
    from pulumi_kubernetes.batch.v1 import Job
    from pulumi_kubernetes.core.v1 import ConfigMap, Secret, Service
    from pulumi_kubernetes.networking.v1 import NetworkPolicy

    inside = space(namespace, options)
    called = partial(dict, namespace=namespace)
    resources = {"requests": {"cpu": "0.010", "memory": "8388608"}, "limits": {"cpu": "1000m", "memory": "65536Ki"}}
    ConfigMap("settings", metadata=called(name="settings"), data={"answer": answer}, opts=inside)
    Secret("secret", metadata=called(name="secret"), string_data={"word": pulumi.Output.secret("hush")}, opts=inside)
    Service("web", metadata=called(name="web"), spec={"selector": {"app": "web"}, "cluster_ip": "None", "ports": [{"port": 80}]}, opts=inside)
    env = [{"name": "ANSWER", "value": answer}, {"name": "NOTHING", "value": ""}]
    pods = template(selector, resources=resources, env=env, image=image, **FAST)
    Deployment("web", metadata=called(name="web"), spec={"selector": {"match_labels": {"app": selector}}, "template": pods}, opts=inside)
    claim = {"metadata": {"name": "data"}, "spec": {"access_modes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}}
    kept = template("db", volume_mounts=[{"name": "data", "mountPath": "/data"}], **FAST)
    wanted = {"service_name": "db", "selector": {"match_labels": {"app": "db"}}, "template": kept, "volume_claim_templates": [claim]}
    StatefulSet("db", metadata=called(name="db"), spec=wanted, opts=inside)
    once = template("once", "true")
    once["spec"]["restartPolicy"] = "Never"
    Job("once", metadata=called(name="once"), spec={"template": once}, opts=inside)
    NetworkPolicy("deny", metadata=called(name="deny"), spec={"pod_selector": {}, "policy_types": ["Ingress"]}, opts=inside)


def deployed(namespace: str, options: pulumi.ResourceOptions, *, annotations: dict[str, str], **container: Any) -> None:
    from pulumi_kubernetes.apps.v1 import Deployment

    metadata = {"name": "web", "namespace": namespace, "annotations": annotations}
    spec = {"selector": {"match_labels": {"app": "web"}}, "template": template("web", **container)}
    Deployment("web", metadata=metadata, spec=spec, opts=space(namespace, options))


def mapped(namespace: str, options: pulumi.ResourceOptions, *, answer: str = "42") -> None:
    from pulumi_kubernetes.core.v1 import ConfigMap

    ConfigMap("settings", metadata={"name": "settings", "namespace": namespace}, data={"answer": answer}, opts=options)


@pytest.mark.kubernetes
def test_all_kinds_come_up_change_in_place_are_replaced_and_go(cluster, stack):
    def seen(kind: str, name: str) -> Any:
        return cluster.get(kind, name, "-n", stack.namespace)

    mutable = {"enable_config_map_mutable": True}
    stack.up(everything, **mutable)
    web, settings, once = seen("deployment", "web"), seen("configmap", "settings"), seen("job", "once")
    assert (web["status"]["readyReplicas"], once["status"]["succeeded"], seen("statefulset", "db")["status"]["readyReplicas"]) == (1, 1, 1)
    assert seen("secret", "secret")["data"] == {"word": "aHVzaA=="}
    assert "hush" not in stack.state.checkpoint.read_text()
    assert '"manager": "pulumi-kubernetes-' in cluster.kubectl("get", "deployment", "web", "-n", stack.namespace, "-o", "json", "--show-managed-fields")
    assert stack.outputs("apps/v1:Deployment::web")["status"]["availableReplicas"] == 1

    stack.up(everything, **mutable)
    kinds = "deployments,statefulsets,jobs,configmaps,secrets,services,networkpolicies"
    versions = {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in cluster.get(kinds, "-n", stack.namespace)["items"]}
    stack.up(everything, **mutable)
    assert {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in cluster.get(kinds, "-n", stack.namespace)["items"]} == versions

    stack.up(partial(everything, answer="43"), **mutable)
    assert seen("configmap", "settings")["metadata"]["uid"] == settings["metadata"]["uid"]
    assert seen("configmap", "settings")["data"] == {"answer": "43"}
    assert seen("deployment", "web")["metadata"]["uid"] == web["metadata"]["uid"]
    assert seen("deployment", "web")["status"]["updatedReplicas"] == 1

    stack.up(partial(everything, answer="43", selector="site"), **mutable)
    assert seen("deployment", "web")["metadata"]["uid"] != web["metadata"]["uid"]
    assert seen("job", "once")["metadata"]["uid"] == once["metadata"]["uid"]

    stack.down()
    assert stack.namespace not in cluster.kubectl("get", "namespaces", "-o", "name")
    assert stack.namespace not in cluster.kubectl("get", "persistentvolumes", "-o", "jsonpath={.items[*].spec.claimRef.namespace}")


@pytest.mark.kubernetes
def test_an_object_that_exists_is_adopted_with_upsert_and_refused_without(cluster, stack):
    cluster.kubectl("create", "namespace", stack.namespace)
    cluster.kubectl("create", "configmap", "settings", "-n", stack.namespace, "--from-literal=answer=41", "--from-literal=other=1")
    with pytest.raises(ResourceError, match=r'(?s)configmaps "settings" already exists.*set upsertExistingObjects'):
        stack.up(mapped, upsert_existing_objects=False)
    with pytest.raises(ResourceError, match=r"(?s)apply conflict.*conflict with \"kubectl-create\".*\.data\.answer"):
        stack.up(mapped, enable_patch_force=False)
    stack.up(mapped)
    assert cluster.get("configmap", "settings", "-n", stack.namespace)["data"] == {"answer": "42", "other": "1"}


@pytest.mark.kubernetes
def test_a_map_is_replaced_where_the_provider_may_not_change_it(cluster, stack):
    cluster.kubectl("create", "namespace", stack.namespace)
    stack.up(mapped)
    uid = cluster.get("configmap", "settings", "-n", stack.namespace)["metadata"]["uid"]
    stack.up(partial(mapped, answer="43"))
    after = cluster.get("configmap", "settings", "-n", stack.namespace)
    assert (after["data"], after["metadata"]["uid"] == uid) == ({"answer": "43"}, False)


@pytest.mark.kubernetes
def test_a_deployment_that_cannot_start_fails_in_its_time_with_the_reason_and_is_mended_by_the_next_update(cluster, stack):
    short = {"pulumi.com/timeoutSeconds": "15"}
    with pytest.raises(ResourceError, match=r"(?s)'web' timed out waiting to be Ready.*Minimum number of live Pods.*(ErrImagePull|ImagePullBackOff)"):
        stack.up(partial(deployed, annotations=short, image="localhost/nowhere:1"))
    stack.up(partial(deployed, annotations={"pulumi.com/timeoutSeconds": "120"}))
    assert cluster.get("deployment", "web", "-n", stack.namespace)["status"]["readyReplicas"] == 1
    with pytest.raises(ResourceError, match=r"(?s)'web' timed out.*(CrashLoopBackOff|exit code 3)"):
        stack.up(partial(deployed, annotations=short, command=["sh", "-c", "exit 3"]))


@pytest.mark.kubernetes
def test_nothing_is_awaited_where_an_annotation_says_so(cluster, stack):
    stack.up(partial(deployed, annotations={"pulumi.com/skipAwait": "true"}, image="localhost/nowhere:1"))
    assert "readyReplicas" not in cluster.get("deployment", "web", "-n", stack.namespace).get("status", {})


@pytest.mark.kubernetes
def test_an_exceeded_quota_is_reported_in_the_servers_words(cluster, stack):
    def full(namespace: str, options: pulumi.ResourceOptions) -> None:
        from pulumi_kubernetes.core.v1 import ConfigMap, ResourceQuota

        inside = space(namespace, options)
        quota = ResourceQuota("small", metadata={"name": "small", "namespace": namespace}, spec={"hard": {"configmaps": "1"}}, opts=inside)
        after = pulumi.ResourceOptions.merge(inside, pulumi.ResourceOptions(depends_on=[quota]))
        for name in ("one", "two"):
            ConfigMap(name, metadata={"name": name, "namespace": namespace}, data={}, opts=after)

    with pytest.raises(ResourceError, match="forbidden: exceeded quota: small, requested: configmaps=1, used: configmaps=1, limited: configmaps=1"):
        stack.up(full)


@pytest.mark.kubernetes
def test_a_job_that_fails_is_told_at_once(stack):
    def failing(namespace: str, options: pulumi.ResourceOptions) -> None:
        from pulumi_kubernetes.batch.v1 import Job

        once = template("once", "sh", "-c", "exit 5")
        once["spec"]["restartPolicy"] = "Never"
        Job("once", metadata={"name": "once", "namespace": namespace}, spec={"template": once, "backoff_limit": 0}, opts=space(namespace, options))

    with pytest.raises(ResourceError, match=r"(?s)failed to initialize.*BackoffLimitExceeded"):
        stack.up(failing)


@pytest.mark.kubernetes
def test_a_cluster_that_cannot_be_reached_is_an_error_that_says_so(stack):
    nowhere = json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [], "clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": ""}}],
    })
    with pytest.raises(ResourceError, match="configured Kubernetes cluster is unreachable"):
        stack.up(mapped, kubeconfig=nowhere)


DEPLOYMENT = {
    "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "n"},
    "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {"spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1000m"}}, "env": []}]}}},
}


def test_what_the_server_writes_otherwise_and_what_it_adds_is_no_change():
    live = plain(json.loads(json.dumps(DEPLOYMENT)))
    live["metadata"]["uid"] = "u"
    live["spec"]["template"]["spec"] = {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1"}}, "terminationMessagePath": "/dev/termination-log"}]}
    assert changed(live, DEPLOYMENT, DEPLOYMENT) == []


@pytest.mark.parametrize(("path", "value", "replaces"), [
    ("spec.replicas", 2, False), ("spec.selector", {"matchLabels": {"app": "site"}}, True), ("metadata.name", "other", True),
])
def test_only_what_cannot_be_changed_replaces_a_deployment(path, value, replaces):
    after = json.loads(json.dumps(DEPLOYMENT))
    first, second = path.split(".")
    after[first][second] = value
    paths = changed(DEPLOYMENT, DEPLOYMENT, after)
    assert [each.startswith(path) for each in paths] == [True]
    assert bool(replacing(paths, after, secrets_change=False, maps_change=False)) is replaces
