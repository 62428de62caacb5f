import http.client
import json
import os
import subprocess
import sys
import time

import grpc
import pytest
from loopback_broker import free_port

from envctl.errors import UsageError
from envctl.replay.config import DriverConfig
from envctl.replay.grpcjson import compile_protos
from envctl.replay.matching import covers
from envctl.waiting import until

PROTO = """
syntax = "proto3";
package shop.fraud.v1;
import "google/protobuf/timestamp.proto";
service Fraud {
  rpc Check(Order) returns (Verdict);
  rpc Watch(Order) returns (stream Verdict);
}
message Order { string order_id = 1; int64 cents = 2; google.protobuf.Timestamp at = 3; }
message Verdict { string verdict = 1; repeated string reasons = 2; }
"""
EXAMPLES = """
envctl: examples/v1
http:
  - {request: {path: "/prices/{sku}?currency=EUR"}, response: {body: {sku: "{sku}", price: 12.5}}}
  - {request: {method: POST, path: /orders, body: {lines: [{sku: A}]}}, response: {status: 201, headers: {X-Stub: "yes"}, body: {id: 1}}}
grpc:
  proto: fraud.proto
  examples:
    - {method: shop.fraud.v1.Fraud/Check, request: {order_id: bad}, response: {verdict: REJECT, reasons: [known]}}
    - {method: shop.fraud.v1.Fraud/Check, request: {cents: "5"}, response: {verdict: ACCEPT}}
"""


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "fraud.proto").write_text(PROTO)
    (tmp_path / "examples.yaml").write_text(EXAMPLES)
    return tmp_path


class Running:
    def __init__(self, file):
        self.http, self.grpc = free_port(), free_port()
        command = [sys.executable, "-m", "envctl.replay.stub", "--examples", str(file), "--http", str(self.http), "--grpc", str(self.grpc)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert json.loads(self.process.stdout.readline()) == {"stub": {"serves": {"http": self.http, "grpc": self.grpc}}}

    def ask(self, method, path, body=None):
        link = http.client.HTTPConnection("127.0.0.1", self.http, timeout=10)
        link.request(method, path, body=json.dumps(body) if body is not None else None)
        answer = link.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers

    def end(self):
        self.process.terminate()
        rest = self.process.communicate(timeout=20)[0]
        assert self.process.returncode == 0
        return [json.loads(line)["stub"] for line in rest.splitlines()]


@pytest.fixture
def stub(directory):
    running = Running(directory / "examples.yaml")
    yield running
    if running.process.poll() is None:
        running.end()


def test_an_http_example_answers_what_it_covers_and_nothing_else(stub):
    assert stub.ask("GET", "/prices/A%201?x=1&currency=EUR")[:2] == (200, {"sku": "A 1", "price": 12.5})
    status, body, headers = stub.ask("POST", "/orders", {"lines": [{"sku": "A", "n": 2}], "who": "me"})
    assert (status, body, headers["X-Stub"]) == (201, {"id": 1}, "yes")
    for method, path, given in (("GET", "/prices/A", None), ("POST", "/orders", {"lines": []}), ("PUT", "/prices/A?currency=EUR", None)):
        status, body, _ = stub.ask(method, path, given)
        assert status == 501
        assert f"no example covers {method} {path}" in body["error"]
    assert stub.ask("GET", "/ready")[0] == 200
    counts = [event["counts"] for event in stub.end() if "counts" in event][-1]
    assert counts == {"GET /prices/{sku}?currency=EUR": 1, "POST /orders": 1, "unmatched": 3}


def test_a_grpc_example_answers_what_it_covers_and_health_says_serving(stub, directory):
    method = compile_protos([directory / "fraud.proto"])["shop.fraud.v1.Fraud/Check"]
    with grpc.insecure_channel(f"127.0.0.1:{stub.grpc}") as channel:
        call = channel.unary_unary("/shop.fraud.v1.Fraud/Check")

        def check(**fields):
            return method.decode(method.response, call(method.encode(method.request, fields), timeout=10))

        assert check(order_id="bad", cents=5) == {"verdict": "REJECT", "reasons": ["known"]}
        assert check(cents=5, at="2026-01-01T00:00:00Z") == {"verdict": "ACCEPT"}
        with pytest.raises(grpc.RpcError, match=r"no example covers shop.fraud.v1.Fraud/Check") as caught:
            check(cents=6)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"


def told(**request):
    """What the stub answers when it is told to fail."""
    command = [sys.executable, "-m", "envctl.replay.failing", json.dumps(request)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout)


def test_a_stub_that_is_told_to_fail_does_so_until_it_is_healed_or_the_lease_has_run_out(stub, directory):
    method = compile_protos([directory / "fraud.proto"])["shop.fraud.v1.Fraud/Check"]
    price, wire = ("GET", "/prices/A?currency=EUR"), method.encode(method.request, {"cents": 5})
    with grpc.insecure_channel(f"127.0.0.1:{stub.grpc}") as channel:
        call = channel.unary_unary("/shop.fraud.v1.Fraud/Check")
        assert told(how="errors", share=1.0, lease_s=60) == {"how": "errors", "asked": 0, "failed": 0}
        assert stub.ask(*price)[0] == 503
        with pytest.raises(grpc.RpcError) as caught:
            call(wire, timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stub.ask("GET", "/ready")[0] == 200, "it is there all the same"
        assert channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=10) == b"\x08\x01"
        assert told(how="errors", share=1.0, lease_s=60) == {"how": "errors", "asked": 2, "failed": 2}, "a renewal goes on counting"

        told(how="malformed", share=1.0, lease_s=60)
        with pytest.raises(json.JSONDecodeError):
            stub.ask(*price)
        with pytest.raises(ValueError, match=r"no shop\.fraud"):
            method.decode(method.response, call(wire, timeout=10))

        told(how="timeouts", share=1.0, lease_s=60)
        with pytest.raises(grpc.RpcError) as caught:
            call(wire, timeout=0.3)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert told(how="") == {"how": "", "asked": 1, "failed": 1}
        assert stub.ask(*price)[0] == 200
        told(how="errors", share=1.0, lease_s=0.01)
        assert until(lambda: not told()["how"], 10)
        assert stub.ask(*price)[0] == 200
        told(how="errors", share=0.5, lease_s=60)
        failed = sum(stub.ask(*price)[0] == 503 for _ in range(100))
        assert told() == {"how": "errors", "asked": 100, "failed": failed}
        assert 20 < failed < 80


def test_the_replay_driver_speaks_grpc_by_json(stub, directory):
    lines = [{"at": 0, "op": f"check{n}", "grpc": "shop.fraud.v1.Fraud/Check", "body": {"cents": n}} for n in (5, 6)]
    (directory / "traffic.jsonl").write_text("\n".join(map(json.dumps, lines)))
    DriverConfig(
        traffic=str(directory / "traffic.jsonl"), to="fraud", targets={"fraud": {"grpc": [f"127.0.0.1:{stub.grpc}"]}},
        zero_ns=time.monotonic_ns(), protos=(str(directory / "fraud.proto"),),
    ).save(directory / "config.json")
    command = [sys.executable, "-m", "envctl.replay.driver", str(directory / "config.json")]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    ended = {event["f"]: event for event in map(json.loads, out.splitlines()) if event.get("type") in ("ok", "fail", "info")}
    assert ended["check5"]["type"] == "ok"
    assert ended["check5"]["value"] == {"status": "OK", "body": {"verdict": "ACCEPT"}}
    assert ended["check6"]["type"] == "fail"
    assert ended["check6"]["value"]["status"] == "UNIMPLEMENTED"


def test_only_unary_methods_are_found_and_what_does_not_fit_is_refused(directory):
    (method,) = compile_protos([directory / "fraud.proto"]).values()
    with pytest.raises(UsageError, match=r"shop\.fraud\.v1\.Order can't hold this"):
        method.encode(method.request, {"colour": "red"})
    with pytest.raises(ValueError, match=r"no shop.fraud"):
        method.decode(method.request, b"\xff")
    (directory / "bad.proto").write_text("syntax = 'proto3'; service {")
    with pytest.raises(UsageError, match=r"bad\.proto could not be compiled"):
        compile_protos([directory / "bad.proto"])


def test_true_is_not_one():
    assert not covers({"n": True}, {"n": 1})
    assert covers({"n": 1}, {"n": 1.0, "m": os.name})
