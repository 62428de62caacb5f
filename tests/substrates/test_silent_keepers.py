"""A keeper that does not answer is made anew only where the cluster says that it can't come, and nothing is lost by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from envctl.errors import ResourceError
from envctl.substrates.kubernetes import arrival, realiser
from envctl.substrates.kubernetes.realiser import PodRealiser

CRASHED: dict[str, Any] = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 1}}}
ITS_POD: dict[str, Any] = {"emptyDir": {}}
CLAIMED: dict[str, Any] = {"persistentVolumeClaim": {"claimName": "keeper"}}


class OnePod:
    """An API of an environment whose keeper has this pod; nothing can be changed by it."""

    def __init__(self, *, ready: bool = False, volume: dict[str, Any] | None = None, **container: Any) -> None:
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"phase": "Running", "conditions": conditions, "containerStatuses": [{"name": "keeper", **container}]}
        self._pod = {
            "metadata": {"name": "keeper-x", "namespace": "shop", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n", "volumes": [{"name": "kept", **(volume or CLAIMED)}]}, "status": status,
        }

    def get(self, _kind: str, _name: str, _namespace: str = "") -> dict[str, Any]:
        return {"status": {"phase": "Active"}}

    def find(self, kind: str, _namespace: str = "", _labels: str = "") -> list[dict[str, Any]]:
        return [self._pod] if kind == "Pod" else []

    def words(self, *_: object, **__: object) -> list[str]:
        return ["Traceback"]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PodRealiser:
    """An environment whose keeper does not answer, and is not waited for."""
    monkeypatch.setattr(arrival, "_SILENT_S", -1.0)
    monkeypatch.setattr(realiser.clusters, "remember", lambda _: "here")
    one = PodRealiser(tmp_path / "envs" / "shop-main-1")
    monkeypatch.setattr(one.reach, "is_alive", lambda: False)
    return one


@pytest.mark.parametrize(("ready", "why"), [
    (True, "shop-main-1 could not be made: its pod is ready, but its keeper does not answer after 0 s\n  Traceback"), (False, "made: its keeper does not answer"),
])
def test_a_keeper_that_may_live_is_left_as_it_is(made: PodRealiser, monkeypatch: pytest.MonkeyPatch, ready: bool, why: str) -> None:
    monkeypatch.setattr(realiser, "api", lambda _: OnePod(ready=ready, state={"running": {}}))
    with pytest.raises(ResourceError, match=why) as told:
        made.create_environment("shop-main-1", ttl_s=60, labels={})
    assert "waits for it again; `envctl down shop-main-1`" in told.value.hint


def test_a_keeper_that_ends_again_and_again_is_made_anew_where_its_files_are_on_a_volume(made: PodRealiser) -> None:
    assert made._keeper(OnePod(**CRASHED)) == "stuck"


def test_a_keeper_that_ends_again_and_again_is_left_as_it_is_where_its_files_would_end_with_its_pod(made: PodRealiser) -> None:
    with pytest.raises(ResourceError, match="keeper ends again and again\n  Traceback") as told:
        made._keeper(OnePod(volume=ITS_POD, **CRASHED))
    assert "`envctl down shop-main-1` gives them up" in told.value.hint


def test_a_keeper_whose_image_can_not_be_had_has_no_files_to_lose(made: PodRealiser) -> None:
    assert made._keeper(OnePod(volume=ITS_POD, state={"waiting": {"reason": "ImagePullBackOff"}})) == "stuck"
