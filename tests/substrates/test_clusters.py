"""What this machine remembers of the clusters that it has used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envctl.errors import CapabilityError
from envctl.substrates.kubernetes import Kubernetes, clusters
from envctl.substrates.kubernetes.realiser import PodRealiser


def kubeconfig(path: Path, *contexts: str) -> None:
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": contexts[0], "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u"}} for name in contexts],
    }))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path))
    monkeypatch.delenv("ENVCTL_KUBERNETES_CONTEXT", raising=False)
    kubeconfig(tmp_path / "kubeconfig", "mine", "theirs")
    return tmp_path / "envs" / "shop-main-1"


def test_an_environment_stays_in_the_context_in_which_it_was_made(directory: Path) -> None:
    assert clusters.remember(directory) == "mine"
    kubeconfig(directory.parents[1] / "kubeconfig", "theirs", "mine")
    assert clusters.remember(directory) == clusters.context_of(directory) == "mine"
    assert clusters.used(directory.parents[1]) == clusters.used(directory.parents[1], directory.name) == {"mine"}
    assert clusters.used(directory.parents[1], "another") == set()
    clusters.forget(directory)
    assert clusters.context_of(directory) == "theirs"


def test_who_means_one_environment_reads_no_other_ones_note(directory: Path) -> None:
    clusters.remember(directory)
    clusters.note_of(directory).with_name("another").write_text("not to be read")
    assert clusters.used(directory.parents[1], directory.name) == {"mine"}
    assert not clusters.is_lost(directory)


def test_volumes_are_remembered_over_attempts_to_end(directory: Path) -> None:
    assert clusters.volumes_of(directory) is None
    clusters.remember(directory)
    assert clusters.volumes_of(directory) is None
    clusters.remember_volumes(directory, ["b"])
    clusters.remember_volumes(directory, ["a"])
    clusters.remember_volumes(directory, [])
    assert clusters.volumes_of(directory) == ("a", "b")
    assert clusters.context_of(directory) == "mine"


def test_an_environment_whose_context_has_gone_is_told_and_only_forgotten_by_hand(directory: Path) -> None:
    clusters.remember(directory)
    kubeconfig(directory.parents[1] / "kubeconfig", "theirs")
    (found,) = Kubernetes.environments()
    assert (found.directory, found.alive, found.unknown) == (directory, False, "there is no context mine any more")
    with pytest.raises(CapabilityError, match="can't be told") as refused:
        PodRealiser(directory).end_environment()
    Path(refused.value.hint.split("`")[1].removeprefix("rm ")).unlink()
    assert Kubernetes.census(directory) == ()
    assert Kubernetes.environments() == ()
