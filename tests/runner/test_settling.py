"""How long a run waits for what may still come true."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envctl.runner import walk
from envctl.waiting import until

PATIENCE_S, ROUND_S = 0.2, 0.25


class SlowCollector:
    """Takes its time to read the streams."""

    def __init__(self) -> None:
        self.begun: list[float] = []

    def round(self) -> None:
        self.begun.append(time.monotonic())
        assert until(lambda: time.monotonic() > self.begun[-1] + ROUND_S, 5)


def test_the_last_reading_begins_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def step(*_: Any, **__: Any) -> Iterator[dict[str, Any]]:
        yield {}

    for name, value in (("patience_s", lambda _: PATIENCE_S), ("settled", lambda _: False), ("Record", lambda *_: None)):
        monkeypatch.setattr(walk, name, value)
    run, collector = SimpleNamespace(scenario=SimpleNamespace(checks=()), directory=Path(), step=step, _hurry=threading.Event()), SlowCollector()
    since = time.monotonic()
    walk.Run._settle(run, collector)  # type: ignore[arg-type]
    assert collector.begun[-1] >= since + PATIENCE_S
