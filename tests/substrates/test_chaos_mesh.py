"""Faults by Chaos Mesh's objects, with its own definitions of them in the cluster; who acts on them is a stand-in for its controller.

(Its loss needs the kernel's netem, which machines for tests may lack.)
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from cluster.cluster import Cluster
from grounds import Ground

from envctl.errors import CapabilityError, ResourceError
from envctl.faults import links
from envctl.faults.base import World
from envctl.faults.node_kill import NodeKill
from envctl.faults.packet_loss import PacketLoss
from envctl.model.topology import Topology
from envctl.substrates.kubernetes import chaos_mesh
from envctl.substrates.kubernetes.api import api, context, path_of
from envctl.substrates.kubernetes.identity import NODE, Identity
from envctl.toolchain import cache_dir, pulumi_cli
from envctl.toolchain.client import run

pytestmark = pytest.mark.kubernetes
MODULE = "github.com/chaos-mesh/chaos-mesh@v0.9.1-0.20260902003049-47411975a8cb"
SLEEP = ("sleep", "300")
FINALIZER = "chaos-mesh/records"


@pytest.fixture
def asked_for(in_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(chaos_mesh.SETTING, "1")
    tool = SimpleNamespace(programs={"nft": "nft"}, env={})
    monkeypatch.setattr(links, "find", lambda _: tool)  # what there is beside the nodes, not here


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """As the project publishes them."""
    place = tmp_path_factory.mktemp("chaos-mesh")
    go, env = pulumi_cli._go(place / "go", print)
    env |= {"GOMODCACHE": str(cache_dir() / "tests" / "chaos-mesh"), "GOFLAGS": "-modcacherw"}
    said = run([go, "mod", "download", "-json", MODULE], cwd=place, env=env)
    bases = Path(json.loads(said[said.index("{"):])["Dir"]) / "config" / "crd" / "bases"
    return [bases / f"chaos-mesh.org_{kind.lower()}.yaml" for kind in chaos_mesh.KINDS]


@pytest.fixture(scope="module")
def installed(cluster: Cluster, definitions: list[Path]) -> Iterator[None]:
    files = [f"--filename={file}" for file in definitions]
    cluster.kubectl("apply", "--server-side", *files)
    cluster.kubectl("wait", "--for=condition=Established", *files, "--timeout=30s")
    yield
    cluster.kubectl("delete", *files, "--timeout=60s")


def test_where_there_is_none_an_environment_that_is_to_use_it_is_refused(asked_for: None, kubernetes_ground: Ground) -> None:
    with pytest.raises(CapabilityError, match="the cluster has no Chaos Mesh") as caught:
        kubernetes_ground.make()
    assert chaos_mesh.SETTING in caught.value.hint


def test_its_api_takes_what_is_sent_and_nothing_else(asked_for: None, installed: None) -> None:
    here, cluster = Identity("shop", "machine:/shop"), api(context())
    things = [chaos_mesh.loss(here, "b-0", ["a-0-x", "a-1-x"], "b-0-x", 0.2), chaos_mesh.kill(here, "b-0", "b-0-x")]
    for thing in things:
        thing["metadata"]["namespace"] = "default"
        path, query = path_of(thing["kind"], "", "default"), [("dryRun", "All"), ("fieldValidation", "Strict")]
        assert cluster.ask("POST", path, thing, query=query)["spec"].items() >= thing["spec"].items()
        for field, wrong in (("action", "tickle"), ("selector", None), ("unheard", "of")):
            with pytest.raises(ResourceError, match=field):
                cluster.ask("POST", path, {**thing, "spec": {**thing["spec"], field: wrong}}, query=query)


def test_one_that_does_nothing_is_found_out(asked_for: None, installed: None, kubernetes_ground: Ground, cluster: Cluster, tmp_path: Path) -> None:
    reach, fault = _loss(kubernetes_ground, tmp_path)
    with pytest.raises(ResourceError, match=r"Chaos Mesh has not done what NetworkChaos envctl-.* says within 20 s"):
        fault.apply(8)
    assert cluster.get("networkchaos", "-n", reach.identity.namespace)["items"] == []
    fault.heal()
    assert fault.absent().shown


def test_what_it_does_is_measured_and_ends_by_healing_or_with_the_lease(
    asked_for: None, installed: None, kubernetes_ground: Ground, cluster: Cluster, tmp_path: Path,
) -> None:
    reach, fault = _loss(kubernetes_ground, tmp_path)
    with Controller(cluster, reach):
        fault.apply(8)
        fault.apply(20)
        (thing,) = cluster.get("networkchaos", "-n", reach.identity.namespace)["items"]
        assert [pod[:4] for pod in thing["spec"]["target"]["selector"]["pods"][reach.identity.namespace]] == ["b-0-"]
        effect = fault.verify()
        assert effect.shown, effect
        assert 0.2 < effect.detail["probes_lost"] / effect.detail["probes_sent"] < 0.4
        fault.heal()
        fault.heal()
        assert fault.absent().shown
        fault.apply(2)
        kubernetes_ground.until(lambda: cluster.get("networkchaos", "-n", reach.identity.namespace)["items"] == [], "the lease is over", within_s=30)
        assert not fault.verify().shown
        kill = NodeKill.build({"target": "b"}, _world(reach, tmp_path))
        kill.probe()
        kill.apply(10)
        assert (kill.verify().shown, kill.verify().summary) == (True, "exit 137, restarted")
        assert cluster.get("podchaos", "-n", reach.identity.namespace)["items"] == []


def _world(reach: Any, place: Path) -> World:
    return World(reach, Topology("t", Path("t.yaml"), ("a",), {}), Random(1), place / "fault")


def _loss(ground: Ground, place: Path) -> tuple[Any, PacketLoss]:
    reach, realiser = ground.make()
    for node in ("a-0", "b-0", "c-0"):
        realiser.start_node(ground.node(node, *SLEEP), ready_timeout_s=60)
    fault = PacketLoss.build({"from": "a", "to": "b", "loss": "30 %"}, _world(reach, place))
    fault.probe()
    return reach, fault


class Controller:
    """Does what the objects of one environment say, and takes it back when they are deleted, as theirs does."""

    def __init__(self, cluster: Cluster, reach: Any) -> None:
        self._cluster, self._reach, self._space = cluster, reach, reach.identity.namespace
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for kind in ("networkchaos", "podchaos"):
                for thing in self._cluster.get(kind, "-n", self._space)["items"]:
                    self._see(kind, thing)
            time.sleep(0.1)

    def _see(self, kind: str, thing: dict[str, Any]) -> None:
        mine = FINALIZER in thing["metadata"].get("finalizers", ())
        if "deletionTimestamp" in thing["metadata"]:
            if mine:
                self._act(thing, "delete table inet theirs\n") if kind == "networkchaos" else None
                self._patch(kind, thing, {"metadata": {"finalizers": None}})
        elif not mine:
            self._patch(kind, thing, {"metadata": {"finalizers": [FINALIZER]}})
            if kind == "networkchaos":
                self._act(thing, self._rules(thing))
            else:
                (pod,) = thing["spec"]["selector"]["pods"][self._space]
                self._cluster.kubectl("delete", "pod", pod, "-n", self._space, "--grace-period=0", "--force")
            self._patch(kind, thing, {"status": {"experiment": {}, "conditions": [{"type": "AllInjected", "status": "True"}]}})

    def _rules(self, thing: dict[str, Any]) -> str:
        pods = thing["spec"]["selector"]["pods"][self._space]
        addresses = ", ".join(self._cluster.get("pod", pod, "-n", self._space)["status"]["podIP"] for pod in pods)
        return (f"table inet theirs {{ chain c {{ type filter hook input priority 0; ip saddr {{ {addresses} }} "
                f"numgen random mod 100 < {thing['spec']['loss']['loss']} drop; }}; }}\n")

    def _act(self, thing: dict[str, Any], script: str) -> None:
        assert self._reach.run(thing["metadata"]["labels"][NODE], ["nft", "-f", "-"], where="netns", stdin=script).status == 0

    def _patch(self, kind: str, thing: dict[str, Any], change: dict[str, Any]) -> None:
        with contextlib.suppress(ResourceError):
            self._cluster.kubectl("patch", kind, thing["metadata"]["name"], "-n", self._space, "--type=merge", "-p", json.dumps(change))
