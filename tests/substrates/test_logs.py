"""What a container says comes once, whatever breaks on the way."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

import pytest
from cluster import build
from cluster.cluster import Cluster
from grounds import Ground
from hypothesis import given
from hypothesis import strategies as st
from way import Way

from envctl.substrates.kubernetes.api import Api, api
from envctl.substrates.kubernetes.logs import Words, followed
from envctl.substrates.kubernetes.pods import is_previous

BEGUN = datetime(2026, 10, 25, 0, 59, 58, tzinfo=UTC)
STEP = st.sampled_from((0, 0, 7, 400, 1100))  # milliseconds between two lines
Line = tuple[datetime, bytes]


def stamped(lines: list[Line], zone_h: int) -> bytes:
    zone = f"{zone_h:+03}:00" if zone_h else "Z"
    return b"".join((at + timedelta(hours=zone_h)).strftime(f"%Y-%m-%dT%H:%M:%S.%f000{zone} ").encode() + text + b"\n" for at, text in lines)


@given(st.lists(st.tuples(STEP, st.sampled_from((b"a", b"b", b"")))), st.lists(st.integers(0, 200), max_size=6), st.integers(0, 8), st.integers(-3, 3))
def test_streams_that_break_anywhere_give_each_line_once(said: list[tuple[int, bytes]], breaks: list[int], rotated: int, zone_h: int) -> None:
    times = accumulate((step for step, _ in said), initial=0)
    apart = 1 if rotated else 0  # two that are the same in all are told apart by their number only
    lines = [(BEGUN + timedelta(milliseconds=ms, microseconds=number * apart), text) for number, (ms, (_, text)) in enumerate(zip(times, said, strict=False))]
    words, kept, gone = Words(), b"", 0
    for broken in (*breaks, None):
        words.begin()
        there = [line for line in lines[gone:] if words.since is None or line[0].replace(microsecond=0) >= words.since]
        stream = stamped(there, zone_h)[:broken]
        for start in range(0, len(stream), 11):
            kept += words.new(stream[start:start + 11])
        gone = min(rotated, kept.count(b"\n"))  # a file that was full has been put away: what came before is not told again
    assert kept == b"".join(text + b"\n" for _, text in lines)
    assert words.rest() == b""


def test_a_last_line_without_an_end_is_kept_and_words_of_the_kubelets_are_not() -> None:
    words = Words()
    words.begin()
    assert words.new(b"unable to retrieve container logs for containerd://1\n2026-10-25T00:59:58.000000001Z hel") == b""
    words.begin()
    assert words.new(b"2026-10-25T00:59:58.000000001Z hello") == b""
    assert words.rest() == b"hello"


class Followed:
    """A container's words as they come, on a thread."""

    def __init__(self, cluster: Api, pod: Any, has_ended: Callable[[], bool]) -> None:
        container = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
        self._words = followed(cluster, pod["metadata"]["namespace"], pod["metadata"]["name"], container, has_ended)
        self.kept = b""
        self.thread = threading.Thread(target=self._keep, daemon=True)
        self.thread.start()

    def _keep(self) -> None:
        for data in self._words:
            self.kept += data

    @property
    def numbers(self) -> list[int]:
        return [int(line) for line in self.kept.splitlines()]


class Says:
    """A pod of one container, which says something."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.space = f"t-{uuid.uuid4().hex[:8]}"
        cluster.kubectl("create", "namespace", self.space)

    def start(self, script: str) -> Any:
        """Its pod, once it runs."""
        container = {"name": "main", "image": build.BUSYBOX, "command": ["sh", "-c", script]}  # by the name that it has in nodes
        spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
        self._cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "says"}, "spec": spec}, namespace=self.space)
        Ground.until(lambda: self.status.get("state", {}).get("running"), "it runs", within_s=60)
        return self._cluster.get("pod", "says", "-n", self.space)

    @property
    def status(self) -> Any:
        return (self._cluster.get("pod", "says", "-n", self.space)["status"].get("containerStatuses") or [{}])[0]


@pytest.fixture
def says(cluster: Cluster) -> Iterator[Says]:
    made = Says(cluster)
    yield made
    cluster.kubectl("delete", "namespace", made.space, "--wait=false")


COUNTS = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; test -e /tmp/end && exit 3; sleep 0.02; done"


@pytest.mark.kubernetes
def test_a_log_whose_streams_break_goes_on_without_a_gap_or_a_line_twice(way: Way, cluster: Cluster, says: Says, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.substrates.kubernetes.logs._TOLD_S", 0.1)
    over = threading.Event()
    log = Followed(api(way.context), says.start(COUNTS), over.is_set)
    for _ in range(4):
        before = len(log.kept)
        Ground.until(lambda before=before: len(log.kept) > before + 100, "it is told", within_s=30)
        way.cut()
    cluster.kubectl("exec", "-n", says.space, "says", "--", "touch", "/tmp/end")
    Ground.until(lambda: says.status.get("lastState", {}).get("terminated"), "another life has begun", within_s=60)
    over.set()
    log.thread.join(30)
    assert not log.thread.is_alive()
    assert len(log.numbers) > 50
    assert log.numbers == list(range(1, len(log.numbers) + 1)), "and nothing of the life after it"


@pytest.mark.kubernetes
def test_a_life_that_the_kubelet_knows_of_before_the_api_does_is_not_taken_for_the_one_before(
    way: Way, cluster: Cluster, says: Says, monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale: list[None] = []

    def previous(pod: Any, container: str) -> bool | None:
        place = is_previous(pod, container)
        if place and not stale:
            Ground.until(lambda: says.status["state"].get("running"), "another life has begun", within_s=60)
            stale.append(None)
            return False
        return place

    monkeypatch.setattr("envctl.substrates.kubernetes.logs.is_previous", previous)
    log = Followed(api(way.context), says.start(COUNTS), lambda: bool(stale))
    Ground.until(lambda: len(log.kept) > 100, "it is told", within_s=30)
    cluster.kubectl("exec", "-n", says.space, "says", "--", "touch", "/tmp/end")
    log.thread.join(60)
    assert stale
    assert not log.thread.is_alive()
    assert log.numbers == list(range(1, len(log.numbers) + 1))


@pytest.mark.kubernetes
def test_of_a_container_that_lived_before_the_present_one_all_words_are_told(way: Way, says: Says) -> None:
    first = says.start("i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; done; sleep 1; test -e /dev/shm/x || exit 3")
    Ground.until(lambda: says.status.get("restartCount", 0) > 0 and says.status["state"].get("running"), "another life has begun", within_s=60)
    log = Followed(api(way.context), first, lambda: True)
    log.thread.join(30)
    assert log.numbers == list(range(1, 51))
