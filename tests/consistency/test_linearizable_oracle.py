"""The search, with all that it leaves out, against trying everything."""

from __future__ import annotations

import json
from random import Random

import pytest
from consistency import oracle

from envctl.consistency.linearizable import failure, linearizable
from envctl.consistency.models import MODELS

BUDGET = 10**6


def told(model, operations):
    return linearizable(MODELS[model][0], [each for each in operations if each.outcome != "fail"], BUDGET)


@pytest.mark.parametrize("model", MODELS)
def test_ten_thousand_small_histories_are_judged_as_by_trying_every_order(model):
    rng, right = Random(model), 0
    for _ in range(10_000):
        operations = oracle.any_history(rng, model, 6)
        expected = oracle.linearizable(model, operations)
        assert told(model, operations) == ("pass" if expected else "fail"), operations
        right += expected
    assert 2_500 < right < 7_500, "one of the verdicts is too rare to say anything"


@pytest.mark.parametrize("model", MODELS)
def test_larger_histories_are_judged_likewise(model):
    rng, right = Random(f"larger {model}"), 0
    for _ in range(2_000):
        operations = oracle.any_history(rng, model, 10)
        expected = oracle.linearizable(model, operations)
        assert told(model, operations) == ("pass" if expected else "fail"), operations
        right += expected
    assert 500 < right < 1_500


@pytest.mark.parametrize("unknown", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("model", MODELS)
def test_what_an_object_really_did_is_linearizable_however_long_and_however_much_is_unknown(model, unknown):
    rng = Random(f"long {model}")
    for values in (range(3), range(1_000)):
        for clients in (2, 5, 10):
            operations = oracle.acted(rng, model, 200, clients=clients, unknown=unknown, values=values)
            assert told(model, operations) == "pass"


@pytest.mark.parametrize("model", MODELS)
def test_the_evidence_is_the_smallest_prefix_that_fails_and_the_states_before_its_end(model):
    rng, seen = Random(f"evidence {model}"), 0
    while seen < 400:
        operations = [each for each in oracle.any_history(rng, model, 6) if each.outcome != "fail"]
        if oracle.linearizable(model, operations):
            continue
        seen += 1
        found = failure("k", MODELS[model][0], operations, BUDGET)
        assert found.exact
        assert found.whole
        place = found.operation.ended
        assert not oracle.linearizable(model, oracle.known_until(operations, place))
        assert oracle.linearizable(model, before := oracle.known_until(operations, place - 1))
        if model != "append-list":  # which shows what nobody has read as an ellipsis
            states = {frozenset(state) if model == "set" else state for state in map(json.loads, found.states)}
            assert states == set(oracle.endings(model, before))
        assert list(found.concurrent) == [each for each in operations if each is not found.operation and each.began < place
                                          and (each.ended is None or each.ended > found.operation.began)]

