"""How punctual the replay driver is on one core: lateness of starts at a fixed rate, and what it costs.

The driver (a process of its own, pinned to one core) replays a POST and a GET against a small asyncio server in another
process on another core; every operation's intended start, real start and outcome come from the driver's own events.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import Figure, show
from envctl.replay.config import DriverConfig

TITLE = "Replay"
RATE, SECONDS = 500.0, 20.0
ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 42\r\n\r\n{"items":[{"sku":"A-1"}],"order_id":12345}'
SERVER = "import asyncio; from bench import replay; asyncio.run(replay.serve())"


class Echo(asyncio.Protocol):
    """Answers every request at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.data = transport, b""

    def data_received(self, data: bytes) -> None:
        self.data += data
        while (end := self.data.find(b"\r\n\r\n")) >= 0:
            head = self.data[:end].lower()
            at = head.find(b"content-length:")
            whole = end + 4 + (int(head[at + 15 :].split(b"\r\n")[0]) if at >= 0 else 0)
            if len(self.data) < whole:
                return
            self.data = self.data[whole:]
            self.transport.write(ANSWER)


async def serve() -> None:
    """Prints its port and serves until it is killed."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def traffic(file: Path) -> None:
    """A thousand customers who browse and order."""
    with file.open("w", encoding="utf-8") as out:
        for number in range(1000):
            key = f"c{number}"
            out.write(json.dumps({"at": 0, "op": "browse", "http": "GET /products?page=1", "key": key}) + "\n")
            body = {"sku": "{{browse.items[0].sku}}", "quantity": 1}
            headers = {"Idempotency-Key": "{{uuid}}"}
            out.write(json.dumps({"at": 0, "op": "place_order", "http": "POST /orders", "key": key, "headers": headers, "body": body}) + "\n")


def measure(rate: float, seconds: float) -> dict[str, Any]:
    """One replay; the summary is the driver's, the check of it is made from its events."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
            preexec_fn=lambda: os.sched_setaffinity(0, {cores[0]}),  # noqa: PLW1509  (no threads here)
        )
        assert server.stdout
        try:
            address = f"127.0.0.1:{server.stdout.readline().strip()}"
            traffic(directory / "traffic.jsonl")
            DriverConfig(
                traffic=str(directory / "traffic.jsonl"), to="shop", targets={"shop": {"http": [address]}}, in_order=True,
                zero_ns=time.monotonic_ns(), rate_per_s=rate, duration_s=seconds,
            ).save(directory / "config.json")
            done = subprocess.run(
                [sys.executable, "-m", "envctl.replay.driver", str(directory / "config.json")], stdout=subprocess.PIPE, check=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {cores[-1]}),
            )
        finally:
            server.terminate()
            server.wait()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    starts = [one["at_ns"] - one["due_ns"] for one in events if one.get("type") == "invoke"]
    summary = events[-1]["detail"]
    cpu = [one["value"] for one in events if one["kind"] == "sample"]
    return {
        "rate_per_s": rate, "operations": len(starts), "ok": summary["ok"],
        "within_10_ms": round(sum(one <= 10_000_000 for one in starts) / len(starts), 5),
        **{name: summary[name] for name in ("late_p50_ms", "late_p99_ms", "late_p999_ms")},
        "cpu_cores": round(sum(cpu) / len(cpu), 3),
    }


def figures() -> list[Figure]:
    """One replay of `SECONDS` at `RATE` operations a second."""
    row = measure(RATE, SECONDS)
    good = row["within_10_ms"] >= 0.99 and row["ok"] == row["operations"]
    return [
        Figure(f"started within 10 ms of the intended time, of {row['operations']:,} at {RATE:.0f}/s on one core",
               f"{100 * row['within_10_ms']:.2f} %", "≥ 99 %", good),
        Figure("lateness of a start: median, 99 %, 99.9 %", " / ".join(f"{row[f'late_{name}_ms']:.2f} ms" for name in ("p50", "p99", "p999"))),
        Figure("cores used by the driver", f"{row['cpu_cores']:.2f}"),
    ]


if __name__ == "__main__":
    show(figures())
