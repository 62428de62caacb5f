"""When the agents of a cluster come and go, by an API that has only objects, and may refuse them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from envctl.errors import CapabilityError, ResourceError
from envctl.substrates.kubernetes import agents, realiser
from envctl.substrates.kubernetes.agents import end_unused, ensure_agents, name_of
from envctl.substrates.kubernetes.api import ChangedError, MissingError
from envctl.substrates.kubernetes.identity import AGENT, AGENTS, ENV, EXPIRES, NEXT_AGENT, agent_of
from envctl.substrates.kubernetes.keeper import tell
from envctl.substrates.kubernetes.realiser import PodRealiser

Object = dict[str, Any]
BLOCKED = "Discovery failed for some groups: metrics.k8s.io/v1beta1"


class Objects:
    """An API that keeps what it is given, and makes nothing in a namespace that ends."""

    def __init__(self) -> None:
        self.things: dict[tuple[str, str], Object] = {}
        self.refused: Callable[[str, str], bool] = lambda _kind, _name: False

    def put(self, kind: str, name: str, **labels: str) -> None:
        self.things[kind, name] = {
            "apiVersion": "v1", "kind": kind, "metadata": {"name": name, "uid": name, "resourceVersion": "1", "labels": labels}, "status": {"phase": "Active"},
        }

    def get(self, kind: str, name: str, _namespace: str = "") -> Object:
        self._may(kind, name)
        try:
            return self.things[kind, name]
        except KeyError:
            raise MissingError(f"{kind} {name} not found") from None

    def find(self, kind: str, _namespace: str = "", labels: str = "", *, most: int = 0) -> list[Object]:
        self._may(kind, "")
        wanted = [part.partition("=") for part in labels.split(",")]
        found = [thing for (its, _), thing in self.things.items() if its == kind and all(
            name in thing["metadata"]["labels"] and (not sign or thing["metadata"]["labels"][name] == value) for name, sign, value in wanted)]
        return found[:most or None]

    def apply(self, thing: Object, *, only_try: bool = False) -> Object:
        name = thing["metadata"]["name"]
        self._may(thing["kind"], name)
        if self._ends(thing["metadata"].get("namespace", name)):
            raise ResourceError("it is being terminated")
        if not only_try:
            self.put(thing["kind"], name, **thing["metadata"].get("labels", {}))
        return {"status": {"phase": "Active"}, **thing, "metadata": {"uid": name, **thing["metadata"]}}

    def merge(self, path: str, change: Object) -> None:
        told, new = self.things["Namespace", path.rpartition("/")[2]]["metadata"], change["metadata"]
        if new.get("resourceVersion", told["resourceVersion"]) != told["resourceVersion"]:
            raise ChangedError("it has been changed")
        told["resourceVersion"] += "+"
        for kind in ("labels", "annotations"):
            told[kind] = {name: value for name, value in (told.get(kind, {}) | new.get(kind, {})).items() if value is not None}

    def ask(self, _method: str, path: str) -> Object:
        return self.get("Namespace", path.rpartition("/")[2])

    def delete_unchanged(self, kind: str, thing: Object) -> bool:
        self._may(kind, name := thing["metadata"]["name"])
        return self.things.pop((kind, name), None) is not None

    def end(self, namespace: str) -> None:
        """Begins its end, which something blocks."""
        why = [{"type": "NamespaceDeletionDiscoveryFailure", "status": "True", "message": BLOCKED}]
        self.things["Namespace", namespace]["status"] = {"phase": "Terminating", "conditions": why}

    def _ends(self, namespace: str) -> bool:
        return bool(self.things.get(("Namespace", namespace), {"status": {}})["status"].get("phase") == "Terminating")

    def _may(self, kind: str, name: str) -> None:
        if self.refused(kind, name):
            raise CapabilityError(f"the cluster forbids it: {kind} {name}")


@pytest.fixture
def cluster() -> Objects:
    return Objects()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "_END_S", 0.0)


def test_agents_that_do_not_end_are_told_with_what_blocks_them(cluster: Objects, impatient: None) -> None:
    cluster.put("Namespace", AGENTS)
    cluster.end(AGENTS)
    with pytest.raises(ResourceError, match=f"{AGENTS}; {BLOCKED}"):
        ensure_agents(cluster, "envctl:1")


def test_agents_whose_end_begins_again_and_again_are_not_tried_for_ever(cluster: Objects, impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    told: Iterator[bool] = iter((False, True) * 10)  # no longer before each attempt, and again after it
    monkeypatch.setattr(agents, "ends", lambda _: next(told))
    cluster.put("Namespace", AGENTS)
    cluster.end(AGENTS)
    with pytest.raises(ResourceError, match="being terminated"):
        ensure_agents(cluster, "envctl:1")


def test_agents_that_end_are_waited_for_while_other_environments_are_made(
    cluster: Objects, impatient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = PodRealiser(tmp_path / "envs" / "shop-main-1")
    made.directory.parent.mkdir()
    monkeypatch.setattr(realiser, "own_image", lambda _: "envctl:1")
    cluster.put("Namespace", AGENTS)
    cluster.end(AGENTS)
    looked: list[str] = []

    def free(kind: str, name: str) -> bool:
        if name == AGENTS:
            environments = os.open(made.directory.parent, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(environments, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(environments)
            looked.append(kind)
        return False

    cluster.refused = free
    with pytest.raises(ResourceError, match=BLOCKED):
        made._make(cluster, "here", anew=False)
    assert looked


def test_an_agent_that_ends_itself_as_the_last_takes_their_namespace_away_with_the_rights_that_it_has(cluster: Objects) -> None:
    ensure_agents(cluster, "envctl:1")
    mine = agent_of("envctl:1")
    cluster.refused = lambda *_: ("ClusterRole", name_of(mine)) not in cluster.things
    assert end_unused(cluster, mine)
    assert ("Namespace", AGENTS) not in cluster.things, "which owns all else"


def test_agents_without_an_environment_go_alone_where_another_version_has_one(cluster: Objects) -> None:
    for image in ("envctl:1", "envctl:2"):
        ensure_agents(cluster, image)
    cluster.put("Namespace", "shop", **{ENV: "shop", AGENT: agent_of("envctl:2")})
    assert not end_unused(cluster, agent_of("envctl:1"))
    assert [name for kind, name in cluster.things if kind == "ClusterRole"] == [name_of(agent_of("envctl:2"))]
    assert ("Namespace", AGENTS) in cluster.things


@pytest.fixture
def made(cluster: Objects, tmp_path: Path) -> PodRealiser:
    """An environment whose keeper is of the first version."""
    one = PodRealiser(tmp_path / "envs" / "shop-main-1")
    one.directory.parent.mkdir()
    cluster.put("Namespace", one.identity.namespace, **{ENV: one.identity.env_id})
    ensure_agents(cluster, "envctl:1")
    tell(cluster, one.identity.namespace, 1, agent_of("envctl:1"))
    return one


def versions(cluster: Objects) -> set[str]:
    """Of which the agents are used, and there."""
    end_unused(cluster)
    return {image for image in ("envctl:1", "envctl:2", "envctl:3") if ("ClusterRole", name_of(agent_of(image))) in cluster.things}


def test_a_keeper_has_its_agents_until_the_one_of_the_next_version_is_there(cluster: Objects, made: PodRealiser) -> None:
    made._keep_agents(cluster, "envctl:2")
    assert versions(cluster) == {"envctl:1", "envctl:2"}, "whatever becomes of the update"
    tell(cluster, made.identity.namespace, 2, agent_of("envctl:1"))
    assert versions(cluster) == {"envctl:1", "envctl:2"}, "the first one was only started anew"
    tell(cluster, made.identity.namespace, 3, agent_of("envctl:2"))
    assert versions(cluster) == {"envctl:2"}
    assert cluster.get("Namespace", made.identity.namespace)["metadata"]["annotations"][EXPIRES] == "3"
    assert agents.uses(cluster.get("Namespace", made.identity.namespace), agent_of("envctl:2"))
    assert not agents.uses(cluster.get("Namespace", made.identity.namespace), agent_of("envctl:1"))


def test_an_update_that_came_to_nothing_leaves_no_agents_once_the_first_version_updates_again(cluster: Objects, made: PodRealiser) -> None:
    made._keep_agents(cluster, "envctl:2")
    made._keep_agents(cluster, "envctl:1")
    assert versions(cluster) == {"envctl:1"}


def test_agents_that_could_not_be_had_are_asked_for_by_the_next_update(cluster: Objects, made: PodRealiser) -> None:
    cluster.refused = lambda kind, _: kind == "DaemonSet"
    with pytest.raises(CapabilityError):
        made._keep_agents(cluster, "envctl:2")
    cluster.refused = lambda *_: False
    made._keep_agents(cluster, "envctl:2")
    assert ("DaemonSet", name_of(agent_of("envctl:2"))) in cluster.things


def test_a_keeper_takes_back_nothing_that_is_said_meanwhile(cluster: Objects, made: PodRealiser, monkeypatch: pytest.MonkeyPatch) -> None:
    space = made.identity.namespace
    made._keep_agents(cluster, "envctl:2")
    get = cluster.get

    def overtaken(kind: str, name: str) -> Object:
        found = get(kind, name)
        told = {**found, "metadata": {**found["metadata"]}}
        cluster.merge(f"namespaces/{space}", {"metadata": {"labels": {NEXT_AGENT: agent_of("envctl:3")}}})
        return told

    with monkeypatch.context() as patched:
        patched.setattr(cluster, "get", overtaken)
        with pytest.raises(ChangedError):
            tell(cluster, space, 3, agent_of("envctl:2"))
    assert get("Namespace", space)["metadata"]["labels"][NEXT_AGENT] == agent_of("envctl:3")
