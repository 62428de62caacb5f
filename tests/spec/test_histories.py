"""Reading histories: pairing, unknown outcomes, and every problem with its line."""

from __future__ import annotations

import gc

import pytest

from envctl.consistency import PROPERTIES
from envctl.errors import SpecError
from envctl.model.history import Operation
from envctl.spec.histories import load_history

WRITE = '{"process": 0, "type": "invoke", "f": "write", "key": "x", "value": 1, "index": 7, "time": 12}'


@pytest.fixture
def read(tmp_path):
    """Reads a history of these lines."""

    def of(*lines, fits=None):
        path = tmp_path / "h.jsonl"
        path.write_bytes("\n".join(lines).encode())
        return load_history(path, fits).operations

    return of


def problems(read, *lines, fits=None):
    with pytest.raises(SpecError) as raised:
        read(*lines, fits=fits)
    return [(each.line, each.field, each.message) for each in raised.value.problems]


def test_a_completion_belongs_to_its_process_open_invocation(read):
    assert read(
        WRITE,
        '{"process": "b", "type": "invoke", "f": "read"}',
        '{"process": "b", "type": "ok", "value": 1}',
        '{"process": 0, "type": "fail", "f": "write", "key": "x", "error": "no leader"}',
    ) == [
        Operation(7, 0, "write", "x", 1, None, "fail", 1, 4, 12),
        Operation(2, "b", "read", None, None, 1, "ok", 2, 3),
    ]


def test_what_is_told_to_be_unknown_and_what_is_never_completed_is_unknown(read):
    told, never = read(WRITE, '{"process": 0, "type": "info", "value": 5}', '{"process": 1, "type": "invoke", "f": "read"}')
    assert (told.outcome, told.ended, never.outcome, never.ended) == ("info", None, "info", None)


def test_blank_lines_and_what_the_nemesis_says_are_passed_over(read):
    lines = ('{"process": "nemesis", "type": "info", "f": "kill", "value": ["n1"], "node": "n1"}', "", WRITE, "  ",
             '{"process": "nemesis", "type": "info"}', '{"process": 0, "type": "ok"}\r', "")
    assert [(each.began, each.ended) for each in read(*lines)] == [(3, 6)]


def test_numbers_and_names_of_processes_are_not_confused(read):
    assert len(read(WRITE, WRITE.replace('"process": 0', '"process": "0"').replace("7", "8"))) == 2


def test_large_numbers_stay_what_they_are(read):
    assert read(WRITE.replace('"value": 1', '"value": 123456789012345678901234567890'))[0].asked == 123456789012345678901234567890


@pytest.mark.parametrize(("line", "field", "words"), [
    ("{", "", "is not valid JSON"),
    ("[1]", "", "found no JSON object"),
    ('{"process": 0, "type": "invoke", "f": "read", "value": NaN}', "", "malformed"),
    ('{"process": 0, "type": "invoke"}', "f", "is missing"),
    ('{"process": 0, "type": "invoke", "f": 3}', "f", "found 3, allowed: a name"),
    ('{"process": 0, "type": "invoked", "f": "read"}', "type", "found 'invoked', allowed: invoke, ok, fail, info"),
    ('{"process": 0, "type": ["ok"], "f": "read"}', "type", "found ['ok'], allowed: invoke, ok, fail, info"),
    ('{"process": true, "type": "invoke", "f": "read"}', "process", "found True, allowed: a number or a name"),
    ('{"type": "invoke", "f": "read"}', "process", "found None, allowed: a number or a name"),
    ('{"process": 0, "type": "invoke", "f": "read", "key": [1]}', "key", "found [1], allowed: a number, a name or null"),
    ('{"process": 0, "type": "invoke", "f": "read", "time": 1.5}', "time", "found 1.5, allowed: nanoseconds, a whole number"),
    ('{"process": 0, "type": "invoke", "f": "read", "index": "1"}', "index", "found '1', allowed: a whole number"),
    ('{"process": 0, "type": "invoke", "f": "read", "kye": 1}', "kye", "unknown field"),
    ('{"process": 0, "type": "ok", "f": "read"}', "process", "0 has nothing to complete: no invocation is open"),
])
def test_a_broken_line_is_a_problem_of_its_line(read, line, field, words):
    found = problems(read, '{"process": 9, "type": "invoke", "f": "read"}', line)
    assert [(number, name) for number, name, _ in found] == [(2, field)]
    assert words in found[0][2]


def test_text_that_is_no_unicode_is_a_problem_of_its_line(tmp_path):
    (tmp_path / "h.jsonl").write_bytes(WRITE.encode() + b'\n{"process": "\xff"}\n')
    with pytest.raises(SpecError, match=r"h\.jsonl:2: is not UTF-8 text"):
        load_history(tmp_path / "h.jsonl")


def test_a_process_does_one_operation_at_a_time_and_may_go_on_after_an_unknown_one(read):
    again = WRITE.replace('"index": 7, ', "")
    assert problems(read, again, again) == [(2, "process", "0 has not completed its 'write' of line 1")]
    first, second = read(again, '{"process": 0, "type": "info"}', again, '{"process": 0, "type": "ok"}')
    assert (first.outcome, first.ended, second.outcome, second.ended) == ("info", None, "ok", 4)


def test_what_a_tool_writes_beside_is_passed_over(read):
    beside = '{"process": 0, "type": "ok", "node": "n1", "latency_ms": 3.5}'
    assert [each.ended for each in read(WRITE, beside, WRITE.replace("7", "9"), beside)] == [2, 4]
    assert problems(read, WRITE, beside.replace("latency_ms", "tiem")) == [(2, "tiem", "unknown field")]


def test_a_completion_says_the_same_as_its_invocation_or_nothing(read):
    assert problems(read, WRITE, '{"process": 0, "type": "ok", "f": "read", "key": "y"}') == [
        (2, "f", "found 'read', where line 1 asked for 'write'"),
        (2, "key", "found 'y', where line 1 asked for 'x'"),
    ]


def test_indices_rise(read):
    assert problems(read, WRITE, '{"process": 0, "type": "ok", "index": 7}') == [(2, "index", "7 does not come after 7")]


def test_all_problems_are_told_at_once_in_the_order_of_the_file_and_not_endlessly(read):
    fits = PROPERTIES["linearizable"].models["register"]
    found = problems(read, '{"process": 1, "type": "invoke", "f": "cas", "value": 3}', "{", *['{"process": 0, "type": "ok"}'] * 30, fits=fits)
    assert [line for line, _, _ in found] == [*range(1, 21), 21]
    assert found[0] == (1, "value", "found 3, allowed for 'cas': [old, new]")
    assert found[-1][2] == "… and 12 more problems from here on"


@pytest.mark.parametrize(("model", "lines", "expected"), [
    ("register", ('"f": "add", "value": 1',), (1, "f", "found 'add'; allowed for a register: cas, read, write")),
    ("register", ('"f": "cas", "value": [1]',), (1, "value", "found [1], allowed for 'cas': [old, new]")),
    ("counter", ('"f": "add", "value": true',), (1, "value", "found True, allowed for 'add': a whole number")),
    ("counter", ('"f": "read"', "null"), (2, "value", "found None, allowed as the answer of 'read': a whole number")),
    ("set", ('"f": "read"', "3"), (2, "value", "found 3, allowed as the answer of 'read': a list of elements")),
    ("append-list", ('"f": "read"', '{"a": 1}'), (2, "value", "found {'a': 1}, allowed as the answer of 'read': a list of elements")),
])
def test_a_value_that_is_none_of_the_model_is_a_problem_where_it_stands(read, model, lines, expected):
    texts = [f'{{"process": 0, "type": "invoke", {lines[0]}}}', *(f'{{"process": 0, "type": "ok", "value": {each}}}' for each in lines[1:])]
    assert problems(read, *texts, fits=PROPERTIES["linearizable"].models[model]) == [expected]


def test_the_answer_of_an_operation_that_did_not_happen_is_not_looked_at(read):
    fits = PROPERTIES["linearizable"].models["counter"]
    assert len(read('{"process": 0, "type": "invoke", "f": "read"}', '{"process": 0, "type": "fail", "value": "timed out"}', fits=fits)) == 1


def test_an_empty_file_and_one_that_is_not_there_are_problems(read, tmp_path):
    assert problems(read, "", "") == [(0, "", "holds no operation")]
    with pytest.raises(SpecError, match="can't be read"):
        load_history(tmp_path)


def test_the_collector_works_again_afterwards(read):
    read(WRITE)
    assert gc.isenabled()
