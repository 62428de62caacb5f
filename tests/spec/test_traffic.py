import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import SpecError
from envctl.spec import traffic

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
    lines = traffic.load_traffic(written(tmp_path, BROWSE, ORDER, CHECK, EVENT))
    found = {line.op: (line.protocol, line.method, line.path, line.to) for line in lines}
    assert found == {
        "browse": ("http", "GET", "/products?page=1", ""), "place_order": ("http", "POST", "/orders", "orders"),
        "check": ("grpc", "shop.fraud.v1.Fraud/Check", "", "fraud"), "event": ("kafka", "orders.placed", "", ""),
    }
    assert [line.at_s for line in lines] == [0, 0.04, 0.04, 0.04]  # where it is left out it is that of the line above


@pytest.mark.parametrize(("change", "field", "message"), [
    ({"at": -1}, "at", "seconds since the start"),
    ({"at": True}, "at", "seconds since the start"),
    ({"at": float("nan")}, "at", "seconds since the start"),
    ({"at": 1.5}, "at", "before the operation above it (2)"),
    ({"op": "place order"}, "op", "the operation's name"),
    ({"op": "uuid"}, "op", "a word of templates"),
    ({"http": "FETCH /orders"}, "http", "METHOD /path"),
    ({"http": "POST orders"}, "http", "METHOD /path"),
    ({"http": "POST /a b"}, "http", "METHOD /path"),
    ({"grpc": "a.B/C"}, "", "one of http, grpc or kafka"),
    ({"to": "orders"}, "to", "in `http` and in `to`"),
    ({"key": 5}, "key", "allowed: text"),
    ({"headers": {"n": 1}}, "headers", "names and texts"),
    ({"wait": 1}, "wait", "unknown field"),
    ({"body": "{{a b}}"}, "body", "is no template"),
])
def test_each_mistake_in_a_line_is_named(change, field, message):
    wrong = traffic.wrong_in(ORDER | {"at": 2} | change, last_s=2)
    assert [(where, message in said) for where, said, _ in wrong] == [(field, True)]


@pytest.mark.parametrize(("change", "field"), [({"grpc": "Fraud.Check"}, "grpc"), ({"body": [1]}, "body"), ({"grpc": 5}, "grpc")])
def test_each_mistake_in_a_grpc_line_is_named(change, field):
    assert [where for where, _, _ in traffic.wrong_in(CHECK | change)] == [field]


def test_every_problem_of_a_file_is_told_at_once_with_its_line(tmp_path):
    file = written(tmp_path, BROWSE, "{not json", ORDER | {"key": "c99"}, {"op": "x"}, "[]")
    with pytest.raises(SpecError) as caught:
        traffic.load_traffic(file)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5]
    assert "no earlier line of key 'c99' is called 'browse'" in str(caught.value)


def test_a_reference_to_a_line_that_is_broken_itself_is_no_second_problem(tmp_path):
    lines, problems = traffic.read_traffic(written(tmp_path, BROWSE | {"http": "GET products"}, ORDER))
    assert [problem.line for problem in problems] == [1]
    assert [line.op for line in lines] == ["place_order"]


def test_many_problems_are_cut_short(tmp_path):
    _, problems = traffic.read_traffic(written(tmp_path, *[{"op": "x"}] * 30))
    assert len(problems) == 21
    assert (problems[-1].line, problems[-1].message) == (21, "… and 10 more problems from here on")


def test_a_reference_without_a_key_is_refused():
    line = {name: value for name, value in ORDER.items() if name != "key"}
    assert any("the line has no `key`" in said for _, said, _ in traffic.wrong_in(line))


def test_an_empty_file_is_an_error(tmp_path):
    with pytest.raises(SpecError, match="no operation"):
        traffic.load_traffic(written(tmp_path))


@given(st.dictionaries(st.sampled_from(traffic.FIELDS), st.one_of(
    st.none(), st.integers(), st.text(max_size=8), st.lists(st.integers()), st.dictionaries(st.text(max_size=3), st.integers()))))
def test_any_object_is_checked_without_an_exception_and_what_passes_can_be_parsed(obj):
    if not traffic.wrong_in(obj):
        traffic.parse(obj, 1)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_as_problems(tmp_path_factory, data):
    file = tmp_path_factory.mktemp("any") / "traffic.jsonl"
    file.write_bytes(data)
    lines, problems = traffic.read_traffic(file)
    assert lines or problems
