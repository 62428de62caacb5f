from __future__ import annotations

from itertools import combinations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envctl.checks.per_key_order import PerKeyOrder

LIKE = {"in": "published", "as": "accepted"}


def test_messages_in_the_order_of_their_operations_pass(history):
    for n in range(4):
        history.order(f"o{n}", key=f"c{n % 2}", start=n)
        history.message("published", f"o{n}", key=f"c{n % 2}", partition=n % 2)
    found = PerKeyOrder.judge("per-key-order", LIKE, history.record())
    assert (found.outcome, found.title) == ("pass", "2 keys of published are in order")


def test_two_swapped_messages_are_named_with_their_places(history):
    history.order("first", key="c1", start=1)
    history.order("second", key="c1", start=2)
    history.fault("loss", 0.5, 3)
    for name in ("second", "first"):
        history.message("published", name, key="c1", at=2.5)
    found = PerKeyOrder.judge("per-key-order", LIKE, history.record())
    assert (found.outcome, found.total) == ("fail", 1)
    assert found.title == "1 elements of 1 of 1 keys stand in published against the order of accepted"
    (evidence,) = found.evidence
    assert evidence.ids == ("first", "second")
    assert "key c1: first accepted 1.10 s, published 2.50 s to orders.placed/0@1" in evidence.summary
    assert "behind the later second accepted 2.10 s, published 2.50 s to orders.placed/0@0" in evidence.summary
    assert evidence.faults == ("loss",)


def test_operations_that_overlapped_may_stand_either_way(history):
    history.order("a", start=1, end=3)
    history.order("b", start=2, end=4)
    history.message("published", "b")
    history.message("published", "a")
    assert PerKeyOrder.judge("per-key-order", LIKE, history.record()).outcome == "pass"


def test_other_keys_may_stand_anywhere(history):
    for n in range(4):
        history.order(f"o{n}", key=f"c{n % 2}", start=n)
    for n in (2, 1, 3):
        history.message("published", f"o{n}", key=f"c{n % 2}")
    history.message("published", "o0", key="c9")
    assert PerKeyOrder.judge("per-key-order", LIKE, history.record()).outcome == "pass"


def test_a_message_delivered_again_counts_where_it_stands_first(history):
    history.order("a", start=1)
    history.order("b", start=2)
    for name in ("a", "b", "a"):
        history.message("published", name)
    assert PerKeyOrder.judge("per-key-order", LIKE, history.record()).outcome == "pass"


def test_a_key_in_two_partitions_fails(history):
    for n in range(2):
        history.order(f"o{n}", key="c1", start=n)
        history.message("published", f"o{n}", key="c1", partition=n)
    found = PerKeyOrder.judge("per-key-order", LIKE, history.record())
    assert (found.outcome, found.title) == ("fail", "1 of 1 keys of published are spread over several partitions")
    assert found.evidence[0].summary == "key c1 of published is in partitions 0, 1"


def test_without_a_model_the_own_order_must_not_fall(histories):
    for orders, outcome in (((1, 2, 2, 5), "pass"), ((1, 3, 2), "fail"), ((None, None), "inconclusive")):
        with histories() as history:
            for at, order in enumerate(orders):
                history.message("published", f"o{at}", order=order)
            assert PerKeyOrder.judge("per-key-order", {"in": "published"}, history.record()).outcome == outcome


def test_orders_that_came_as_text_are_numbers_where_they_are_decimals(histories):
    for orders, outcome in ((("8", "9", "10", 11), "pass"), (("9", "10", "8"), "fail"), (("2026-01-09", "2026-01-10"), "pass")):
        with histories() as history:
            for at, order in enumerate(orders):
                history.message("published", f"o{at}", order=order)
            assert PerKeyOrder.judge("per-key-order", {"in": "published"}, history.record()).outcome == outcome


def test_elements_without_id_or_order_are_counted_and_inconclusive(histories):
    for elements, words in (((("a", 1), ("b", 2), (None, 3)), "1 of 3 in published have no id"),
                            ((("a", 1), ("b", 2), ("c", None), (None, None)), "1 of 4 in published have no id; 2 of 4 in published have no order")):
        with histories() as history:
            for name, order in elements:
                history.message("published", name, order=order)
            found = PerKeyOrder.judge("per-key-order", {"in": "published"}, history.record())
            assert (found.outcome, found.title) == ("inconclusive", words)


def test_an_operation_without_an_id_could_have_been_anywhere(histories):
    for swapped, outcome in ((False, "inconclusive"), (True, "fail")):
        with histories() as history:
            for n, name in enumerate(("a", "b", None)):
                history.order(name, start=n)
            for name in ("ba" if swapped else "ab"):
                history.message("published", name)
            found = PerKeyOrder.judge("per-key-order", LIKE, history.record())
            assert found.outcome == outcome
            assert found.stats["nameless"] == 1


def test_nothing_to_compare_and_missing_keys_are_inconclusive(histories):
    for keys in (("c1", "c2"), (None, None)):
        with histories() as history:
            for n, key in enumerate(keys):
                history.order(f"o{n}", start=n)
                history.message("published", f"o{n}", key=key)
            assert PerKeyOrder.judge("per-key-order", LIKE, history.record()).outcome == "inconclusive"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from("ab")), min_size=1, max_size=6), st.randoms())
def test_it_agrees_with_comparing_every_pair(histories, operations, rng):
    standing = list(enumerate(operations))
    rng.shuffle(standing)
    with histories() as history:
        for n, (start, length, key) in enumerate(operations):
            history.order(f"o{n}", key=key, start=start, end=start + length)
        for n, (_, _, key) in standing:
            history.message("published", f"o{n}", key=key)
        found = PerKeyOrder.judge("per-key-order", LIKE, history.record())
    wrong = any(a[2] == b[2] and b[0] + b[1] < a[0] for (_, a), (_, b) in combinations(standing, 2))
    assert (found.outcome == "fail") == wrong
