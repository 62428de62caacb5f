"""The replay driver: `python -m envctl.replay.driver CONFIG.json [--events-fd N]`.

It starts each operation when it is due, whatever the system does (open model), or as soon as its key's last one ended
(closed model), and writes the operations as events (`envctl.model.event`), one JSON object a line, without `seq`.  Besides
`op` events it writes `sample`s of its own CPU and, last, a `log` "replay ended" with counts and how late operations started.
Where the configuration says `until_told`, a line on standard input says when the traffic ends; the end of the input ends it too.
On SIGTERM it starts nothing more, waits for what is under way (at most the time-out) and ends with status 0.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import hashlib
import math
import os
import signal
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.errors import EnvctlError
from envctl.replay import outcomes
from envctl.replay.config import DriverConfig
from envctl.replay.emitter import Emitter
from envctl.replay.outcomes import Outcome
from envctl.replay.schedule import Due, keyed, schedule
from envctl.replay.senders import HttpSender, Request, Sender, make_senders
from envctl.spec import templates
from envctl.spec.traffic import Line, load_traffic

LEAD_NS = 20_000_000  # between being ready and the first operation, where the runner sets no begin
LOOK_S = 0.25  # how long a pause may last before it is looked whether the traffic has been told to end
SWEEP_S = 0.2  # garbage is collected in small pieces instead of whenever the interpreter likes
_MISSING = object()


class Driver:
    """One replay."""

    def __init__(self, config: DriverConfig, lines: tuple[Line, ...], senders: Mapping[str, Sender], emitter: Emitter) -> None:
        self._config = config
        self._lines = lines
        self._senders = senders
        self._emitter = emitter
        self._begin_ns = 0
        self._end_s = math.inf if config.until_told or config.duration_s is None else config.duration_s
        self._heard = b""
        self._waiting: dict[str, deque[Due]] = {}  # by key: operations that are due but whose turn hasn't come
        self._flying: set[asyncio.Task[None]] = set()
        self._cut = ""  # why nothing more is sent; empty while everything is
        self._answers: dict[tuple[str | None, str], Any] = {}
        self._referred = {
            templates.operation_of(text)
            for line in lines
            for text in templates.expressions([line.path, line.method, dict(line.headers), line.body])
        }
        self._late_ns: list[int] = []
        self._counts: Counter[str] = Counter()
        self._number = 0

    async def run(self) -> None:
        """The whole replay, from the first operation to the last answer."""
        self._begin_ns = self._config.begin_ns or time.monotonic_ns() + LEAD_NS
        self._log("replay begins", {"begin_ns": self._begin_ns - self._config.zero_ns, "model": self._config.model})
        housekeeping = asyncio.create_task(self._keep_house())
        pace = asyncio.create_task(self._open() if self._config.model == "open" else self._closed())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, pace)
        if self._config.until_told:
            loop.add_reader(sys.stdin.fileno(), self._hear, pace)
        await asyncio.wait([pace])
        await self._drain()
        housekeeping.cancel()
        for sender in self._senders.values():
            await sender.close()
        if not pace.cancelled():
            pace.result()
        self._log("replay ended", self._summary())

    def _stop(self, pace: asyncio.Task[None]) -> None:
        self._cut = "the replay was stopped"
        pace.cancel()

    def _hear(self, pace: asyncio.Task[None]) -> None:
        """When the traffic ends; without an answer whoever could have told has died."""
        said = os.read(sys.stdin.fileno(), 64)
        self._heard += said
        if said and not self._heard.endswith(b"\n"):
            return
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        if said:
            self._end_s = float(self._heard)
        else:
            self._stop(pace)

    async def _drain(self) -> None:
        """Waits for operations under way; those that still wait for their key's turn get a few time-outs, not for ever."""
        patience = 0.0 if self._cut else 4 * self._config.timeout_s
        if self._flying:
            await asyncio.wait(self._flying, timeout=patience)
        self._cut = self._cut or "the replay ended before its turn came"
        if self._flying:
            await asyncio.wait(self._flying, timeout=self._config.timeout_s + 1)

    async def _open(self) -> None:
        for due in schedule(self._lines, self._config.rate_per_s, None if self._config.duration_s is None else math.inf):
            due_ns = self._begin_ns + round(due.due_s * 1e9)
            if due_ns <= time.monotonic_ns():
                await asyncio.sleep(0)  # behind: let answers in
            while (left_ns := due_ns - time.monotonic_ns()) > 0 and due.due_s < self._end_s:  # noqa: ASYNC110  (by the clock)
                await asyncio.sleep(min(left_ns / 1e9, LOOK_S))
            if due.due_s >= self._end_s:
                return
            self._enqueue(due)

    async def _closed(self) -> None:
        """Each key is a client that does its operations one after the other; operations without a key are one client."""
        clients: dict[str | None, list[Line]] = {}
        for line in self._lines:
            clients.setdefault(line.key, []).append(line)
        await asyncio.sleep(max(0.0, (self._begin_ns - time.monotonic_ns()) / 1e9))
        async with asyncio.TaskGroup() as group:
            for lines in clients.values():
                group.create_task(self._client(lines))

    async def _client(self, lines: list[Line]) -> None:
        turn = 0
        while turn == 0 or self._config.duration_s is not None:
            for line in lines:
                since_s = (time.monotonic_ns() - self._begin_ns) / 1e9
                if since_s >= self._end_s:
                    return
                self._number += 1
                task = self._start(Due(self._number, since_s, line, turn, keyed(line.key, turn)))
                await asyncio.shield(task)
            turn += 1

    def _enqueue(self, due: Due) -> None:
        if due.key is None or not self._config.in_order:
            self._start(due)
        elif due.key in self._waiting:
            self._waiting[due.key].append(due)
        else:
            self._waiting[due.key] = deque()
            self._fly(self._chain(due, due.key))

    def _start(self, due: Due) -> asyncio.Task[None]:
        return self._fly(self._perform(due, measured=True))

    def _fly(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)
        return task

    async def _chain(self, first: Due, key: str) -> None:
        await self._perform(first, measured=True)
        waiting = self._waiting[key]
        while waiting:
            await self._perform(waiting.popleft(), measured=False)
        del self._waiting[key]

    async def _perform(self, due: Due, *, measured: bool) -> None:
        """One operation: its invoke event, the request, its completion event."""
        line, trace_id = due.line, os.urandom(16).hex()
        due_ns = self._begin_ns + round(due.due_s * 1e9)
        reason = self._cut
        request = Request(line.to or self._config.to, line.method, line.path, due.key, line.headers, line.body)
        try:
            request = self._request(due)
        except templates.UnresolvedError as error:
            reason = reason or str(error)
        now_ns = time.monotonic_ns()
        if measured and not reason:
            self._late_ns.append(now_ns - due_ns)
        common = {"kind": "op", "op": due.number, "process": due.key or f"op-{due.number}", "f": line.op, "key": due.key}
        self._emitter.emit(common | {
            "at_ns": now_ns - self._config.zero_ns, "type": "invoke", "value": _described(line, request),
            "due_ns": due_ns - self._config.zero_ns, "target": line.method if line.protocol == "kafka" else request.target,
            "trace_id": trace_id,
        })
        outcome = outcomes.not_sent(reason) if reason else await self._send(line, request, trace_id)
        self._remember(due, outcome)
        self._counts["unsent" if reason else outcome.type] += 1
        at_ns = time.monotonic_ns() - self._config.zero_ns
        self._emitter.emit(common | {"at_ns": at_ns, "type": outcome.type, "value": outcome.value, "trace_id": trace_id})

    async def _send(self, line: Line, request: Request, trace_id: str) -> Outcome:
        traceparent = f"00-{trace_id}-{root_span_id(trace_id)}-01"
        try:
            return await self._senders[line.protocol].send(request, traceparent, self._config.timeout_s)
        except TimeoutError:
            return outcomes.timed_out(self._config.timeout_s)
        except Exception as error:  # noqa: BLE001  (whatever it was, the record must tell, and the replay goes on)
            return Outcome("info", {"error": f"{type(error).__name__}: {error}"})

    def _request(self, due: Due) -> Request:
        from urllib.parse import quote

        line = due.line

        def look(expression: str) -> Any:
            return self._look(expression, due)

        return Request(
            line.to or self._config.to, line.method, templates.fill(line.path, look, lambda text: quote(text, safe="")),
            due.key, {name: str(templates.fill(value, look)) for name, value in line.headers.items()},
            templates.fill(line.body, look),
        )

    def _look(self, expression: str, due: Due) -> Any:
        if expression == "uuid":
            return str(operation_uuid(self._config.rng_seed, self._config.salt, due))
        if expression == "key":
            return due.key
        name = templates.operation_of(expression)
        answer = self._answers.get((due.key, str(name)), _MISSING)
        if answer is _MISSING:
            raise templates.UnresolvedError(f"{name} of key {due.key!r} has not succeeded")
        return templates.pick(answer, expression)

    def _remember(self, due: Due, outcome: Outcome) -> None:
        if due.line.op not in self._referred:
            return
        if outcome.type == "ok":
            self._answers[due.key, due.line.op] = outcome.answer
        else:
            self._answers.pop((due.key, due.line.op), None)

    async def _keep_house(self) -> None:
        """Collects young garbage in small pieces, and says once a second what the driver costs."""
        turn, cpu, at = 0, time.process_time(), time.monotonic()
        while True:
            await asyncio.sleep(SWEEP_S)
            turn += 1
            gc.collect(0 if turn % 50 else 1)
            if turn % 5 == 0:
                spent, now = time.process_time(), time.monotonic()
                cores = round((spent - cpu) / (now - at), 4)
                cpu, at = spent, now
                at_ns = time.monotonic_ns() - self._config.zero_ns
                attrs = {"role": "driver"}
                self._emitter.emit({"kind": "sample", "at_ns": at_ns, "measure": "envctl.cpu", "value": cores, "attrs": attrs})

    def _log(self, message: str, detail: Mapping[str, Any]) -> None:
        at_ns = time.monotonic_ns() - self._config.zero_ns
        self._emitter.emit({"kind": "log", "at_ns": at_ns, "level": "info", "message": message, "detail": detail})

    def _summary(self) -> dict[str, Any]:
        late = sorted(self._late_ns)
        counts = {name: self._counts[name] for name in ("ok", "fail", "info", "unsent")}
        share = sum(one <= 10_000_000 for one in late) / len(late) if late else None
        lateness = {f"late_p{text}_ms": quantile_ms(late, q) for text, q in (("50", 0.5), ("99", 0.99), ("999", 0.999))}
        return counts | lateness | {"within_10_ms": share, "cpu_s": round(time.process_time(), 3)}


def quantile_ms(ordered_ns: list[int], q: float) -> float | None:
    """The nearest-rank quantile of sorted nanoseconds, in milliseconds; None of nothing."""
    return round(ordered_ns[min(len(ordered_ns) - 1, int(q * len(ordered_ns)))] / 1e6, 3) if ordered_ns else None


def root_span_id(trace_id: str) -> str:
    """The span that stands for the operation itself: it is never exported, its id is the second half of the trace's."""
    return trace_id[16:]


def operation_uuid(rng_seed: int, salt: str, due: Due) -> uuid.UUID:
    """`{{uuid}}` of an operation: the same for the same seed, salt, line and round."""
    text = f"{rng_seed}:{salt}:{due.line.number}:{due.round}"
    return uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4)


def _described(line: Line, request: Request) -> dict[str, Any]:
    """The request as the record keeps it."""
    value = {"method": request.method, "path": request.path or None, "headers": dict(request.headers) or None}
    protocol = None if line.protocol == "http" else line.protocol
    return {name: one for name, one in (value | {"body": request.body, "protocol": protocol}).items() if one is not None}


async def replay(config: DriverConfig, events_fd: int) -> None:
    """Loads, warms up, replays.  Raises SpecError for the traffic file and UsageError for targets."""
    lines = load_traffic(Path(config.traffic))
    senders = make_senders(
        lines, config.to, config.targets, kafka=config.kafka, protos=config.protos, timeout_s=config.timeout_s
    )
    if isinstance(http := senders.get("http"), HttpSender):
        await http.warm()
    emitter = Emitter(events_fd)
    gc.collect()
    gc.freeze()
    gc.disable()
    await Driver(config, lines, senders, emitter).run()
    emitter.close()


def main() -> int:
    """The command line; errors go to stderr with their exit code."""
    parser = argparse.ArgumentParser(prog="envctl.replay.driver", description="Replays traffic when it is due.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--events-fd", type=int, default=1)
    options = parser.parse_args()
    try:
        asyncio.run(replay(DriverConfig.load(options.config), options.events_fd))
    except EnvctlError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
