"""An environment whose keeper can't come says so with the object and the reason, and the same command makes it once it can.

Each reason is told as soon as it is known: a keeper of which nothing is said would be waited for in vain ("does not answer after …").
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cluster.cluster import Cluster
from cluster.plugin import Plugin
from grounds import IMAGE, Ground

from envctl.errors import ResourceError
from envctl.stack import engine
from envctl.stack.state import State
from envctl.stack_provider.provider import EnvctlProvider
from envctl.substrates.kubernetes import Kubernetes, realiser
from envctl.substrates.kubernetes.identity import AGENTS
from envctl.substrates.kubernetes.reach import PodReach
from envctl.substrates.kubernetes.realiser import QUOTA_SETTING, STORAGE_SETTING
from envctl.toolchain import find

pytestmark = pytest.mark.kubernetes


@pytest.fixture
def pulumi() -> Path:
    return find("pulumi").programs["pulumi"]  # before the cluster's fixtures set a cache of their own


@pytest.fixture
def ground(pulumi: Path, kubernetes_ground: Ground) -> Ground:
    return kubernetes_ground


def again(ground: Ground) -> Any:
    """The same environment is brought up once more."""
    made: Any = ground.made[-1]
    made.create_environment(made.directory.name, ttl_s=60, labels={})
    return Kubernetes.attach(made.directory)


def test_a_quota_that_allows_no_pod_is_told_and_the_keeper_comes_once_it_does(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUOTA_SETTING, "pods=0")
    with pytest.raises(ResourceError, match=r"could not be made: Deployment keeper: FailedCreate: .*exceeded quota: limits.*pods=0") as told:
        ground.make()
    assert "tries again" in told.value.hint
    monkeypatch.delenv(QUOTA_SETTING)
    assert again(ground).is_alive(), "at once, not when the cluster's controllers next try the old one"


def test_a_storage_class_that_is_not_there_is_told_and_another_can_be_named_then(ground: Ground, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STORAGE_SETTING, "nowhere")
    with pytest.raises(ResourceError, match=r"volume claim keeper: ProvisioningFailed: .*nowhere"):
        ground.make()
    monkeypatch.delenv(STORAGE_SETTING)
    assert claims(cluster, again(ground)) == ["standard"]


@pytest.mark.parametrize(("image", "why"), [
    ("no-such-image:1", r"pod keeper-.*: (ErrImagePull|ImagePullBackOff): .*no-such-image"),
    (IMAGE, r"(?s)pod keeper-.*: CrashLoopBackOff: its container keeper ends again and again.*\n  .*No module named 'envctl'"),
])
def test_an_image_that_can_not_be_had_or_does_not_live_is_told(ground: Ground, monkeypatch: pytest.MonkeyPatch, image: str, why: str) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(realiser, "own_image", lambda _: image)
        patched.setattr(realiser, "ensure_agents", lambda *_: None)  # which others use
        with pytest.raises(ResourceError, match=why):
            ground.make()
    assert again(ground).is_alive()


def test_a_living_keeper_that_can_not_be_reached_is_left_as_it_is(ground: Ground, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    reach, made = ground.make()
    before = cluster.get("deployment", "keeper", "-n", reach.identity.namespace)["metadata"]["uid"]

    def unreachable(_: object) -> NoReturn:
        raise ConnectionRefusedError("the way is cut")

    with monkeypatch.context() as patched:
        patched.setattr("envctl.substrates.kubernetes.reach._BACK_S", 0.0)
        patched.setattr("envctl.substrates.kubernetes.arrival._SILENT_S", 0.0)
        patched.setattr(PodReach, "_dialled", unreachable)
        with pytest.raises(ResourceError, match="its pod is ready, but its keeper does not answer"):
            made.create_environment(made.directory.name, ttl_s=60, labels={})
    assert cluster.get("deployment", "keeper", "-n", reach.identity.namespace)["metadata"]["uid"] == before
    assert again(ground).is_alive()


def test_a_cluster_without_room_is_told(ground: Ground, cluster: Cluster) -> None:
    with cordoned(cluster), pytest.raises(ResourceError, match=r"pod keeper-.* finds no node: .*unschedulable"):
        ground.make()


@contextmanager
def cordoned(cluster: Cluster) -> Iterator[None]:
    (machine,) = cluster.get("nodes")["items"]
    cluster.kubectl("cordon", machine["metadata"]["name"])
    try:
        yield
    finally:
        cluster.kubectl("uncordon", machine["metadata"]["name"])


def test_a_cluster_that_lets_no_agent_in_is_told(ground: Ground, cluster: Cluster) -> None:
    cluster.kubectl("delete", "namespace", AGENTS, "--ignore-not-found", "--timeout=60s", timeout_s=70)
    forbidden = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": AGENTS}})
    try:
        cluster.apply(forbidden, namespace=AGENTS)
        with pytest.raises(ResourceError, match=r"DaemonSet envctl-agent-[0-9a-z]+: FailedCreate: .*exceeded quota: none"):
            ground.make()
    finally:
        cluster.kubectl("delete", "namespace", AGENTS, "--ignore-not-found", "--timeout=60s", timeout_s=70)


def test_nobody_waits_while_an_image_is_built_also_where_the_environment_lives(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    built, own_image = [], realiser.own_image

    def building(context: str) -> str:
        environments = os.open(Path(os.environ["ENVCTL_CACHE"]) / "envs", os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(environments, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as another environment's command does
        os.close(environments)
        built.append(context)
        return own_image(context)

    monkeypatch.setattr(realiser, "own_image", building)
    ground.make()
    again(ground)
    assert len(built) == 2, "an update may bring another version's keeper, and with it agents"


@pytest.mark.parametrize(("first", "later", "kept"), [("none", "standard", []), ("standard", "none", ["standard"]), ("", "none", ["standard"])])
def test_where_the_keepers_files_are_stays_as_it_was_chosen(
    ground: Ground, cluster: Cluster, kubernetes_plugin: Plugin, pulumi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str, later: str, kept: list[str],
) -> None:
    monkeypatch.setenv("PATH", kubernetes_plugin.environment["PATH"])
    (tmp_path / "Pulumi.yaml").write_text("name: kept\nruntime: python\n")
    made = tmp_path / "made"
    for setting in (first, later):
        monkeypatch.setenv(STORAGE_SETTING, setting)
        reach = again(ground) if ground.made else ground.make()[0]
        engine.update(
            pulumi, State(tmp_path / "state", "kept", reach.identity.env_id), EnvctlProvider(),
            lambda: Kubernetes.declarer(reach.directory).environment() and None,  # noqa: B023 - it is called here
            cwd=tmp_path, cache=tmp_path / "cache",
        )
        assert claims(cluster, reach) == kept
        if setting == first:
            made.write_text("before")
            reach.show(made)
        found = tmp_path / f"found-{setting}"
        reach.fetch(made, found)
        assert found.read_text() == "before", "the keeper has not been replaced"


def claims(cluster: Cluster, reach: Any) -> list[str]:
    return [each["spec"]["storageClassName"] for each in cluster.get("pvc", "-n", reach.identity.namespace)["items"]]
