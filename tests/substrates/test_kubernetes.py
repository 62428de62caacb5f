"""What only the Kubernetes substrate has: a cluster that does not answer, forbids or has no room, and what blocks an end.

Each of these is told as what it is as soon as it is known, instead of a time-out (which would be a DeadlineError).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random

import pytest
from cluster.cluster import Cluster
from cluster.parts import DNS_IP
from grounds import Ground

from envctl.errors import CapabilityError, EnvctlError, LeakError, ResourceError
from envctl.faults.base import World
from envctl.faults.node_kill import NodeKill
from envctl.model.topology import Probe, Resources, Topology
from envctl.substrates.kubernetes import Kubernetes, realiser
from envctl.substrates.kubernetes.identity import ZONE

pytestmark = pytest.mark.kubernetes
SLEEP = ("sleep", "300")


@pytest.fixture
def on_cluster(kubernetes_ground: Ground) -> Ground:
    return kubernetes_ground


def never(_: str) -> str:
    raise AssertionError("an image was built for an environment that can't be")


def test_a_cluster_that_does_not_answer_says_so_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "gone", "users": [{"name": "me", "user": {"token": "t"}}],
        "clusters": [{"name": "gone", "cluster": {"server": "https://127.0.0.1:9"}}],
        "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "me"}}],
    }
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("ENVCTL_KUBERNETES_CONTEXT", raising=False)
    lacks = Kubernetes.lacks()
    assert "127.0.0.1:9 does not answer" in lacks[0][0]
    assert "refused" in lacks[0][0]
    monkeypatch.setattr(realiser, "own_image", never)
    with pytest.raises(CapabilityError, match="does not answer"):
        Kubernetes.realiser(tmp_path / "envs" / "t-1").create_environment("t-1", ttl_s=60, labels={})


def test_who_may_not_make_namespaces_is_told_so(
    in_cluster: None, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    cluster.kubectl("create", "serviceaccount", "stranger")
    token = cluster.kubectl("create", "token", "stranger").strip()
    config = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "config").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr(realiser, "api", realiser.api.__wrapped__)
    monkeypatch.setattr(realiser, "own_image", never)
    with pytest.raises(CapabilityError, match=r'namespaces "t-2-.*" is forbidden.*stranger'):
        Kubernetes.realiser(tmp_path / "envs" / "t-2").create_environment("t-2", ttl_s=60, labels={})


def test_a_quota_that_is_exhausted_is_named_with_the_object(on_cluster: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(realiser.QUOTA_SETTING, "pods=1")
    _, made = on_cluster.make()
    with pytest.raises(ResourceError, match=r"Deployment a-0.*exceeded quota.*pods=1"):
        made.start_node(on_cluster.node("a-0", *SLEEP), ready_timeout_s=120)


def test_nothing_scales_what_is_one_node(on_cluster: Ground, cluster: Cluster) -> None:
    reach, _ = on_cluster.make()
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a-0"}
    scaler = {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a-0"},
        "spec": {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5},
    }
    with pytest.raises(ResourceError, match=r"exceeded quota: limits, requested: count/horizontalpodautoscalers\.autoscaling=1"):
        cluster.apply(scaler, namespace=reach.identity.namespace)


def test_an_image_that_is_nowhere_is_named(on_cluster: Ground) -> None:
    _, made = on_cluster.make()
    with pytest.raises(ResourceError, match=r"pod a-0.*(ErrImagePull|ImagePullBackOff).*no-such-image"):
        made.start_node(on_cluster.node("a-0", *SLEEP, image="no-such-image:1"), ready_timeout_s=120)


def test_a_root_image_is_refused_by_the_cluster_and_the_reason_is_told(on_cluster: Ground) -> None:
    _, made = on_cluster.make()
    with pytest.raises(ResourceError, match="run as root"):
        made.start_node(on_cluster.node("a-0", *SLEEP, user=""), ready_timeout_s=120)


def test_more_than_a_machine_has_is_not_waited_for(on_cluster: Ground) -> None:
    _, made = on_cluster.make()
    with pytest.raises(EnvctlError, match=r"finds no node.*Insufficient memory"):
        made.start_node(on_cluster.node("a-0", *SLEEP, template=_template(on_cluster, "900Gi")), ready_timeout_s=120)


def _template(ground: Ground, memory: str) -> dict[str, object]:
    container = {"name": "main", "command": [*SLEEP], "resources": {"requests": {"memory": memory}, "limits": {"memory": memory}}, "securityContext": {"runAsUser": 1000}}
    return {"metadata": {}, "spec": {"containers": [container]}}


def test_what_blocks_an_end_is_printed(on_cluster: Ground, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    reach, made = on_cluster.make()
    space = reach.identity.namespace
    blocked = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "blocked", "finalizers": ["example.dev/never"]}}
    cluster.apply(blocked, namespace=space)
    monkeypatch.setattr(realiser, "_END_S", 12.0)
    with pytest.raises(LeakError, match=rf"namespace {space}.*example.dev/never in 1 resource"):
        made.end_environment()
    cluster.kubectl("patch", "configmap", "blocked", "-n", space, "--type=merge", "-p", '{"metadata":{"finalizers":null}}')


def test_a_keeper_whose_pod_is_deleted_comes_back_with_all_that_it_kept(on_cluster: Ground, cluster: Cluster) -> None:
    reach, made = on_cluster.make(labels={"stack": "shop"})
    spec = on_cluster.node("a-0", *SLEEP)
    made.start_node(spec, ready_timeout_s=60)
    made.start_node(on_cluster.node("job-0", "true", one_shot=True), ready_timeout_s=60)
    reach.helper("telemetry", "http.server", "4318", "--bind", "0.0.0.0", ready=Probe("tcp", 4318))
    reach.pause("a-0", 60)
    cluster.kubectl("delete", "pod", "-n", reach.identity.namespace, "-l", "envctl.dev/part=keeper", "--grace-period=0", "--force")
    on_cluster.until(lambda: _states(reach) == {"a-0": "ready", "job-0": "exited"}, "it finds its nodes, and none of them paused", within_s=60)
    assert reach.environment().labels["stack"] == "shop"
    on_cluster.until(lambda: reach.node("telemetry").state == "ready", "helpers are back", within_s=30)
    assert made.start_node(spec, ready_timeout_s=60).starts == 1
    assert reach.run("a-0", ["true"]).status == 0


def _states(reach: object) -> dict[str, str]:
    try:
        return {node.name: node.state for node in reach.environment().nodes}  # type: ignore[attr-defined]
    except EnvctlError:
        return {}


def test_nodes_are_confined_and_bear_what_they_may_use(on_cluster: Ground, cluster: Cluster) -> None:
    reach, made = on_cluster.make()
    made.start_node(on_cluster.node("a-0", *SLEEP, resources=Resources(cpus=0.5, memory_bytes=64 << 20)), ready_timeout_s=60)
    space = reach.identity.namespace
    (pod,) = cluster.get("pods", "-n", space, "-l", "envctl.dev/node=a-0")["items"]
    (container,) = pod["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": str(64 << 20)}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not pod["spec"]["automountServiceAccountToken"]
    kinds = ("resourcequota", "limitrange", "networkpolicy")
    assert [len(cluster.get(kind, "-n", space)["items"]) for kind in kinds] == [1, 1, 3]
    ways = cluster.get("networkpolicy", "keeper", "-n", space)["spec"]["egress"][0]["ports"]
    (api,) = cluster.get("endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    assert api["ports"][0]["port"] in [way["port"] for way in ways]
    blocks = cluster.get("networkpolicy", "within", "-n", space)["spec"]["egress"][1]["to"][1:]
    assert [block["ipBlock"]["cidr"] for block in blocks] == ["169.254.20.10/32", f"{DNS_IP}/32"]
    denied = cluster.get("namespace", space)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert denied == "restricted"


def test_the_zone_of_a_node_is_that_of_its_machine_and_its_outage_lasts_as_long_as_its_lease(
    on_cluster: Ground, cluster: Cluster, tmp_path: Path,
) -> None:
    (machine,) = cluster.get("nodes")["items"]
    name, before = machine["metadata"]["name"], machine["metadata"]["labels"][ZONE]
    cluster.kubectl("label", "node", name, f"{ZONE}=north", "--overwrite")
    try:
        reach, made = on_cluster.make()
        for node, zone in (("a-0", "south"), ("b-0", "north")):
            made.start_node(on_cluster.node(node, *SLEEP, zone=zone), ready_timeout_s=60)
        assert {node.name: node.zone for node in reach.environment().nodes} == {"a-0": "north", "b-0": "north"}
        fault = NodeKill.build({"zone": "north", "restart": False}, World(reach, Topology("t", Path("t.yaml"), ("north", "south"), {}), Random(1), tmp_path))
        assert len(fault.probe().nodes) == 2
        fault.apply(60)
        assert (fault.verify().shown, fault.verify().summary) == (True, "exit 137, held down")
        pods = ("pods", "-n", reach.identity.namespace, "-l", "envctl.dev/part=node")
        on_cluster.until(lambda: cluster.get(*pods)["items"] == [], "no pod is left, and none is made", within_s=30)
        fault.heal()
        assert fault.absent().shown
        fault.probe()
        fault.apply(3)
        on_cluster.until(lambda: {node.name: node.starts for node in reach.environment().nodes if node.state == "ready"} == {"a-0": 3, "b-0": 3},
                         "the lease is over", within_s=60)
        assert not fault.verify().shown
    finally:
        cluster.kubectl("label", "node", name, f"{ZONE}={before}", "--overwrite")


def test_agents_go_with_the_last_environment(in_cluster: None, cluster: Cluster, tmp_path: Path) -> None:
    cluster.kubectl("delete", "namespace", "bystander", "--ignore-not-found")
    ground = Ground(Kubernetes(), Path(os.environ["ENVCTL_CACHE"]) / "envs", ("nft",), {}, user="1000")
    _, made = ground.make()
    assert cluster.get("daemonset", "-n", "envctl-agents")["items"]
    made.end_environment()
    kinds = ("namespace", "clusterrole", "clusterrolebinding", "persistentvolume")
    assert "envctl" not in "".join(cluster.kubectl("get", kind, "-o", "name") for kind in kinds)
