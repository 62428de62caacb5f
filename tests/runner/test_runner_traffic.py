"""What the runner tells the replay driver."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest

from envctl.model.environment import Environment, Node
from envctl.model.scenario import Scenario, Traffic
from envctl.record import RunManifest
from envctl.runner.live import Live
from envctl.runner.traffic import Driver
from envctl.spec.conditions import parse_condition
from envctl.waiting import until

PROTO = 'syntax = "proto3"; package p; service S { rpc Do(A) returns (A); } message A {}'


def environment(directory: Path, *nodes: Node) -> Environment:
    return Environment(id="e", stack="t", substrate="embedded", directory=directory, plan_digest="", nodes=nodes, endpoints={}, expires_at=0)


def manifest() -> RunManifest:
    return RunManifest(id="r", scenario="s", stack="t", env_id="e", commit="", branch="", rng_seed=1, started_at=0.0,
                       clock_ns=time.monotonic_ns(), epoch_ns=time.time_ns())


@pytest.mark.parametrize(("model", "duration_s", "planned"), [("open", None, 1), ("open", 2.0, 100), ("closed", None, 1), ("closed", 2.0, None)])
def test_the_driver_gets_the_contracts_that_the_run_keeps_and_says_why_it_can_not_begin(
    tmp_path: Path, model: Literal["open", "closed"], duration_s: float | None, planned: int | None
) -> None:
    (tmp_path / "inputs" / "contracts").mkdir(parents=True)
    (tmp_path / "inputs" / "contracts" / "s.proto").write_text(PROTO)
    (tmp_path / "inputs" / "traffic.jsonl").write_text('{"op": "do", "grpc": "p.S/Do", "body": {}}\n')
    scenario = Scenario("s", tmp_path / "inputs" / "scenario.yaml", Traffic(tmp_path / "inputs" / "traffic.jsonl", "nobody", 50.0, duration_s, model))
    driver = Driver(tmp_path, scenario, environment(tmp_path), manifest(), bootstrap="", operated=print, said=print, live=Live(time.monotonic_ns))
    assert until(lambda: bool(driver.failure), 60)
    assert driver.failure == "the driver ended with status 2"  # nobody has no grpc port
    assert driver.planned == planned
    driver.stop()
    assert str(tmp_path / "inputs" / "contracts" / "s.proto") in (tmp_path / "replay.json").read_text()


def test_operations_that_wait_behind_one_that_hangs_are_seen_to_wait(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    lines = [json.dumps({"op": "do", "http": "POST /", "key": "c"}) + "\n" for _ in range(20)]
    (tmp_path / "inputs" / "traffic.jsonl").write_text("".join(lines))
    traffic = Traffic(tmp_path / "inputs" / "traffic.jsonl", "web", 50.0, None, in_order_by="key", timeout_s=1.0)
    ran, events = manifest(), []
    live = Live(lambda: time.monotonic_ns() - ran.clock_ns, patience_s=0.1)
    success = parse_condition("success_rate(traffic) >= 99 %")
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes connections and never answers
        node = Node("localhost", "web", "service", "a", "127.0.0.1", "ready", 1, 0.0, 1, None, {"http": server.getsockname()[1]})
        scenario = Scenario("s", tmp_path / "inputs" / "scenario.yaml", traffic)
        driver = Driver(tmp_path, scenario, environment(tmp_path, node), ran, bootstrap="", operated=lambda op: (events.append(op), live.operation(op)),
                        said=lambda _: None, live=live)
        assert until(lambda: live.value(success) == 0.0, 60)
        begun = [event for event in events if event.type == "invoke"]
        driver.stop()
    assert len(begun) < 20
    assert driver.failure == ""
    assert live.value(success) is None  # the replay was stopped: what is left was never tried


class Fine(BaseHTTPRequestHandler):
    """Answers everything with 204."""

    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("late", [False, True])
def test_traffic_goes_on_after_its_time_until_it_is_closed(tmp_path: Path, late: bool) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "traffic.jsonl").write_text('{"op": "do", "http": "GET /", "key": "c"}\n')
    ran, begun = manifest(), []
    live = Live(lambda: time.monotonic_ns() - ran.clock_ns)
    with ThreadingHTTPServer(("127.0.0.1", 0), Fine) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        node = Node("localhost", "web", "service", "a", "127.0.0.1", "ready", 1, 0.0, 1, None, {"http": server.server_port})
        scenario = Scenario("s", tmp_path / "inputs" / "scenario.yaml",
                            Traffic(tmp_path / "inputs" / "traffic.jsonl", "web", 50.0, 2.0, in_order_by="key"))
        driver = Driver(tmp_path, scenario, environment(tmp_path, node), ran, bootstrap="", said=lambda _: None, live=live,
                        operated=lambda op: (begun.append(op) if op.type == "invoke" else None, live.operation(op)))
        driver.wait_begun()
        assert until(lambda: not late or (not driver.lasting and len(begun) > 120), 60)
        driver.close()
        assert until(lambda: not driver.alive, 60)
        server.shutdown()
    assert driver.failure == ""
    assert driver.planned is not None
    if late:
        assert driver.extended_s > 0
        assert len(begun) >= driver.planned > 100
    else:
        assert (driver.extended_s, driver.planned, len(begun)) == (0.0, 100, 100)
    driver.stop()
