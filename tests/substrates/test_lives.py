"""One life after another of a node in a cluster, and whose words are whose in its log."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from envctl.model.environment import NodeSpec
from envctl.substrates.keeper.helpers import HelperLife
from envctl.substrates.kubernetes import launch, logs
from envctl.substrates.kubernetes.identity import AGENT_OF, NODE, Identity

SPEC = NodeSpec("a-0", "a", "service", "", ("a",), "digest")
HERE = Identity("shop-main-abc", "machine:/somewhere/shop-main-abc")
IDS = ("aaaaaaaa", "bbbbbbbb")


def pod(container: str, ended: str = "") -> Any:
    over = {"terminated": {"exitCode": 1, "containerID": f"containerd://{ended}"}} if ended else {}
    status = {"name": "main", "containerID": f"containerd://{container}", "state": {"running": {"startedAt": "2026-10-25T00:59:58Z"}}, "lastState": over}
    metadata = {"name": "a-0-x", "uid": "1", "labels": {NODE: "a-0"}, "creationTimestamp": "2026-10-25T00:59:58Z"}
    return {"metadata": metadata, "spec": {"nodeName": "machine"}, "status": {"podIP": "10.0.0.1", "containerStatuses": [status]}}


class Tells:
    """A cluster of one pod, whose container's words come when they are told."""

    def __init__(self) -> None:
        self.pod = pod(IDS[0])
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.words = {each: queue.SimpleQueue[bytes | None]() for each in IDS}  # None ends a stream

    def watch(self, *_: Any) -> Iterator[Any]:
        yield {"type": "LISTED", "items": [self.pod]}
        while True:
            yield self.events.get()

    def get(self, *_: Any) -> Any:
        return self.pod

    def find(self, *_: Any, **__: Any) -> list[Any]:
        return []

    def merge(self, *_: Any) -> None:
        pass

    def log(self, *_: Any, previous: bool, **__: Any) -> Iterator[bytes]:
        status = self.pod["status"]["containerStatuses"][0]
        lived = status["lastState"]["terminated"] if previous else status
        yield from iter(self.words[lived["containerID"].rpartition("/")[2]].get, None)

    def say(self, container: str, *texts: str) -> None:
        for text in texts:
            self.words[container].put(f"2026-10-25T00:59:58.000000001Z {text}\n".encode())

    def restart(self) -> None:
        self.pod = pod(IDS[1], ended=IDS[0])
        self.events.put({"type": "MODIFIED", "object": self.pod})


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.01)


async def two_lives(directory: Path, cluster: Any, meanwhile: Callable[[], None]) -> launch.PodLauncher:
    """A launcher whose node's first life has ended with words under way, and whose second is begun."""
    launcher = launch.PodLauncher(HERE, directory, cluster)
    first = await launcher.start(SPEC)
    assert not isinstance(first, HelperLife)
    cluster.say(IDS[0], "ready")
    await until(lambda: has_said(launcher, "ready\n"))
    cluster.restart()
    assert await asyncio.wait_for(first.ended, 20) == 1
    second = asyncio.create_task(launcher.start(SPEC))
    await asyncio.sleep(0)
    meanwhile()
    await asyncio.wait_for(second, 20)
    return launcher


async def has_said(launcher: launch.PodLauncher, words: str) -> bool:
    return await launcher.said("a-0", 0) == words


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tells:
    monkeypatch.setenv(AGENT_OF, "1")
    (tmp_path / "logs").mkdir()
    (tmp_path / "token").write_text("token")
    monkeypatch.setattr(launch, "_TOKEN", tmp_path / "token")
    monkeypatch.setattr(launch, "_LOG_END_S", 0.05)
    return Tells()


def test_the_last_words_of_a_life_that_come_late_come_before_those_of_the_next(cluster: Tells, tmp_path: Path) -> None:
    def come_late() -> None:
        cluster.say(IDS[0], "late")
        for _ in range(2):  # the stream breaks, and has nothing more when it is asked for again
            cluster.words[IDS[0]].put(None)

    async def act() -> None:
        launcher = await two_lives(tmp_path, cluster, come_late)
        cluster.say(IDS[1], "again")
        await until(lambda: has_said(launcher, "again\n"))
        assert await launcher.tail("a-0") == "ready\nlate\nagain"

    asyncio.run(act())


def test_words_of_a_life_that_come_when_the_next_has_begun_are_not_taken_for_its(cluster: Tells, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LATE_S", 0.05)

    async def act() -> None:
        launcher = await two_lives(tmp_path, cluster, lambda: None)
        (follower,) = (each for each in threading.enumerate() if each.name == f"words of {IDS[0]}")
        cluster.say(IDS[0], "too late")
        cluster.words[IDS[0]].put(None)
        await asyncio.to_thread(follower.join, 20)
        cluster.say(IDS[1], "again")
        await until(lambda: has_said(launcher, "again\n"))
        assert await launcher.tail("a-0") == "ready\nagain"

    asyncio.run(act())
