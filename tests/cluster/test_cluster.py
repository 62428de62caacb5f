"""What the other tests may rely on: a real cluster does what a cluster does, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster import build, census
from cluster.cluster import Cluster
from cluster.images import pack

from envctl.errors import ResourceError
from envctl.waiting import until

pytestmark = pytest.mark.kubernetes
HARDENED = {
    "allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 65534, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of the test's own."""
    with fresh_namespace(cluster) as name:
        yield name


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    assert until(lambda: "default" in cluster.kubectl("get", "serviceaccounts", "-n", name, "-o", "name"), 60)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def pod(name: str, *command: str, **spec: object) -> dict[str, object]:
    container = {"name": "main", "image": build.BUSYBOX, "command": list(command or ("sleep", "3600")), **spec.pop("container", {})}  # type: ignore[dict-item]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
    }


def server(name: str, replicas: int = 1) -> tuple[dict[str, object], dict[str, object]]:
    """A deployment that says its pod's name at port 8080, and its service."""
    script = "mkdir /tmp/www && hostname > /tmp/www/index.html && echo serving && exec httpd -f -p 8080 -h /tmp/www"
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    whole = pod(name, "sh", "-c", script, container={"readinessProbe": probe})
    template = {"metadata": {"labels": {"app": name}}, "spec": whole["spec"]}
    deployment = {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template},
    }
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    return deployment, service


def ready(cluster: Cluster, namespace: str, *what: str) -> None:
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", *what, timeout_s=70)


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Iterator[str]:
    """A namespace with a ready service `web`, and a pod `client`; tests share it, and leave it as it was."""
    with fresh_namespace(cluster) as name:
        serve(cluster, name)
        yield name


def serve(cluster: Cluster, namespace: str) -> None:
    cluster.apply(*server("web"), pod("client"), namespace=namespace)
    cluster.kubectl("rollout", "status", "deployment/web", "-n", namespace, "--timeout=60s", timeout_s=70)
    ready(cluster, namespace, "pod/client")


def fetch(cluster: Cluster, namespace: str, address: str) -> str:
    return cluster.kubectl("exec", "-n", namespace, "client", "--", "timeout", "5", "wget", "-q", "-O", "-", address)


def test_a_service_is_reached_by_its_name_from_another_pod(cluster, served):
    assert fetch(cluster, served, "http://web").startswith("web-")
    assert fetch(cluster, served, f"http://web.{served}.svc.cluster.local").startswith("web-")


def test_pods_have_no_way_out(cluster, served):
    with pytest.raises(ResourceError):
        fetch(cluster, served, "http://192.0.2.1")
    interfaces = cluster.run("ip", "-br", "link").splitlines()
    assert all(line.startswith(("lo", "veth")) for line in interfaces)


@pytest.mark.parametrize("websockets", ["true", "false"])
def test_a_command_in_a_pod_gets_its_input_and_gives_its_output_and_status(cluster, served, websockets):
    words = ("exec", "-i", "-n", served, "client", "--")
    how = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": websockets}
    text = "x" * 1_000_000
    assert cluster.kubectl(*words, "cat", stdin=text, **how) == text
    with pytest.raises(ResourceError, match="status 7"):
        cluster.kubectl(*words, "sh", "-c", "exit 7", **how)


def test_logs_are_read_and_followed(cluster, served):
    assert cluster.kubectl("logs", "-n", served, "deployment/web") == "serving\n"
    argv = [str(cluster.built.programs["kubectl"]), "logs", "-f", "-n", served, "deployment/web"]
    with subprocess.Popen(argv, env={**os.environ, **cluster.environment}, stdout=subprocess.PIPE, text=True) as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "serving\n"
        assert follower.poll() is None
        follower.terminate()


def test_a_port_of_a_pod_is_forwarded_to_the_host(cluster, served):
    argv = [str(cluster.built.programs["kubectl"]), "port-forward", "-n", served, "service/web", ":80"]
    with subprocess.Popen(argv, env={**os.environ, **cluster.environment}, stdout=subprocess.PIPE, text=True) as forwarder:
        assert forwarder.stdout is not None
        port = re.search(r"127\.0\.0\.1:(\d+)", forwarder.stdout.readline())
        assert port
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/", timeout=10) as answer:
            assert answer.read().startswith(b"web-")
        forwarder.terminate()


def test_the_restricted_profile_refuses_a_pod_of_root_and_admits_a_hardened_one(cluster, namespace):
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(ResourceError, match="violates PodSecurity"):
        cluster.apply(pod("root"), namespace=namespace)
    cluster.apply(pod("hardened", container={"securityContext": HARDENED}), namespace=namespace)
    ready(cluster, namespace, "pod/hardened")


def test_an_exhausted_quota_is_refused_with_its_reason(cluster, namespace):
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    cluster.apply(quota, namespace=namespace)
    assert until(lambda: "used" in cluster.get("resourcequota", "small", "-n", namespace).get("status", {}), 60)
    cluster.apply(pod("first"), namespace=namespace)
    with pytest.raises(ResourceError, match="exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"):
        cluster.apply(pod("second"), namespace=namespace)


def test_a_network_policy_is_accepted_but_nothing_here_enforces_it(cluster, served):
    policy = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
    }
    cluster.apply(policy, namespace=served)
    assert fetch(cluster, served, "http://web").startswith("web-")
    cluster.kubectl("delete", "networkpolicy", "deny", "-n", served)


def test_packets_are_dropped_in_a_pods_own_network(cluster, served):
    web = cluster.get("pods", "-n", served, "-l", "app=web")["items"][0]
    rule = "icmp type echo-request numgen random mod 100 < 30 drop"
    rules = f"table inet t {{ chain drops {{ type filter hook input priority 0; {rule}; }}; }}\n"
    network = ("nsenter", "--target", str(cluster.pid(served, web["metadata"]["name"])), "--net", "nft")
    cluster.run(*network, "-f", "-", stdin=rules)
    said = cluster.kubectl("exec", "-n", served, "client", "--", "sh", "-c", f"ping -q -i 0.01 -c 400 -W 1 {web['status']['podIP']} || true")
    lost = re.search(r"(\d+)% packet loss", said)
    assert lost
    assert 20 <= int(lost[1]) <= 40
    cluster.run(*network, "delete", "table", "inet", "t")


def test_an_agent_of_the_node_sees_the_processes_and_networks_of_all_pods(cluster, served):
    agent = pod("agent", hostPID=True, hostNetwork=True, container={"securityContext": {"privileged": True}})
    cluster.apply(agent, namespace=served)
    ready(cluster, served, "pod/agent")
    pid = cluster.pid(served, "client")
    inside = cluster.kubectl("exec", "-n", served, "agent", "--", "nsenter", "-t", str(pid), "-n", "ip", "-o", "addr")
    assert cluster.get("pod", "client", "-n", served)["status"]["podIP"] in inside
    groups = cluster.kubectl("exec", "-n", served, "agent", "--", "cat", f"/proc/{pid}/cgroup")
    assert "/kubepods/besteffort/pod" in groups


def test_a_pod_is_resized_in_place(cluster, namespace):
    small = {"cpu": "100m", "memory": "64Mi"}
    cluster.apply(pod("grows", container={"resources": {"requests": small, "limits": small}}), namespace=namespace)
    ready(cluster, namespace, "pod/grows")
    before = cluster.pid(namespace, "grows")
    large = {"cpu": "200m", "memory": "128Mi"}
    patch = {"spec": {"containers": [{"name": "main", "resources": {"requests": large, "limits": large}}]}}
    cluster.kubectl("patch", "pod", "grows", "-n", namespace, "--subresource=resize", "--patch", json.dumps(patch))

    def resized() -> bool:
        status = cluster.get("pod", "grows", "-n", namespace)["status"]["containerStatuses"][0]
        return bool(status.get("resources", {}).get("limits", {}).get("memory") == "128Mi")

    assert until(resized, 30)
    assert cluster.pid(namespace, "grows") == before


def saved_by_an_engine(archive: Path, name: str, files: dict[str, Path]) -> None:
    """An image in the layout of `docker save`: a manifest, a configuration, a directory for each layer."""
    packed = archive.with_suffix(".oci")
    pack(packed, name, files, entrypoint=("/bin/busybox", "echo", "hello"))
    with tarfile.open(packed) as oci, tarfile.open(archive, "w") as saved:
        blobs = {member.name: oci.extractfile(member).read() for member in oci if member.isfile()}  # type: ignore[union-attr]
        listed = json.loads(blobs["index.json"])["manifests"][0]
        manifest = json.loads(blobs["blobs/" + listed["digest"].replace(":", "/")])
        for target, content in (
            ("config.json", blobs["blobs/" + manifest["config"]["digest"].replace(":", "/")]),
            ("layer/layer.tar", blobs["blobs/" + manifest["layers"][0]["digest"].replace(":", "/")]),
            ("manifest.json", json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer/layer.tar"]}]).encode()),
        ):
            place = archive.parent / "member"
            place.write_bytes(content)
            saved.add(place, arcname=target)


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_an_image_of_an_archive_runs_by_its_name_and_by_its_digest(cluster, namespace, tmp_path, kind):
    archive, files = tmp_path / "image.tar", {"bin/busybox": cluster.built.debian / "bin/busybox"}
    if kind == "oci":
        pack(archive, "localhost/greeter:1", files, entrypoint=("/bin/busybox", "echo", "hello"))
    else:
        saved_by_an_engine(archive, "localhost/greeter:2", files)
    [name] = cluster.load(archive)
    listed = {line.split()[0]: line.split()[2] for line in cluster.run("ctr", "-n", "k8s.io", "images", "ls").splitlines()[1:]}
    by_digest = f"{name.rpartition(':')[0]}@{listed[name]}"
    containers = [{"name": f"c{number}", "image": image, "imagePullPolicy": "Never"} for number, image in enumerate((name, by_digest))]
    spec = {"restartPolicy": "Never", "containers": containers}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "greeter"}, "spec": spec}, namespace=namespace)
    cluster.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "pod/greeter", "--timeout=30s")
    assert cluster.kubectl("logs", "-n", namespace, "greeter", "--all-containers") == "hello\nhello\n"


def test_a_claim_keeps_its_data_while_pods_come_and_go_and_leaves_nothing(cluster, namespace):
    kept = pod("db", "sh", "-c", "cat /data/word || true; echo kept > /data/word && exec sleep 3600", container={
        "volumeMounts": [{"name": "data", "mountPath": "/data"}], "securityContext": HARDENED,
    })
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "16Mi"}}}}
    spec = {
        "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "volumeClaimTemplates": [claim],
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": kept["spec"]},
    }
    cluster.apply({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": spec}, namespace=namespace)
    cluster.kubectl("rollout", "status", "statefulset/db", "-n", namespace, "--timeout=60s", timeout_s=70)
    first = cluster.get("pod", "db-0", "-n", namespace)["metadata"]["uid"]
    cluster.kubectl("delete", "pod", "db-0", "-n", namespace)
    assert until(lambda: running(cluster, namespace, "db-0", but=first), 30)
    assert until(lambda: cluster.kubectl("logs", "-n", namespace, "db-0") == "kept\n", 60)
    [volume] = of_claims(cluster, namespace)
    place = volume["spec"]["hostPath"]["path"]
    assert cluster.run("cat", f"{place}/word") == "kept\n"
    cluster.kubectl("delete", "namespace", namespace, "--timeout=60s", timeout_s=70)
    assert until(lambda: not of_claims(cluster, namespace), 60)
    assert Path(place).name not in cluster.run("ls", str(Path(place).parent))


def running(cluster: Cluster, namespace: str, name: str, *, but: str) -> bool:
    """Whether there is a ready pod of that name that is another than the one before."""
    found = [each for each in cluster.get("pods", "-n", namespace)["items"] if each["metadata"]["name"] == name and each["metadata"]["uid"] != but]
    return any(each["type"] == "Ready" and each["status"] == "True" for one in found for each in one["status"].get("conditions", []))


def of_claims(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    """The volumes that were given to claims of a namespace."""
    return [each for each in cluster.get("persistentvolumes")["items"] if each["spec"].get("claimRef", {}).get("namespace") == namespace]


def test_a_namespace_with_pods_is_deleted(cluster, namespace):
    serve(cluster, namespace)
    cluster.kubectl("delete", "namespace", namespace, "--timeout=60s", timeout_s=70)
    assert namespace not in cluster.kubectl("get", "namespaces", "-o", "name")


def test_a_part_rests_and_starts_anew(cluster):
    name = "kube-controller-manager"
    before = cluster.programs()[name]
    with cluster.without(name):
        assert name not in cluster.programs()
        cluster.kubectl("create", "namespace", space := f"t-{uuid.uuid4().hex[:8]}")
    assert cluster.programs()[name] != before
    assert until(lambda: "default" in cluster.kubectl("get", "serviceaccounts", "-n", space, "-o", "name"), 30)
    cluster.kubectl("delete", "namespace", space, "--wait=false")


def test_a_thousand_pods_become_ready_on_a_hundred_fake_nodes(cluster, namespace):
    player = cluster.kwok()
    try:
        room = {"cpu": "32", "memory": "256Gi", "pods": "110"}
        cluster.apply(*(fake_node(f"fake-{number:03}", room) for number in range(100)))
        assert until(lambda: ready_nodes(cluster) == 100, 60, poll_s=0.5)
        deployment, _ = server("many", replicas=1000)
        spec = deployment["spec"]["template"]["spec"]  # type: ignore[index]
        spec |= {"nodeSelector": {"type": "fake"}, "tolerations": [{"key": "fake", "operator": "Exists"}]}
        cluster.apply(deployment, namespace=namespace)
        cluster.kubectl("rollout", "status", "deployment/many", "-n", namespace, "--timeout=120s", timeout_s=130)
        cluster.kubectl("delete", "namespace", namespace, "--timeout=120s", timeout_s=130)
        cluster.kubectl("delete", "node", "-l", "type=fake", "--wait=false")
        assert until(lambda: ready_nodes(cluster) == 0, 60, poll_s=0.5)
    finally:
        os.killpg(player.pid, signal.SIGKILL)
        player.wait()


def ready_nodes(cluster: Cluster) -> int:
    """How many of the fake ones are."""
    conditions = [one["status"].get("conditions", []) for one in cluster.get("nodes", "-l", "type=fake")["items"]]
    return sum(any(one["type"] == "Ready" and one["status"] == "True" for one in each) for each in conditions)


def fake_node(name: str, room: dict[str, str]) -> dict[str, object]:
    labels = {"type": "fake", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name}
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": labels},
        "spec": {"taints": [{"key": "fake", "effect": "NoSchedule"}]}, "status": {"allocatable": room, "capacity": room},
    }


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for a cluster of the test's own, which may leave nothing anywhere else."""
    before = census.machine()
    yield tmp_path / "own"
    assert until(lambda: not census.traces(tmp_path), 20), census.traces(tmp_path)
    assert until(lambda: census.machine() == before, 20), set(census.machine()) ^ set(before)


def test_a_cluster_that_was_left_leaves_nothing(place):
    with Cluster(place, build.find()) as own:
        own.apply(pod("some"))
        ready(own, "default", "pod/some")
        assert census.traces(place)
    assert not own.kubeconfig.exists()


OWNER = """
import sys, time
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from cluster import build
from cluster.cluster import Cluster
with Cluster(Path(sys.argv[1]), build.find()):
    print("in", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["owner", "guard", "init"])
def test_a_cluster_ends_when_its_owner_or_its_guard_or_its_first_process_is_killed(place, victim):
    tests = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", OWNER, str(place), str(tests)], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"in\n"
        running = json.loads((place / "running.json").read_text())
        os.kill({"owner": owner.pid, **running}[victim], signal.SIGKILL)
        if victim != "owner":
            assert until(lambda: not Path(f"/proc/{running['init']}").exists(), 20)
        owner.kill()
    assert until(lambda: not census.traces(place), 20), census.traces(place)
    if victim == "guard":
        with Cluster(place, build.find()) as next_one:  # removes what a killed guard could not
            assert next_one.kubectl("get", "nodes", "-o", "name") == "node/node-a\n"


def test_a_cluster_is_shared_until_the_last_has_left(place):
    one, other = (Cluster(place, build.find()) for _ in range(2))
    with one:
        with other:
            first = other.init
        assert one.init == first
        assert one.kubectl("get", "nodes", "-o", "name") == "node/node-a\n"
        with socket.create_connection(("127.0.0.1", way_in(one)), timeout=5):
            pass


def way_in(cluster: Cluster) -> int:
    server_url = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return int(server_url.rpartition(":")[2])
