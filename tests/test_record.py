"""Writing a record and reading it again."""

from __future__ import annotations

import json
import os
import threading
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from envctl.errors import UsageError
from envctl.model.environment import Node
from envctl.model.event import FaultEdge, Log, Observation, Op, Sample, Step
from envctl.model.plan import Selection
from envctl.model.scenario import Scenario, Stream, Traffic
from envctl.record import EVENTS, Record, RecordWriter, RunManifest, pick
from envctl.record.writer import encode

MANIFEST = RunManifest(
    id="r1", scenario="s", stack="shop", env_id="shop-main-1", commit="a1b2", branch="main", rng_seed=7, started_at=1.5,
    clock_ns=10, epoch_ns=20, components=(Selection("orders", "changed", ("orders/app.py",)),), stubbed=("fraud",),
    left_out=("mail",), nodes=(Node("orders-0", "orders", "service", "a", "198.18.1.1", "ready", 7, 1.0, 1, None, {"http": 80}),),
    versions={"envctl": "0.1.0"}, machine={"cores": 2},
)


def scenario(**streams: Stream) -> Scenario:
    traffic = Traffic(Path("t.jsonl"), "gateway", 50.0, 30.0)
    return Scenario("s", Path("scenarios/s.yaml"), traffic, streams=streams)


def written(directory: Path, *events: object) -> None:
    MANIFEST.save(directory)
    writer = RecordWriter(directory / EVENTS)
    for event in events:
        writer.write(event)  # type: ignore[arg-type]
    writer.close()


ACCEPTED = Stream("accepted", operation="place_order", fields={"id": "response.order_id", "key": "request.customer"})
SETTLED = Stream("settled", topic="payments.settled", fields={"id": "value.order_id"})


def test_a_manifest_comes_back_as_it_was_saved(tmp_path):
    MANIFEST.save(tmp_path)
    assert RunManifest.load(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_manifest_of_another_version_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"format": "run/v9"}')
    with pytest.raises(UsageError, match="run/v1"):
        RunManifest.load(tmp_path)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        Record.load(tmp_path)


def test_a_run_without_events_is_refused_when_they_are_asked_for(tmp_path):
    MANIFEST.save(tmp_path)
    with pytest.raises(UsageError, match="is missing"):
        _ = Record.load(tmp_path, scenario()).operations


def test_operations_are_joined_and_their_streams_derived(tmp_path):
    written(
        tmp_path,
        Op(at_ns=5, op=1, process="c1", type="invoke", f="place_order", key="c1", due_ns=3, target="gateway", trace_id="ab",
           value={"method": "POST", "path": "/orders", "body": {"customer": "c1"}}),
        Op(at_ns=6, op=2, process="c2", type="invoke", f="place_order", key="c2", due_ns=6, value={"body": {"customer": "c2"}}),
        Op(at_ns=9, op=1, process="c1", type="ok", f="place_order", value={"status": 201, "body": {"order_id": 77}}),
        Op(at_ns=9, op=3, process="c2", type="invoke", f="place_order", due_ns=9, value={"body": {"customer": "c3"}}),
        Op(at_ns=12, op=2, process="c2", type="info", f="place_order", value={"error": "timed out"}),
    )
    record = Record.load(tmp_path, scenario(accepted=ACCEPTED))
    first, second, third = record.operations
    assert (first.type, first.due_ns, first.start_ns, first.end_ns, first.latency_ns, first.trace_id) == ("ok", 3, 5, 9, 6, "ab")
    assert first.request["path"] == "/orders"
    assert first.response["status"] == 201
    assert (second.type, second.response) == ("info", {"error": "timed out"})
    assert (third.type, third.end_ns, third.latency_ns, third.response) == ("info", None, None, {})
    (accepted,) = record.stream("accepted")
    assert (accepted.id, accepted.key, accepted.start_ns, accepted.at_ns, accepted.op) == ("77", "c1", 5, 9, 1)
    assert record.by_number(2) is second
    assert record.by_number(9) is None


def test_only_the_newest_round_of_a_stream_counts(tmp_path):
    written(
        tmp_path,
        Step(at_ns=1, name="observe", edge="begin", detail={"stream": "settled"}),
        Observation(at_ns=1, stream="settled", id="a", source={"topic": "t", "partition": 2, "offset": 311}),
        Step(at_ns=2, name="observe", edge="end", ok=True, detail={"stream": "settled"}),
        Step(at_ns=3, name="observe", edge="begin", detail={"stream": "settled"}),
        Observation(at_ns=1, stream="settled", id="a", source={"topic": "t", "partition": 2, "offset": 311}),
        Observation(at_ns=2, stream="settled", id="b", source={"topic": "t", "partition": 2, "offset": 312}),
        Step(at_ns=4, name="observe", edge="end", ok=True, detail={"stream": "settled"}),
    )
    record = Record.load(tmp_path, scenario(settled=SETTLED))
    assert [observed.id for observed in record.stream("settled")] == ["a", "b"]
    assert record.source(record.stream("settled")[1]) == {"topic": "t", "partition": 2, "offset": 312}
    assert record.stream("settled")[0].partition == 2
    assert record.read_at("settled") == 3
    assert record.unread("settled") == ""


def test_a_stream_says_why_it_can_not_be_relied_on(tmp_path):
    begin = Step(at_ns=1, name="observe", edge="begin", detail={"stream": "settled"})
    failed = Step(at_ns=2, name="observe", edge="end", ok=False, detail={"stream": "settled", "error": "no broker"})
    for events, reason in (((), "never read"), ((begin,), "cut short"), ((begin, failed), "no broker")):
        directory = tmp_path / reason.replace(" ", "-")
        directory.mkdir()
        written(directory, Step(at_ns=0, name="traffic", edge="begin"), *events)
        record = Record.load(directory, scenario(settled=SETTLED, accepted=ACCEPTED))
        assert reason in record.unread("settled")
        assert record.unread("accepted") == ""
        assert "nothing called" in record.unread("other")


def test_fault_windows_run_from_the_journal_to_the_proof_of_absence(tmp_path):
    stages = (("probe", 1), ("journal", 5), ("apply", 6), ("verify", 7), ("hold", 9), ("heal", 10), ("absent", 12), ("recover", 20))
    written(tmp_path, *(FaultEdge(at_ns=at, id="loss", fault="packet-loss", edge=edge, ok=True) for edge, at in stages),
            FaultEdge(at_ns=30, id="kill", fault="node-kill", edge="probe", ok=False))  # type: ignore[arg-type]
    loss, kill = Record.load(tmp_path, scenario()).faults
    assert (loss.start_ns, loss.end_ns) == (5, 12)
    assert loss.overlaps(15, 16)
    assert not loss.overlaps(21, 22)
    assert not loss.overlaps(0, 4)
    assert (kill.start_ns, kill.overlaps(0, 100)) == (None, False)


def test_an_unknown_sample_stays_unknown(tmp_path):
    written(tmp_path, Sample(at_ns=1, measure="lag", value=None), Sample(at_ns=2, measure="lag", value=3.0, attrs={"group": "g"}),
            Log(at_ns=2, level="info", message="m"))
    record = Record.load(tmp_path, scenario())
    assert [sample.value for sample in record.samples("lag")] == [None, 3.0]
    assert (record.measures, record.samples("other"), record.end_ns, record.count) == (("lag",), (), 2, 3)
    assert record.logs[0].message == "m"


def test_a_line_in_the_middle_that_is_no_event_is_an_error_that_says_where(tmp_path):
    written(tmp_path, Log(at_ns=1, level="info", message="m"))
    with (tmp_path / EVENTS).open("a") as file:
        file.write("{broken}\n")
    with pytest.raises(UsageError, match="byte 74"):
        _ = Record.load(tmp_path, scenario()).count


@given(st.integers(0, 400))
def test_a_file_cut_anywhere_reads_up_to_its_last_whole_line_and_can_be_continued(cut):
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        written(directory, *(Log(at_ns=at, level="info", message="grüße\n") for at in range(5)))
        path = directory / EVENTS
        content = path.read_bytes()[:cut]
        path.write_bytes(content)
        whole = content.count(b"\n")
        assert Record.load(directory, scenario()).count == whole
        writer = RecordWriter(path)
        assert writer.write(Log(at_ns=9, level="info", message="next")) == whole + 1
        writer.close()
        assert Record.load(directory, scenario()).count == whole + 1


def test_threads_write_whole_lines_with_a_gapless_sequence(tmp_path):
    writer = RecordWriter(tmp_path / EVENTS)
    threads = [threading.Thread(target=lambda: [writer.write(Log(at_ns=1, level="info", message="x" * 500)) for _ in range(200)])
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert [json.loads(line)["seq"] for line in (tmp_path / EVENTS).read_text().splitlines()] == list(range(1, 801))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [("response.items[1].sku", "b"), ("response.status", 200), ("request.headers.X-Id", "9"), ("key", "k"),
     ("response.items[7].sku", None), ("response.none.deeper", None), ("value.a", None), ("response.items.sku", None)],
)
def test_an_expression_names_a_field_of_the_body_or_beside_it(expression, expected):
    roots = {"response": {"status": 200, "body": {"items": [{"sku": "a"}, {"sku": "b"}]}},
             "request": {"headers": {"X-Id": "9"}, "body": None}, "key": "k"}
    assert pick(expression, roots) == expected


@given(st.decimals())
@example(Decimal("1E+999999"))
@example(Decimal("1E-999999"))
@example(Decimal("0.1234567890123456789"))
def test_a_decimal_is_a_number_of_the_same_value_or_else_its_text(value):
    kept = json.loads(encode(Observation(at_ns=1, stream="rows", value=value), 1))["value"]
    assert kept == str(value) if isinstance(kept, str) else Decimal(str(kept)) == value


@pytest.mark.parametrize(("value", "kept"), [("10", 10), ("10.00", 10), ("9.5", 9.5), ("-0.1", -0.1), ("NaN", "NaN")])
def test_the_order_of_a_numeric_column_is_a_number(value, kept):
    line = json.loads(encode(Observation(at_ns=1, stream="rows", order=Decimal(value)), 1))  # type: ignore[arg-type]
    assert (line["order"], type(line["order"])) == (kept, type(kept))


def test_an_event_the_disk_refuses_leaves_no_half_line(tmp_path, monkeypatch):
    writer = RecordWriter(tmp_path / "events.jsonl")
    writer.write(Log(at_ns=1, level="info", message="whole"))
    real, written = os.write, []

    def full(fd, data):
        if written:
            raise OSError(28, "disk full")
        written.append(real(fd, bytes(data)[:5]))
        return written[0]

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(OSError, match="disk full"):
            writer.write(Log(at_ns=2, level="info", message="half"))
    assert writer.write(Log(at_ns=3, level="info", message="next")) == 2
    assert [json.loads(line)["message"] for line in (tmp_path / "events.jsonl").read_text().splitlines()] == ["whole", "next"]
