"""An environment and its nodes as objects of Kubernetes."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import CapabilityError, ResourceError
from envctl.model.environment import NodeSpec, spec_from
from envctl.model.topology import Probe, Resources
from envctl.substrates.kubernetes.agents import agent_objects, selector
from envctl.substrates.kubernetes.api import Api, MissingError
from envctl.substrates.kubernetes.identity import AGENT_OF, AGENT_PORT, AGENTS, ENV, SPEC, Identity
from envctl.substrates.kubernetes.nodes import node_objects
from envctl.substrates.kubernetes.objects import environment_objects
from envctl.substrates.kubernetes.ways import Ways, ways_in
from envctl.substrates.kubernetes.work import work_object

HERE = Identity("shop-main-abc", "machine:/somewhere/shop-main-abc")


def spec(**fields: Any) -> NodeSpec:
    values = {"name": "a-0", "component": "a", "kind": "service", "zone": "", "command": ("run",), "digest": "1", "image": "a:1", **fields}
    return NodeSpec(**values)


def workload(made: NodeSpec) -> Mapping[str, Any]:
    found: Mapping[str, Any] = node_objects(HERE, made, made.image)[-1]
    return found


def container(made: NodeSpec) -> Mapping[str, Any]:
    (only,) = workload(made)["spec"]["template"]["spec"]["containers"]
    found: Mapping[str, Any] = only
    return found


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=80).filter(lambda name: name[0] != "-"))
def test_a_namespace_has_a_name_that_a_cluster_takes_and_that_no_other_place_has(env_id: str) -> None:
    names = {Identity(env_id, f"{machine}:/envs/{env_id}").namespace for machine in ("one", "two")}
    assert len(names) == 2
    assert all(len(name) <= 63 and not name.startswith("-") and "--" not in name[-10:] for name in names)


def test_everything_is_in_the_namespace_and_bears_the_environments_label(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    node = spec(env={"A": "b"}, files={"/x": tmp_path / "x"}, volumes=("/data",))
    things = [*environment_objects(HERE, tmp_path, "envctl:1"), *node_objects(HERE, node, "a:1")]
    assert all(thing["metadata"].get("namespace", HERE.namespace) == HERE.namespace for thing in things)
    assert {thing["metadata"]["labels"][ENV] for thing in things} == {"shop-main-abc"}
    assert len({(thing["kind"], thing["metadata"]["name"]) for thing in things}) == len(things)


@pytest.mark.parametrize(("fields", "kind"), [({}, "Deployment"), ({"volumes": ("/d",)}, "StatefulSet"), ({"one_shot": True}, "Job")])
def test_what_a_node_is_decides_its_workload(fields: dict[str, Any], kind: str) -> None:
    made = spec(**fields)
    assert workload(made)["kind"] == kind
    assert spec_from(json.loads(workload(made)["metadata"]["annotations"][SPEC])) == made


def test_words_are_what_they_are_and_not_replaced_by_the_cluster() -> None:
    made = container(spec(command=("sh", "-c", "echo $(HOME) $$"), entrypoint=("env", "$(A)")))
    assert made["command"] == ["env", "$$(A)"]
    assert made["args"] == ["sh", "-c", "echo $$(HOME) $$"]
    assert container(spec(entrypoint=()))["command"] == ["run"], "an entry point that is taken away leaves the command alone"


def test_variables_are_in_a_secret_and_not_in_the_workload() -> None:
    made = spec(env={"PASSWORD": "swordfish"})
    secret = next(thing for thing in node_objects(HERE, made, "a:1") if thing["kind"] == "Secret")
    assert secret["stringData"] == {"PASSWORD": "swordfish"}
    assert "swordfish" not in json.dumps(workload(made)["spec"])


def test_files_keep_their_names_contents_and_whether_they_can_be_run(tmp_path: Path) -> None:
    (tmp_path / "d" / "below").mkdir(parents=True)
    (tmp_path / "d" / "below" / "a b.txt").write_bytes(b"\0text")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    made = spec(files={"/etc/d": tmp_path / "d", "/usr/bin/run": tmp_path / "run.sh"})
    contents = next(thing for thing in node_objects(HERE, made, "a:1") if thing["kind"] == "ConfigMap")["binaryData"]
    pod = workload(made)["spec"]["template"]["spec"]
    items = {volume["name"]: volume["configMap"]["items"] for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    (nested,), (program,) = items[mounts["/etc/d"]["name"]], items[mounts["/usr/bin/run"]["name"]]
    assert nested["path"] == "below/a b.txt"
    assert base64.b64decode(contents[nested["key"]]) == b"\0text"
    assert (nested["mode"], program["mode"], mounts["/usr/bin/run"]["subPath"]) == (0o444, 0o555, "run.sh")


def test_more_than_a_cluster_keeps_is_refused_with_the_size(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(1_100_000))
    with pytest.raises(ResourceError, match="a-0 have 1,100,000 bytes"):
        node_objects(HERE, spec(files={"/big": tmp_path / "big"}), "a:1")


@pytest.mark.parametrize(("probe", "asked"), [
    (Probe("http", 80, "/ready"), {"httpGet": {"port": 80, "path": "/ready"}}), (Probe("tcp", 80), {"tcpSocket": {"port": 80}}),
    (Probe("grpc", 80, "pay"), {"grpc": {"port": 80, "service": "pay"}}), (Probe("exec", command=("true",)), {"exec": {"command": ["true"]}}),
])
def test_probes_are_the_kubelets_too(probe: Probe, asked: dict[str, Any]) -> None:
    made = container(spec(ready=probe))
    assert all(made[name].items() >= asked.items() for name in ("startupProbe", "readinessProbe"))
    assert "readinessProbe" not in container(spec(ready=Probe("log", target="up")))


def test_limits_users_and_confinement_are_set() -> None:
    made = container(spec(user="999:998", resources=Resources(cpus=0.05, memory_bytes=1 << 20)))
    assert made["resources"]["limits"] == {"memory": str(1 << 20), "cpu": "50m"}
    assert made["resources"]["requests"]["cpu"] == "50m", "what is asked for is no more than what is allowed"
    assert (made["securityContext"]["runAsUser"], made["securityContext"]["runAsGroup"]) == (999, 998)
    assert "runAsUser" not in container(spec(user="somebody"))["securityContext"], "names are known to the image alone"


def test_a_node_is_preferably_placed_in_its_zone_also_if_it_is_a_teams_own_pod() -> None:
    theirs = {"spec": {"containers": [{"name": "main"}]}}
    for made in (spec(zone="b"), spec(zone="b", template=theirs)):
        (term,) = workload(made)["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert term["preference"]["matchExpressions"] == [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}]
    assert "affinity" not in workload(spec())["spec"]["template"]["spec"]


def test_no_pod_of_an_environment_is_moved_by_what_saves_machines() -> None:
    keeper = environment_objects(HERE, Path("/x"), "envctl:1")[-1]
    theirs = {"metadata": {"annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true", "theirs": "kept"}}, "spec": {"containers": [{"name": "main"}]}}
    for thing in (keeper, work_object(HERE, "envctl-run-1", ["true"], keeper), workload(spec()), workload(spec(template=theirs))):
        annotations = thing["spec"]["template"]["metadata"]["annotations"]
        assert annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert annotations["theirs"] == "kept"


def policies(ways: Ways) -> dict[str, Any]:
    things = environment_objects(HERE, Path("/somewhere/shop-main-abc"), "envctl:1", ways=ways)
    return {thing["metadata"]["name"]: thing["spec"] for thing in things if thing["kind"] == "NetworkPolicy"}


def test_names_are_let_out_to_resolvers_that_are_no_pods_or_listen_elsewhere() -> None:
    _, *names = policies(Ways(resolvers=("169.254.20.10", "fd00::a")))["within"]["egress"]
    blocks = [to["ipBlock"]["cidr"] for to in names[0]["to"] if "ipBlock" in to]
    assert blocks == ["169.254.20.10/32", "fd00::a/128"]
    assert {"namespaceSelector": {}} in names[0]["to"]
    assert [{way["port"] for way in each["ports"]} for each in names] == [{53}, {5353}]
    assert names[1]["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]


def test_the_keeper_alone_is_let_out_to_the_api_where_it_listens() -> None:
    made = policies(Ways(api_ports=(443, 16443)))
    assert [way["port"] for way in made["keeper"]["egress"][0]["ports"]] == [443, 16443, AGENT_PORT]
    assert made["nothing"]["podSelector"] == {}
    assert "egress" not in made["nothing"]


class Known(Api):
    """A cluster of which one may know so much."""

    port = 7443

    def __init__(self, slices: Any, service: Any) -> None:
        self._said = {"endpointslices": slices, "services": service}

    def ask(self, *words: Any, **_: Any) -> Any:
        said = next(said for kind, said in self._said.items() if f"/{kind}" in words[1])
        if isinstance(said, Exception):
            raise said
        return said


def test_ways_are_what_the_cluster_tells_beside_what_is_usual() -> None:
    usual = Ways()
    slices = {"items": [{"ports": [{"name": "https", "port": 16443}]}, {"ports": None}]}
    told = ways_in(Known(slices, {"spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"]}}))
    assert (told.api_ports, told.resolvers) == ((443, 6443, 8443, 16443), (*usual.resolvers, "10.96.0.10", "fd00::a"))
    told = ways_in(Known(CapabilityError("the cluster forbids it"), MissingError("there is no kube-dns")))
    assert (told.api_ports, told.resolvers) == ((443, 6443, 7443, 8443), usual.resolvers), "then the port at which it is reached from here"


def test_a_keeper_speaks_to_agents_of_its_own_image_whose_objects_are_no_other_ones() -> None:
    *_, keeper = environment_objects(HERE, Path("/somewhere/shop-main-abc"), "envctl:1")
    (spoken_to,) = [each["value"] for each in keeper["spec"]["template"]["spec"]["containers"][0]["env"] if each["name"] == AGENT_OF]
    mine, others = agent_objects("envctl:1"), agent_objects("envctl:2")
    (daemons,) = [thing for thing in mine if thing["kind"] == "DaemonSet"]
    pods = daemons["spec"]["template"]["metadata"]["labels"]
    assert selector(spoken_to) == ",".join(f"{name}={value}" for name, value in pods.items())
    assert daemons["spec"]["selector"]["matchLabels"] == pods
    shared = {thing["metadata"]["name"] for thing in mine} & {thing["metadata"]["name"] for thing in others}
    assert shared == {AGENTS}
