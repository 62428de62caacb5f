"""Follows a growing record and tells a person what happens in the run."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from envctl.record import EVENTS

POLL_S = 0.2
NEWEST = 500  # operations the shown percentile is made of
INDENT = " " * 8


class Shown(Protocol):
    """Where it is told."""

    def update(self, text: str) -> None:
        """What is going on."""

    def note(self, text: str) -> None:
        """What happened and stays on the screen."""

    def done(self, text: str, *, ok: bool | None = True) -> None:
        """The result."""


class Follower:
    """Reads what the runner appends, and keeps one line of progress and a line a fault."""

    def __init__(self, directory: Path, line: Shown) -> None:
        self._path = directory / EVENTS
        self._line = line
        self._position = 0
        self._due: dict[int, int] = {}
        self._latencies: deque[float] = deque(maxlen=NEWEST)
        self._all: list[float] = []
        self._outcomes = {"ok": 0, "fail": 0, "info": 0}
        self._lag: dict[tuple[str, str, int], float] = {}
        self._faults: dict[str, dict[str, Any]] = {}
        self._step = "starts"

    def until_ended(self, poll: Callable[[], int | None]) -> int:
        """Follows until the runner has ended; returns its exit status."""
        while True:
            status = poll()
            self._read()
            self._line.update(self._summary())
            if status is not None:
                self._line.done(self._summary(final=True), ok=status == 0)
                return status
            time.sleep(POLL_S)

    def _read(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._position += len(line)
                self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        kind = event["kind"]
        if kind == "op":
            self._operation(event)
        elif kind == "fault":
            self._fault(event)
        elif kind == "sample" and event["measure"] == "kafka.consumer_group.lag" and event.get("value") is not None:
            attrs = event["attrs"]
            self._lag[attrs["group"], attrs["topic"], attrs["partition"]] = event["value"]
        elif kind == "step" and event["name"] == "traffic" and event["edge"] == "end":
            self._tell_rest()
        elif kind == "step" and event["edge"] == "begin" and event["name"] != "observe":
            self._step = event["name"]
        elif kind == "log" and "stop" in event.get("detail", {}):
            self._line.note(f"{INDENT}✘ {event['message']}")

    def _operation(self, event: dict[str, Any]) -> None:
        if event["type"] == "invoke":
            self._due[event["op"]] = event.get("due_ns", event["at_ns"])
            return
        latency = (event["at_ns"] - self._due.pop(event["op"], event["at_ns"])) / 1e6
        self._outcomes[event["type"]] += 1
        self._latencies.append(latency)
        self._all.append(latency)

    def _fault(self, event: dict[str, Any]) -> None:
        known = self._faults.setdefault(event["id"], {"name": event["fault"], "ok": True})
        known[event["edge"]] = event.get("summary", "")
        known["ok"] &= event["ok"]
        known.setdefault("at_s", event["at_ns"] / 1e9)
        if "step" in event.get("detail", {}):
            known["step"] = f"step {event['detail']['step']} of {event['detail']['steps']}:"
        if event["edge"] == "recover" or (not event["ok"] and event["edge"] in ("probe", "journal")):
            self._line.note(self._told(known))
            known["told"] = True

    def _tell_rest(self) -> None:
        """Those whose recovery was not waited for."""
        for known in self._faults.values():
            if not known.get("told"):
                self._line.note(self._told(known | {"ok": False}))

    def _told(self, known: dict[str, Any]) -> str:
        """`5.0 s  packet-loss   orders → bus 20 %   measured 19.8 % of 4,210   detected in 1.2 s   gone   recovered in 1.9 s ✔`."""
        target = f"{known.get('step', '')} {known.get('probe', '')}".strip()
        during = known.get("during", "")
        parts = [target, known.get("verify", ""), known.get("detect", "").partition(":")[0], "" if during == "tolerated" else during,
                 known.get("absent", ""), known.get("recover", "")]
        mark = "✔" if known["ok"] else "✘"
        return f"{INDENT}{known['at_s']:>5.1f} s  {known['name']:<12} {'   '.join(part for part in parts if part)} {mark}"

    def _summary(self, *, final: bool = False) -> str:
        total = sum(self._outcomes.values())
        if not total:
            return self._step
        latencies = sorted(self._all if final else self._latencies)
        p95 = latencies[max(0, -(-len(latencies) * 95 // 100) - 1)]
        parts = [f"{total:,} operations", f"{100 * self._outcomes['ok'] / total:.1f} % ok", f"p95 {p95:.0f} ms",
                 f"lag {sum(self._lag.values()):.0f}"]
        return "  ".join(parts if final else [*parts, self._step])
