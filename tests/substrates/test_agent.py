"""The agent of a node on a real cluster: what keepers get from it, and what others are refused."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster import build
from cluster.cluster import Cluster
from grounds import Ground, cluster_settings

from envctl.errors import CredentialsError, ResourceError
from envctl.substrates.keeper.client import checked
from envctl.substrates.keeper.streams import Streamed
from envctl.substrates.keeper.wire import Lines
from envctl.substrates.kubernetes import Kubernetes, agent, realiser
from envctl.substrates.kubernetes.agents import ensure_agents, selector
from envctl.substrates.kubernetes.api import api, context
from envctl.substrates.kubernetes.identity import AGENT, AGENT_PORT, AGENTS, ENV, EXPIRES, NEXT_AGENT, agent_of
from envctl.substrates.kubernetes.image import own_image

pytestmark = pytest.mark.kubernetes
COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
CONFINED = {
    "runAsUser": 1000, "runAsNonRoot": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True, slots=True)
class Done:
    status: int
    out: str
    err: str


class Space:
    """A namespace with a keeper's account, and the agent as that keeper sees it."""

    def __init__(self, cluster: Cluster, name: str, version: str) -> None:
        self.cluster, self.name, self.version = cluster, name, version
        self.token = ""

    def agents(self) -> list[Any]:
        """The pods of the agents of its version."""
        found: list[Any] = self.cluster.get("pods", "-n", AGENTS, "-l", selector(self.version))["items"]
        return found

    def agent(self) -> str:
        """The pod of the agent that is ready."""
        for pod in self.agents():
            conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
            if conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]:
                return str(pod["metadata"]["name"])
        return ""

    def is_still(self, pod: str) -> bool:
        """Whether what counts in a pod has stopped."""
        before = self.lines(pod)
        time.sleep(0.5)
        return self.lines(pod) == before

    def account(self, name: str) -> str:
        """The token of a service account."""
        self.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, namespace=self.name)
        return self.cluster.kubectl("create", "token", name, "-n", self.name).strip()

    def pod(self, name: str, *command: str, labels: dict[str, str] | None = None, security: Any = CONFINED, **spec: object) -> dict[str, Any]:
        """Makes a pod and waits until it runs."""
        container = {"name": "main", "image": build.BUSYBOX, "command": list(command or ("sleep", "3600")), "securityContext": security}
        self.cluster.apply({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {ENV: "t"} if labels is None else labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
        }, namespace=self.name)
        Ground.until(lambda: self.state(name).get("running"), f"{name} runs", within_s=30)
        return self.cluster.get("pod", name, "-n", self.name)  # type: ignore[no-any-return]

    def state(self, pod: str) -> dict[str, Any]:
        statuses = self.cluster.get("pod", pod, "-n", self.name)["status"].get("containerStatuses") or [{}]
        return statuses[0].get("state", {})  # type: ignore[no-any-return]

    def lines(self, pod: str) -> list[str]:
        return self.cluster.kubectl("logs", pod, "-n", self.name).splitlines()

    def open(self, pod: dict[str, Any], do: str, *, token: str | None = None, **fields: object) -> Lines:
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        lines = Lines(api(context()).dial(self.agent(), AGENTS, AGENT_PORT))
        lines.send({"do": do, "token": self.token if token is None else token, "pod": pod["metadata"]["uid"], "container": container, **fields})
        return lines

    def ask(self, pod: dict[str, Any], do: str, **fields: Any) -> dict[str, Any]:
        with contextlib.closing(self.open(pod, do, **fields)) as lines:
            lines.sock.settimeout(30)
            return checked(lines.receive())

    def run(self, pod: dict[str, Any], *argv: str, where: str = "node", stdin: str = "") -> Done:
        given, out, err = os.memfd_create("in"), os.memfd_create("out"), os.memfd_create("err")
        os.write(given, stdin.encode())
        os.lseek(given, 0, os.SEEK_SET)
        status = Streamed(self.open(pod, "enter", argv=argv, env={"MORE": "more"}, where=where), given, out, err).wait(30)
        os.close(given)
        return Done(status, read(out), read(err))


def read(descriptor: int) -> str:
    with os.fdopen(descriptor) as file:
        file.seek(0)
        return file.read()


@contextlib.contextmanager
def made(cluster: Cluster, version: str) -> Iterator[Space]:
    space = Space(cluster, f"t-{uuid.uuid4().hex[:8]}", version)
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space.name, "labels": {AGENT: version}}})
    space.token = space.account("keeper")
    yield space
    cluster.kubectl("delete", "namespace", space.name, "--wait=false")


@pytest.fixture(scope="module")
def space(cluster_cache: Path, cluster: Cluster) -> Iterator[Space]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cluster_settings(cluster, cluster_cache).items():
            patch.setenv(name, value)
        image = own_image(context())
        ensure_agents(api(context()), image)
        with made(cluster, agent_of(image)) as one:
            Ground.until(one.agent, "the agent is ready", within_s=60)
            yield one


def test_a_command_is_run_in_a_pod_as_what_the_pod_is(space):
    pod = space.pod("a")
    script = "cat; id -u; hostname; echo $MORE $KUBERNETES_SERVICE_PORT; grep -E 'CapBnd|NoNew' /proc/self/status; exit 7"
    done = space.run(pod, "sh", "-c", script, stdin="in\n")
    assert done == Done(7, "in\n1000\na\nmore 443\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n", "")
    assert space.run(pod, "no-such-command").status == 127
    assert space.run(pod, "sh", "-c", "kill -9 $$").status == 137
    assert any(size > 0 for _, size in space.ask(pod, "usage")["usage"].values())


def test_packets_are_lost_by_rules_in_the_network_of_a_pod(space):
    pod, _ = space.pod("loses"), space.pod("sends", labels={}, security={})
    rules = "table inet t { chain c { type filter hook input priority 0; icmp type echo-request numgen random mod 100 < 30 drop; }; }\n"
    assert space.run(pod, "nft", "-f", "-", where="netns", stdin=rules) == Done(0, "", "")
    ping = f"ping -q -i 0.01 -c 400 -W 1 {pod['status']['podIP']} || true"
    lost = re.search(r"(\d+)% packet loss", space.cluster.kubectl("exec", "-n", space.name, "sends", "--", "timeout", "30", "sh", "-c", ping))
    assert lost
    assert 20 <= int(lost[1]) <= 40
    assert space.run(pod, "nft", "delete", "table", "inet", "t", where="netns").status == 0


def test_what_enters_a_network_gets_nothing_else_of_the_node(space):
    pod = space.pod("b")
    for script in (
        "cat /var/run/secrets/kubernetes.io/serviceaccount/token", "ls /sys/fs/cgroup/*", "echo x > /proc/sys/kernel/core_pattern",
        "mount -t tmpfs x /mnt", "cat /proc/1/environ", "echo x > /usr/sbin/nft",
    ):
        done = space.run(pod, "sh", "-c", script, where="netns")
        assert (done.status != 0, done.out) == (True, ""), script
    assert len(space.run(pod, "sh", "-c", "echo /proc/[0-9]*", where="netns").out.split()) <= 3
    on_node = space.pod("c", hostNetwork=True)
    with pytest.raises(ResourceError, match="the node's own network"):
        space.ask(on_node, "enter", argv=["nft", "list", "tables"], env={}, where="netns")


def test_a_paused_pod_stands_still_until_it_is_resumed_or_its_lease_is_over(space):
    pod = space.pod("counts", "sh", "-c", COUNT)

    def goes_on() -> bool:
        return not space.is_still("counts")

    assert goes_on()
    space.ask(pod, "pause", lease_s=60)
    time.sleep(0.5)  # what was written may still be on its way
    assert not goes_on()
    space.ask(pod, "resume")
    assert goes_on()
    space.ask(pod, "pause", lease_s=60)
    space.ask(pod, "pause", lease_s=0.2)
    Ground.until(goes_on, "its lease is over")


def test_a_killed_pod_ends_with_137_and_other_signals_are_told_to_its_main_process(space):
    for name, number, status in (("killed", 9, 137), ("told", 15, 5)):
        pod = space.pod(name, "sh", "-c", "trap 'exit 5' TERM; (trap '' TERM; sleep 300) & while :; do sleep 0.05; done", restartPolicy="Never")
        space.ask(pod, "pause", lease_s=60) if number == 9 else None
        space.ask(pod, "signal", signal=number)
        Ground.until(lambda name=name: space.state(name).get("terminated"), "it has ended")
        assert space.state(name)["terminated"]["exitCode"] == status


def test_strangers_and_strange_pods_are_refused(space):
    pod, other, stranger = space.pod("d"), space.pod("e"), space.pod("unlabelled", labels={})
    with made(space.cluster, space.version) as elsewhere:
        theirs = elsewhere.pod("f")
        refused = [
            (theirs, space.token), (pod, elsewhere.token), (stranger, space.token), (pod, "wrong"), (pod, space.account("other")),
            ({**pod, "metadata": other["metadata"]}, space.token),
        ]
        for target, token in refused:
            for do, fields in (("pause", {"lease_s": 9}), ("signal", {"signal": 9}), ("enter", {"argv": ["true"], "env": {}, "where": "node"})):
                with pytest.raises(CredentialsError):
                    space.ask(target, do, token=token, **fields)
        assert elsewhere.ask(theirs, "usage")["usage"]
    with pytest.raises(ResourceError):
        space.ask(pod, "nonsense")
    assert space.ask(pod, "usage")["usage"]


def test_a_pod_that_a_killed_agent_had_frozen_goes_on(space):
    pod = space.pod("frozen", "sh", "-c", COUNT)
    space.ask(pod, "pause", lease_s=600)
    time.sleep(0.5)
    before = space.lines("frozen")
    space.cluster.run("kill", "-9", str(space.cluster.pid(AGENTS, space.agent())))
    Ground.until(lambda: len(space.lines("frozen")) > len(before) + 3, "the next agent lets it go on", within_s=60)
    Ground.until(space.agent, "it is ready", within_s=30)


def test_a_namespace_whose_lease_has_long_run_out_is_removed(space):
    now = int(time.time())
    leases = {"long-over": {EXPIRES: str(now - 200)}, "just-over": {EXPIRES: str(now - 20)}, "none": {}, "odd": {EXPIRES: "x"}}
    names = {name: f"{space.name}-{name}" for name in leases}
    for name, notes in leases.items():
        space.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names[name], "labels": {ENV: "t"}, "annotations": notes}})

    def there() -> set[str]:
        found = {each["metadata"]["name"] for each in space.cluster.get("namespaces")["items"]}
        return {name for name, full in names.items() if full in found}

    Ground.until(lambda: "long-over" not in there(), "it is removed", within_s=60)
    assert there() == {"just-over", "none", "odd"}
    said = space.cluster.kubectl("logs", "-n", AGENTS, space.agent())
    assert said.count(names["long-over"]) == 1
    space.cluster.kubectl("delete", "namespace", *(names[name] for name in there()), "--wait=false")


def test_agents_of_another_version_leave_the_environments_of_this_one_alone_and_go_with_their_last(space, kubernetes_ground, monkeypatch):
    cluster, mine = space.cluster, [pod["metadata"]["uid"] for pod in space.agents()]
    other = f"{own_image(context())}-other"
    (known,) = {name for name in cluster.run("ctr", "-n", "k8s.io", "images", "ls", "-q").split() if name.endswith(f"/{own_image(context())}")}
    cluster.run("ctr", "-n", "k8s.io", "images", "tag", "--force", known, known.replace(own_image(context()), other))
    pod = space.pod("stays", "sh", "-c", COUNT)
    space.ask(pod, "pause", lease_s=600)
    reach, environment = kubernetes_ground.make()
    monkeypatch.setattr(realiser, "own_image", lambda _: other)
    environment.create_environment(reach.identity.env_id, ttl_s=120, labels={})
    theirs = Space(cluster, reach.identity.namespace, agent_of(other))
    theirs.token = cluster.kubectl("create", "token", "keeper", "-n", theirs.name).strip()
    Ground.until(theirs.agent, "another version has agents of its own", within_s=60)
    assert [each["metadata"]["uid"] for each in space.agents()] == mine, "and has not replaced these"

    def labels():
        return cluster.get("namespace", theirs.name)["metadata"]["labels"]

    assert (labels()[AGENT], labels()[NEXT_AGENT]) == (space.version, theirs.version), "the keeper is still the first one"
    environment._apply(api(context()), other)
    Ground.until(lambda: labels()[AGENT] == theirs.version and NEXT_AGENT not in labels(), "the next keeper says that it has come", within_s=60)

    counts = theirs.pod("counts", "sh", "-c", COUNT)
    theirs.ask(counts, "pause", lease_s=600)
    cluster.run("kill", "-9", str(cluster.pid(AGENTS, theirs.agent())))
    Ground.until(lambda: not theirs.is_still("counts"), "what theirs had frozen goes on with the next one", within_s=60)
    assert space.is_still("stays"), "what a living one of another version froze does not"
    Ground.until(theirs.agent, "it is ready again", within_s=60)

    name = f"envctl-agent-{theirs.version}"
    account = f"--as=system:serviceaccount:{AGENTS}:{name}"
    assert cluster.kubectl("auth", "can-i", "delete", f"clusterroles/{name}", account) == "yes\n"
    with pytest.raises(ResourceError, match="no"):
        cluster.kubectl("auth", "can-i", "delete", f"clusterroles/envctl-agent-{space.version}", account)
    last = agent.Agent(api(context()), "node-a", theirs.agent(), theirs.version)
    monkeypatch.setattr(agent, "_GRACE_S", 0.0)
    last._reap()
    assert cluster.get("clusterrole", name), "it still has an environment"
    looked_at = api(context()).get("ClusterRole", name)
    ensure_agents(api(context()), other)
    assert not api(context()).delete_unchanged("ClusterRole", looked_at), "somebody wants it again"
    environment.end_environment()
    kinds = "clusterroles,clusterrolebindings,daemonsets,networkpolicies,roles,rolebindings,pods"
    Ground.until(lambda: {each["metadata"]["labels"][AGENT] for each in cluster.get(kinds, "-n", AGENTS, "-l", selector())["items"]} == {space.version},
                 "they have gone with all that was theirs", within_s=60)
    assert [each["metadata"]["uid"] for each in space.agents()] == mine
    assert space.is_still("stays")


def test_agents_whose_last_environment_ended_by_itself_take_themselves_away(space, in_cluster, monkeypatch):
    other = f"{own_image(context())}-nobodys"
    ensure_agents(api(context()), other)
    theirs = Space(space.cluster, "", agent_of(other))
    Ground.until(theirs.agents, "they are there", within_s=30)
    last = agent.Agent(api(context()), "node-a", theirs.agents()[0]["metadata"]["name"], theirs.version)
    monkeypatch.setattr(agent, "_GRACE_S", 0.0)
    monkeypatch.setattr(agent, "is_ready", lambda _: True)  # its image is nowhere
    last._reap()
    Ground.until(lambda: not theirs.agents(), "they have gone", within_s=60)
    assert space.agent(), "and these are still there"


def test_the_last_agents_of_a_cluster_take_their_namespace_away_with_the_rights_that_they_have(space, in_cluster, tmp_path, monkeypatch):
    cluster, image = space.cluster, own_image(context())
    bystanders = cluster.get("namespaces", "-l", ENV)["items"]
    name = f"envctl-agent-{space.version}"
    token = cluster.kubectl("create", "token", name, "-n", AGENTS).strip()
    write_config(cluster, token, tmp_path / "config", "agent")
    with monkeypatch.context() as patched:
        patched.setenv("KUBECONFIG", str(tmp_path / "config"))
        last = agent.Agent(api("agent"), "node-a", space.agent(), space.version)
    monkeypatch.setattr(agent, "_GRACE_S", 0.0)
    for each in bystanders:
        with contextlib.suppress(ResourceError):  # of an earlier test, and gone meanwhile
            cluster.kubectl("label", "namespace", each["metadata"]["name"], f"{ENV}-", f"{AGENT}-")
    cluster.kubectl("label", "namespace", space.name, f"{AGENT}-")
    try:
        last._reap()
        Ground.until(lambda: AGENTS not in cluster.kubectl("get", "namespaces", "-o", "name"), "it has gone", within_s=60)
        Ground.until(lambda: not cluster.get("clusterroles", "-l", selector())["items"], "and all else with it", within_s=60)
    finally:
        for each in bystanders:
            told = each["metadata"]
            with contextlib.suppress(ResourceError):
                cluster.kubectl("label", "namespace", told["name"], *(f"{label}={told['labels'][label]}" for label in (ENV, AGENT) if label in told["labels"]))
        cluster.kubectl("label", "namespace", space.name, f"{AGENT}={space.version}")
        ensure_agents(api(context()), image)
    Ground.until(space.agent, "others come when they are asked for", within_s=60)


def write_config(cluster, token, config, name):
    """A kubeconfig of whoever has the token, with a context of that name."""
    told = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json"))
    (here,) = told["contexts"]
    told |= {"current-context": name, "users": [{"name": name, "user": {"token": token}}]}
    told["contexts"] = [{"name": name, "context": {**here["context"], "user": name}}]
    config.write_text(json.dumps(told))


def test_the_rights_that_the_documentation_lists_are_enough(space, in_cluster, tmp_path, monkeypatch):
    said = Path(__file__).parents[2].joinpath("docs", "kubernetes.md").read_text()
    (role,) = re.findall(r"```yaml\n(.*?)```", said, re.DOTALL)
    rights = {**yaml.safe_load(role), "metadata": {"name": space.name}}
    account = {"kind": "ServiceAccount", "name": "user", "namespace": space.name}
    token = space.account("user")
    space.cluster.apply(rights, {
        "apiVersion": rights["apiVersion"], "kind": "ClusterRoleBinding", "metadata": {"name": space.name}, "subjects": [account],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": space.name},
    })
    write_config(space.cluster, token, tmp_path / "config", "user")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    assert not [lack for lack in Kubernetes.lacks() if "plug-in" not in lack[0]]
    ground = Ground(Kubernetes(), tmp_path / "cache" / "envs", ("nft",), {}, user="1000")
    reach, realiser = ground.make()
    try:
        realiser.start_node(ground.node("a-0", "sleep", "300", env={"A": "b"}), ready_timeout_s=90)
        assert reach.run("a-0", ["printenv", "A"]).stdout == "b\n"
        realiser.stop_node("a-0")
    finally:
        realiser.end_environment()
    assert ground.substrate.census(realiser.directory) == ()
    space.cluster.kubectl("delete", f"clusterrole/{space.name}", f"clusterrolebinding/{space.name}")
