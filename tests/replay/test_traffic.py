import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import SpecError
from envctl.replay import traffic

BROWSE = {"at": 0.0, "op": "browse", "http": "GET /products?page=1", "key": "c17"}
ORDER = {
    "at": 0.04, "op": "place_order", "http": "POST orders/orders", "key": "c17", "headers": {"Idempotency-Key": "{{uuid}}"},
    "body": {"sku": "{{browse.items[0].sku}}", "quantity": 1},
}
CHECK = {"op": "check", "grpc": "shop.fraud.v1.Fraud/Check", "to": "fraud", "body": {"amount": 5}}
EVENT = {"op": "event", "kafka": "orders.placed", "key": "c1", "body": {"id": "{{uuid}}"}}


def written(tmp_path, *objects):
    file = tmp_path / "traffic.jsonl"
    file.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in objects))
    return file


def test_every_protocol_is_read(tmp_path):
    lines = traffic.load(written(tmp_path, BROWSE, ORDER, CHECK, EVENT))
    found = {line.op: (line.protocol, line.method, line.path, line.to) for line in lines}
    assert found == {
        "browse": ("http", "GET", "/products?page=1", ""), "place_order": ("http", "POST", "/orders", "orders"),
        "check": ("grpc", "shop.fraud.v1.Fraud/Check", "", "fraud"), "event": ("kafka", "orders.placed", "", ""),
    }


@pytest.mark.parametrize(("change", "message"), [
    ({"at": -1}, "`at` must be"),
    ({"at": True}, "`at` must be"),
    ({"at": float("nan")}, "`at` must be"),
    ({"op": "place order"}, "`op` must name"),
    ({"op": "uuid"}, "which templates use"),
    ({"http": "FETCH /orders"}, "`http` must be"),
    ({"http": "POST orders"}, "`http` must be"),
    ({"http": "POST /a b"}, "`http` must be"),
    ({"grpc": "a.B/C"}, "exactly one of"),
    ({"to": "orders"}, "leave one out"),
    ({"key": 5}, "`key` must be"),
    ({"headers": {"n": 1}}, "`headers` must be"),
    ({"wait": 1}, "'wait' is not a field"),
    ({"body": "{{a b}}"}, "is no template"),
])
def test_each_mistake_in_a_line_is_named(change, message):
    assert any(message in wrong for wrong in traffic.check_line(ORDER | change))


def test_every_problem_of_a_file_is_told_at_once_with_its_line(tmp_path):
    file = written(tmp_path, BROWSE, "{not json", ORDER | {"key": "c99"}, {"op": "x"})
    with pytest.raises(SpecError) as caught:
        traffic.load(file)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4]
    assert "no earlier line of key 'c99' is called 'browse'" in str(caught.value)


def test_a_reference_without_a_key_is_refused():
    line = {name: value for name, value in ORDER.items() if name != "key"}
    assert any("the line has no `key`" in wrong for wrong in traffic.check_line(line))


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="no operation"):
        traffic.load(written(tmp_path))


@given(st.one_of(st.none(), st.integers(), st.lists(st.integers()), st.dictionaries(st.sampled_from(traffic.FIELDS), st.one_of(
    st.none(), st.integers(), st.text(max_size=8), st.lists(st.integers()), st.dictionaries(st.text(max_size=3), st.integers())))))
def test_any_json_is_checked_without_an_exception_and_what_passes_can_be_parsed(obj):
    if not traffic.check_line(obj):
        traffic.parse(obj, 1)


def lines_at(*times):
    return tuple(traffic.parse(BROWSE | {"at": at}, number) for number, at in enumerate(times, start=1))


@given(st.integers(1, 7), st.floats(0.5, 200), st.floats(0.1, 5))
def test_with_a_rate_operation_i_is_due_at_i_over_rate_until_the_duration_is_over(count, rate, duration):
    due = list(traffic.schedule(lines_at(*range(count)), rate, duration))
    assert [one.due_s for one in due] == [index / rate for index in range(len(due))]
    assert len(due) / rate >= duration > (len(due) - 1) / rate
    assert [one.line.number for one in due] == [index % count + 1 for index in range(len(due))]
    assert len({(one.key, one.line.number) for one in due}) == len(due)


def test_without_a_rate_the_file_keeps_its_pace_and_ends_once():
    assert [one.due_s for one in traffic.schedule(lines_at(0, 0.5, 2), None, None)] == [0, 0.5, 2]


def test_a_shorter_file_is_repeated_in_its_own_pace_with_new_keys():
    due = list(itertools.islice(traffic.schedule(lines_at(0, 1, 2), None, 100), 5))
    assert [(one.due_s, one.key) for one in due] == [(0, "c17"), (1, "c17"), (2, "c17"), (3, "c17~2"), (4, "c17~2")]
