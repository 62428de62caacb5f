import itertools

from hypothesis import given
from hypothesis import strategies as st

from envctl.replay import schedule
from envctl.spec.traffic import parse

BROWSE = {"op": "browse", "http": "GET /products?page=1", "key": "c17"}


def lines_at(*times):
    return tuple(parse(BROWSE | {"at": at}, number) for number, at in enumerate(times, start=1))


@given(st.integers(1, 7), st.floats(0.5, 200), st.floats(0.1, 5))
def test_with_a_rate_operation_i_is_due_at_i_over_rate_until_the_duration_is_over(count, rate, duration):
    due = list(schedule.schedule(lines_at(*range(count)), rate, duration))
    assert [one.due_s for one in due] == [index / rate for index in range(len(due))]
    assert len(due) / rate >= duration > (len(due) - 1) / rate
    assert [one.line.number for one in due] == [index % count + 1 for index in range(len(due))]
    assert len({(one.key, one.line.number) for one in due}) == len(due)


def test_without_a_rate_the_file_keeps_its_pace_and_ends_once():
    assert [one.due_s for one in schedule.schedule(lines_at(0, 0.5, 2), None, None)] == [0, 0.5, 2]


def test_a_shorter_file_is_repeated_in_its_own_pace_with_new_keys():
    due = list(itertools.islice(schedule.schedule(lines_at(0, 1, 2), None, 100), 5))
    assert [(one.due_s, one.key) for one in due] == [(0, "c17"), (1, "c17"), (2, "c17"), (3, "c17~2"), (4, "c17~2")]
