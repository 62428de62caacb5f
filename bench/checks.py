"""Time and peak memory of no-loss, per-key-order and no-duplicates over a record of a million events.

The record is written by the real writer, read by the real reader, and judged in a process of its own, so that peak memory is the
judging's alone.  The ratio is to reading the same file line by line as JSON, which no judge can avoid.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import Figure, show
from envctl.checks.no_duplicates import NoDuplicates
from envctl.checks.no_loss import NoLoss
from envctl.checks.per_key_order import PerKeyOrder
from envctl.model.event import Observation, Op, Step
from envctl.model.scenario import Scenario, Stream, Traffic
from envctl.record import EVENTS, Record, RecordWriter, RunManifest

TITLE = "Judging a million events"
ORDERS = 250_000  # two edges, one published and one settled message each: a million events
KEYS, PARTITIONS = 5_000, 6
LIMIT_S, LIMIT_MB = 20.0, 500.0
STREAMS = {
    "accepted": Stream("accepted", operation="place_order", fields={"id": "response.order_id", "key": "request.customer"}),
    "published": Stream("published", topic="orders.placed", fields={"id": "value.order_id", "key": "value.customer"}),
    "settled": Stream("settled", topic="payments.settled", fields={"id": "value.order_id"}),
}


def write(directory: Path) -> int:
    """Writes the record and returns how many events it has."""
    RunManifest(id="bench", scenario="bench", stack="shop", env_id="e", commit="c", branch="b", rng_seed=1, started_at=0.0,
                clock_ns=0, epoch_ns=0).save(directory)
    writer = RecordWriter(directory / EVENTS)
    writer.write(Step(at_ns=0, name="traffic", edge="begin"))
    for n in range(ORDERS):
        key, at = f"c{n % KEYS}", n * 1_000_000
        trace = f"{n:032x}"
        writer.write(Op(at_ns=at, op=n, process=key, type="invoke", f="place_order", key=key, due_ns=at, target="gateway", trace_id=trace,
                        value={"method": "POST", "path": "/orders", "headers": {"Idempotency-Key": f"{n:036x}"},
                               "body": {"customer": key, "sku": f"sku-{n % 997}", "quantity": 1}}))
        writer.write(Op(at_ns=at + 900_000, op=n, process=key, type="ok", f="place_order",
                        value={"status": 201, "body": {"order_id": order(n), "state": "accepted"}}))
    for stream, topic in (("published", "orders.placed"), ("settled", "payments.settled")):
        writer.write(Step(at_ns=ORDERS * 1_000_000, name="observe", edge="begin", detail={"stream": stream}))
        for n in range(ORDERS):
            writer.write(Observation(at_ns=n * 1_000_000 + 950_000, stream=stream, id=order(n), key=f"c{n % KEYS}",
                                     source={"topic": topic, "partition": n % KEYS % PARTITIONS, "offset": n // PARTITIONS,
                                             "trace_id": f"{n:032x}"}))
        last = writer.write(Step(at_ns=ORDERS * 1_000_000, name="observe", edge="end", ok=True, detail={"stream": stream}))
    writer.close()
    return last


def order(n: int) -> str:
    """An id that looks like a UUID."""
    text = f"{n * 0x9E3779B97F4A7C15 % 2**128:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def judge(directory: Path) -> None:
    """Runs the checks and prints time, memory and outcomes as JSON."""
    begun, cpu = time.perf_counter(), time.process_time()
    scenario = Scenario("bench", Path("bench.yaml"), Traffic(Path("t.jsonl"), "gateway", None, None), streams=STREAMS)
    record = Record.load(directory, scenario)
    findings = [
        NoLoss.judge("no-loss", {"from": "accepted", "to": "published"}, record),
        NoLoss.judge("no-loss-2", {"from": "published", "to": "settled", "within": "20s"}, record),
        PerKeyOrder.judge("per-key-order", {"in": "published", "as": "accepted"}, record),
        NoDuplicates.judge("no-duplicates", {"in": "settled"}, record),
    ]
    print(json.dumps({"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu,
                      "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                      "outcomes": [finding.outcome for finding in findings]}))


def parsing_cpu_s(path: Path) -> float:
    """CPU seconds that parsing every line takes, keeping nothing."""
    begun = time.process_time()
    with path.open("rb") as file:
        for line in file:
            json.loads(line)
    return time.process_time() - begun


def measured() -> tuple[dict[str, Any], float, int, float]:
    """What judging took, CPU seconds of parsing alone, events, megabytes of the record."""
    with tempfile.TemporaryDirectory() as name:
        events = write(Path(name))
        done = subprocess.run([sys.executable, "-m", "bench.checks", name], check=True, capture_output=True, cwd=Path(__file__).parents[1])
        return json.loads(done.stdout), parsing_cpu_s(Path(name) / EVENTS), events, (Path(name) / EVENTS).stat().st_size / 1e6


def figures() -> list[Figure]:
    """Wall and CPU seconds and peak memory of one process that judges."""
    took, parsing, events, size = measured()
    if set(took["outcomes"]) != {"pass"}:
        raise RuntimeError(f"a record without any fault was judged {took['outcomes']}")
    seconds, cpu, peak = took["seconds"], took["cpu_s"], took["peak_mb"]
    return [
        Figure(f"`no-loss` twice, `per-key-order`, `no-duplicates` over {events:,} events ({size:.0f} MB), wall", f"{seconds:.1f} s",
               f"≤ {LIMIT_S:.0f} s", seconds <= LIMIT_S),
        Figure("CPU", f"{cpu:.1f} s, {cpu / parsing:.2f} × parsing the lines as JSON"),
        Figure("peak memory", f"{peak:.0f} MB", f"≤ {LIMIT_MB:.0f} MB", peak <= LIMIT_MB),
    ]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        judge(Path(sys.argv[1]))
    else:
        show(figures())
