"""How the bench of many environments fills a cluster, and that it never waits without end."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.fixture import cluster  # noqa: F401

from bench import scale_copy, scale_cost, scale_site
from envctl.substrates.kubernetes.api import api

UID = "11111111-2222-3333-4444-555555555555"


def test_a_copy_refers_to_itself_only() -> None:
    model, words = [b"scale-0000", b"0123456789ab"], [b"scale-0007", b"ba9876543210"]
    claim = (b"/registry/persistentvolumeclaims/scale-0000-0123456789ab/keeper", f"uid {UID} volume pvc-{UID} of scale-0000".encode())
    volume = (f"/registry/persistentvolumes/pvc-{UID}".encode(), f"claim scale-0000-0123456789ab/keeper {UID}".encode())
    (place, bound), (name, claimed) = (scale_copy._copied(pair, model, words, 7) for pair in (claim, volume))
    assert place == b"/registry/persistentvolumeclaims/scale-0007-ba9876543210/keeper"
    (uid,) = set(scale_copy._UID.findall(bound))
    assert uid != UID.encode()
    assert name == b"/registry/persistentvolumes/pvc-" + uid
    assert claimed == b"claim scale-0007-ba9876543210/keeper " + uid
    assert len(bound) == len(claim[1]), "protocol buffers say how long each text is"


def test_a_copy_whose_name_is_longer_is_refused() -> None:
    with pytest.raises(ValueError, match="not as long"):
        scale_copy._copied((b"/registry/namespaces/scale-0000", b""), [b"scale-0000"], [b"scale-10000"], 1)


def test_work_that_does_not_end_is_killed_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = tmp_path / "hangs"
    hangs.write_text("#!/bin/sh\nsleep 600\n")
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(scale_cost, "WORK_S", 0.2)
    with pytest.raises(RuntimeError, match=r"one_more some was still at work after 0\.2 s, and was killed"):
        scale_cost.watched("one_more", "some")


@pytest.mark.kubernetes
def test_a_cluster_that_does_not_settle_is_told_with_the_clusters_reason(cluster, own_api, monkeypatch) -> None:  # noqa: F811
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(scale_site, "SETTLED_S", 3.0)
    monkeypatch.setattr(scale_site, "pods_each", lambda: 500)
    container = {"name": "main", "image": "localhost/busybox:1"}
    nowhere = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "nowhere"}, "spec": {"containers": [container], "nodeSelector": {"no": "such"}}}
    cluster.apply(nowhere)
    try:
        with pytest.raises(RuntimeError, match=re.compile("500 should be.*default/nowhere is pending: .*node affinity", re.DOTALL)):
            scale_site.Site(cluster, Path(), ["one"]).settle()
    finally:
        cluster.kubectl("delete", "pod", "nowhere", "--now")


@pytest.mark.kubernetes
@pytest.mark.slow
def test_what_is_copied_is_neither_lost_nor_replaced(own_api) -> None:
    with scale_site.site() as place:
        place.fill(4)
        pods, claims = (place.api.find(kind) for kind in ("Pod", "PersistentVolumeClaim"))
        of = {space: sorted(names(space, pods) + names(space, claims)) for space in {each["metadata"]["namespace"] for each in claims}}
        assert len(of) == 4
        assert len({*map(tuple, of.values())}) == 1, "names that controllers gave are those of the one that was copied"
        assert {each["status"]["phase"] for each in claims} == {"Bound"}


def names(space: str, things: list[dict[str, Any]]) -> list[str]:
    return [each["metadata"]["name"] for each in things if each["metadata"]["namespace"] == space]


@pytest.fixture
def own_api() -> Iterator[None]:
    """Whoever asks meets the cluster of now: one process keeps one connection for each context."""
    api.cache_clear()
    yield
    api.cache_clear()
