import asyncio
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest
from aiohttp import web

from envctl.replay.config import DriverConfig


class Shop:
    """A real HTTP server in a thread, whose handler a test hands in."""

    def __init__(self, handle):
        self.seen = []
        self._handle = handle
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.run_forever()

    async def _serve(self):
        async def answer(request):
            self.seen.append((request.method, request.path_qs, dict(request.headers), await request.text(), time.monotonic()))
            return await self._handle(request)

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        self.runner = web.AppRunner(app)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"127.0.0.1:{self.runner.addresses[0][1]}"
        self._ready.set()

    def stop(self):
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


@pytest.fixture
def shop():
    shops = []

    def make(handle):
        shops.append(Shop(handle))
        return shops[-1]

    yield make
    for one in shops:
        one.stop()


def start(tmp_path, lines, address, **settings):
    (tmp_path / "traffic.jsonl").write_text("\n".join(map(json.dumps, lines)))
    config = {"to": "shop", "targets": {"shop": {"http": [address]}}, "zero_ns": time.monotonic_ns()} | settings
    DriverConfig(traffic=str(tmp_path / "traffic.jsonl"), **config).save(tmp_path / "config.json")
    command = [sys.executable, "-m", "envctl.replay.driver", str(tmp_path / "config.json")]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def events_of(process, status=0):
    out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    return [json.loads(line) for line in out.splitlines()]


def replay(tmp_path, lines, address, **settings):
    return events_of(start(tmp_path, lines, address, **settings))


def ended(events):
    return [event for event in events if event["kind"] == "op" and event["type"] != "invoke"]


async def fine(request):
    return web.json_response({"items": [{"sku": "A 1", "n": 3}], "id": "o-1"})


BROWSE = {"at": 0, "op": "browse", "http": "GET /products", "key": "c1"}
ORDER = {
    "at": 0, "op": "place_order", "http": "POST /orders/{{browse.items[0].sku}}", "key": "c1", "headers": {"Idempotency-Key": "{{uuid}}"},
    "body": {"n": "{{browse.items[0].n}}", "who": "{{key}}"},
}


def test_an_operation_is_invoked_and_ends_with_its_answer_and_its_trace_reaches_the_system(tmp_path, shop):
    server = shop(fine)
    events = replay(tmp_path, [BROWSE, ORDER], server.address, in_order=True)
    ops = [event for event in events if event["kind"] == "op"]
    assert [(op["f"], op["type"], op["op"]) for op in ops] == [
        ("browse", "invoke", 1), ("browse", "ok", 1), ("place_order", "invoke", 2), ("place_order", "ok", 2),
    ]
    assert ops[3]["value"] == {"status": 200, "body": {"items": [{"sku": "A 1", "n": 3}], "id": "o-1"}}
    method, path, headers, body, _ = server.seen[1]
    assert (method, path, json.loads(body)) == ("POST", "/orders/A%201", {"n": 3, "who": "c1"})
    assert uuid.UUID(headers["Idempotency-Key"]).version == 4
    assert ops[2]["value"]["headers"]["Idempotency-Key"] == headers["Idempotency-Key"]
    assert headers["traceparent"] == f"00-{ops[2]['trace_id']}-{ops[2]['trace_id'][16:]}-01"
    assert ops[2]["at_ns"] >= ops[2]["due_ns"] > 0
    assert events[-1]["message"] == "replay ended"
    assert events[-1]["detail"]["ok"] == 2


def test_uuids_come_from_the_seed(tmp_path, shop):
    server = shop(fine)
    for seed in (1, 1, 2):
        replay(tmp_path, [BROWSE, ORDER], server.address, in_order=True, rng_seed=seed)
    first, again, other = (headers["Idempotency-Key"] for method, _, headers, _, _ in server.seen if method == "POST")
    assert first == again != other


def test_operations_start_when_they_are_due_however_slow_the_system_is(tmp_path, shop):
    came = []
    all_here = asyncio.Event()

    async def slow(request):  # nobody is answered before everybody has asked
        came.append(request)
        if len(came) == 10:
            all_here.set()
        await all_here.wait()
        return web.json_response({})

    lines = [{"at": n / 20, "op": "browse", "http": "GET /x", "key": f"c{n}"} for n in range(10)]
    ops = [event for event in replay(tmp_path, lines, shop(slow).address) if event["kind"] == "op"]
    assert [op["type"] for op in ops] == ["invoke"] * 10 + ["ok"] * 10
    due = [op["due_ns"] for op in ops[:10]]
    assert [round((at - due[0]) / 1e6) for at in due] == [50 * n for n in range(10)]


def test_operations_of_a_key_wait_for_each_other_and_their_latency_counts_from_the_intended_start(tmp_path, shop):
    async def slow(request):
        await asyncio.sleep(0.3)
        return web.json_response({})

    lines = [{"at": 0, "op": f"op{n}", "http": "POST /x", "key": "c1"} for n in range(3)]
    ops = [event for event in replay(tmp_path, lines, shop(slow).address, in_order=True) if event["kind"] == "op"]
    assert [(op["f"], op["type"]) for op in ops] == [(f"op{n}", kind) for n in range(3) for kind in ("invoke", "ok")]
    assert ops[4]["at_ns"] - ops[4]["due_ns"] >= 600_000_000
    assert len({op["due_ns"] for op in ops if op["type"] == "invoke"}) == 1


def test_no_answer_in_time_is_unknown_and_never_a_failure(tmp_path, shop):
    async def stuck(request):
        await asyncio.sleep(2 if request.method == "GET" else 3)
        return web.json_response({})

    lines = [{"at": 0, "op": "read", "http": "GET /x"}, {"at": 0, "op": "write", "http": "POST /x"}]
    found = ended(replay(tmp_path, lines, shop(stuck).address, timeout_s=0.3))
    assert [(op["type"], op["value"]["error"]) for op in found] == [("info", "no answer within 0.3 s")] * 2


def test_a_refused_connection_is_a_failure_because_nothing_was_sent(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (op,) = ended(replay(tmp_path, [{"at": 0, "op": "write", "http": "POST /x"}], address))
    assert op["type"] == "fail"
    assert op["value"]["error"].startswith("no connection")
    assert "sent" not in op["value"]


def test_a_connection_that_breaks_after_the_request_leaves_a_write_unknown(tmp_path, shop):
    async def broken(request):
        request.transport.abort()
        await asyncio.sleep(1)

    lines = [{"at": 0, "op": "write", "http": "POST /x"}, {"at": 0, "op": "read", "http": "GET /x"}]
    found = {op["f"]: op for op in ended(replay(tmp_path, lines, shop(broken).address))}
    assert found["write"]["type"] == "info"
    assert found["read"]["type"] == "fail"
    assert found["write"]["value"]["error"].startswith("connection lost")


def test_what_depends_on_a_failed_operation_is_not_sent_and_says_why(tmp_path, shop):
    async def refusing(request):
        return web.json_response({"error": "no"}, status=404)

    server = shop(refusing)
    events = replay(tmp_path, [BROWSE, ORDER], server.address, in_order=True)
    found = ended(events)
    assert [op["type"] for op in found] == ["fail", "fail"]
    assert found[1]["value"] == {"error": "not sent: browse of key 'c1' has not succeeded", "sent": False}
    assert [method for method, *_ in server.seen] == ["GET"]
    assert events[-1]["detail"]["unsent"] == 1


def test_replicas_take_turns(tmp_path, shop):
    servers = [shop(fine), shop(fine)]
    lines = [{"at": 0, "op": "read", "http": "GET other/x"}] * 6
    targets = {"shop": {"http": ["127.0.0.1:1"]}, "other": {"http": [one.address for one in servers]}}
    replay(tmp_path, lines, "", targets=targets)
    assert [len(one.seen) for one in servers] == [3, 3]


def test_the_closed_model_does_one_operation_of_a_key_after_the_other(tmp_path, shop):
    async def slow(request):
        await asyncio.sleep(0.1)
        return web.json_response({})

    lines = [{"at": 0, "op": "read", "http": "GET /x", "key": key} for key in ("a", "b")]
    ops = [event for event in replay(tmp_path, lines, shop(slow).address, model="closed", duration_s=3.0) if event["kind"] == "op"]
    for key in ("a", "b"):
        kinds = [op["type"] for op in ops if op["process"].split("~")[0] == key]
        assert kinds == ["invoke", "ok"] * (len(kinds) // 2)
        assert 2 <= len(kinds) // 2 <= 30


@pytest.mark.parametrize("model", ["open", "closed"])
def test_traffic_that_is_to_be_told_its_end_goes_on_until_it_was(tmp_path, shop, model):
    lines = [{"at": 0, "op": "read", "http": "GET /x", "key": "a"}]
    process = start(tmp_path, lines, shop(fine).address, model=model, rate_per_s=50.0, duration_s=0.2, until_told=True)
    begin_ns = json.loads(process.stdout.readline())["detail"]["begin_ns"]
    ops = (event for line in process.stdout if (event := json.loads(line))["kind"] == "op" and event["type"] == "invoke")
    while next(ops)["due_ns"] < begin_ns + 0.6e9:
        pass
    process.stdin.write("4.0\n")
    process.stdin.flush()
    last = list(ops)[-1]
    assert process.wait(60) == 0
    assert last["due_ns"] - begin_ns < 4e9
    if model == "open":
        assert last["op"] == 200


def test_traffic_ends_with_whoever_could_have_told_its_end(tmp_path, shop):
    lines = [{"at": 0, "op": "read", "http": "GET /x"}]
    process = start(tmp_path, lines, shop(fine).address, rate_per_s=50.0, duration_s=3600.0, until_told=True)
    json.loads(process.stdout.readline())
    events = events_of(process)
    assert events[-1]["message"] == "replay ended"


def test_after_sigterm_nothing_starts_and_what_is_under_way_ends(tmp_path, shop):
    async def slow(request):
        await asyncio.sleep(0.5)
        return web.json_response({})

    server = shop(slow)
    lines = [{"at": n * 0.2, "op": "write", "http": "POST /x", "key": f"c{n}"} for n in range(1000)]
    process = start(tmp_path, lines, server.address)
    deadline = time.monotonic() + 30
    while not server.seen:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    events = events_of(process)
    ops = [event for event in events if event["kind"] == "op"]
    assert len(server.seen) == sum(op["type"] == "invoke" for op in ops) == sum(op["type"] == "ok" for op in ops) < 1000
    assert events[-1]["message"] == "replay ended"


@pytest.mark.parametrize(("line", "message"), [
    ({"op": "a", "http": "GET nowhere/x"}, "'nowhere' has no http port"),
    ({"op": "a", "kafka": "topic"}, "the environment has none"),
    ({"op": "a", "http": "GET"}, "traffic.jsonl:1: http: found 'GET'"),
])
def test_traffic_that_has_nowhere_to_go_is_refused_before_anything_is_sent(tmp_path, line, message):
    process = start(tmp_path, [line], "127.0.0.1:1")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_the_driver_ends_when_nobody_reads_its_events(tmp_path, shop):
    lines = [{"at": n * 0.01, "op": "write", "http": "POST /x"} for n in range(3000)]
    process = start(tmp_path, lines, shop(fine).address)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 1
    process.stderr.close()
