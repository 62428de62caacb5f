"""What a container says, by the cluster's API: a stream of it that breaks goes on where it was, without a line lost or doubled.

The API server, the kubelet or what is between them may end a stream whose container lives on, and it looks like any other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from envctl.errors import EnvctlError
from envctl.substrates.kubernetes.api import Api, MissingError
from envctl.substrates.kubernetes.identity import MAIN
from envctl.substrates.kubernetes.pods import is_previous
from envctl.waiting import until

_TOLD_S, _POLL_S = 3.0, 0.02  # within which the cluster tells that a container has ended, after its words have
_LAST_S, _AGAIN_S = 30.0, 0.5  # how long the last words of one that has ended are asked for, where the API is away
_PLACE_S = 0.5  # between two questions about which life the pod's present one is
_LATE_S = 10.0  # how long the next life of a node waits for them
_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)")


class Words:
    """The lines of one container, each once, whichever streams they come in.

    A stream can be asked for from a second on, no finer.  Its lines bear the time at which they were written, in nanoseconds: one
    that was there in that second already is known by its time and text.
    """

    def __init__(self) -> None:
        self.since: datetime | None = None  # the second of the newest line: from where on the next stream is to begin
        self._newest: Counter[bytes] = Counter()  # its lines
        self._again: Counter[bytes] = Counter()  # those that the present stream may repeat
        self._rest = b""

    def begin(self) -> None:
        """Another stream: half a line of the last one comes again, as a whole."""
        self._again, self._rest = self._newest.copy(), b""

    def new(self, data: bytes) -> bytes:
        """The whole lines that came with it and have not been there, without their times."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(text + b"\n" for line in lines if (text := self._text(line)) is not None)

    def rest(self) -> bytes:
        """The last line of a container that has ended, where it did not end that line."""
        return self._text(self._rest) or b""

    def has(self, line: bytes) -> bool:
        """Whether it is one of the newest lines, which a stream that goes on repeats."""
        return line in self._newest

    def _text(self, line: bytes) -> bytes | None:
        """Of a line that is the container's, and has not been there."""
        stamp, _, text = line.partition(b" ")
        if not (told := _STAMP.fullmatch(stamp)):
            return None  # the kubelet's word instead of a log
        if self._again[line]:
            self._again[line] -= 1
            return None
        second = datetime.fromisoformat((told[1] + told[2]).decode())
        if self.since is None or second > self.since:
            self.since = second
            self._newest.clear()
        if second == self.since:
            self._newest[line] += 1
        return text


def followed(api: Api, namespace: str, pod: str, container: str, has_ended: Callable[[], bool]) -> Iterator[bytes]:
    """What a container writes, from its first line to its last.  `has_ended`: whether the cluster has told that it has."""
    words, until_at = Words(), math.inf
    while True:
        if ended := has_ended():
            until_at = min(until_at, time.monotonic() + _LAST_S)
        whole = False
        try:
            stream = _stream(api, namespace, pod, container, words)
            words.begin()
            yield from map(words.new, stream)
            whole = True
        except MissingError:
            whole = ended  # it went with its pod
        except EnvctlError:
            pass
        if ended and (whole or time.monotonic() > until_at):
            break
        if ended or not until(has_ended, _TOLD_S, poll_s=_POLL_S):
            time.sleep(_AGAIN_S)
    yield words.rest()


def _stream(api: Api, namespace: str, pod: str, container: str, words: Words) -> Iterator[bytes]:
    """Raises MissingError for a container that its pod knows no longer: logs are asked for by names, which others bear later.

    The kubelet may know of another life before the API does.  So a stream that does not go on where the last one was is believed
    where the API has not told of one since, and still does not after the time that it takes.
    """
    def place() -> bool | None:
        return is_previous(api.get("Pod", pod, namespace), container)

    if (previous := place()) is None:
        raise MissingError(f"{pod} has other containers by now")
    second = words.since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if words.since else None
    stream = api.log(pod, namespace, MAIN, since=second, previous=previous)
    begun = b""
    while b"\n" not in begun and (data := next(stream, b"")):
        begun += data
    if begun and not words.has(begun.partition(b"\n")[0]) and until(lambda: place() != previous, _TOLD_S if second else 0, poll_s=_PLACE_S):
        raise EnvctlError(f"{pod} has another container by now")
    yield begun
    yield from stream


class Kept:
    """The words of one life in its node's log: none comes after the first of the next life, whose own they would be taken for."""

    def __init__(self) -> None:
        self._whole = threading.Event()  # or nothing is added any more
        self._adding = threading.Lock()

    def keep(self, words: Iterator[bytes], file: Path) -> None:
        """Adds words to the log as they come, to their end, or that of their time."""
        with contextlib.suppress(Exception), file.open("ab", buffering=0) as log:
            for data in words:
                with self._adding:
                    if self._whole.is_set():
                        return
                    log.write(data)
        self._whole.set()

    @property
    def is_whole(self) -> bool:
        """Whether nothing is added any more."""
        return self._whole.is_set()

    def wait(self, timeout_s: float) -> None:
        """Waits until it is, for a time."""
        self._whole.wait(timeout_s)

    async def end(self) -> None:
        """Lets the words that are under way come; those that do not are lost."""
        deadline = time.monotonic() + _LATE_S
        while not self.is_whole:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL_S)
        with self._adding:
            self._whole.set()
