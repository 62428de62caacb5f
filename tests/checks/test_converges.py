from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envctl.checks.converges import Converges

TABLES = {"sources": ["charges", "report"], "within": "20s"}


def test_sources_with_the_same_ids_and_values_agree(history):
    for n in range(3):
        history.row("charges", f"o{n}", n)
        history.row("report", f"o{n}", f"{n}.0")
    found = Converges.judge("converges", TABLES, history.record())
    assert (found.outcome, found.title) == ("pass", "charges and report agree on 3 ids")


def test_a_missing_id_and_another_value_are_named(history):
    history.order("o0")
    for n in range(3):
        history.row("charges", f"o{n}", 1)
    history.row("report", "o1", 1)
    history.row("report", "o2", 5)
    found = Converges.judge("converges", TABLES, history.record())
    assert (found.outcome, found.title, found.total) == ("fail", "charges and report disagree on 2 of 3 ids", 2)
    assert "charges: 1, not in report" in found.evidence[0].summary
    assert "charges: 1, report: 5" in found.evidence[1].summary
    assert found.evidence[0].traces == ("00000000000000000000000000000001",)


def test_a_disagreement_that_was_read_too_soon_is_inconclusive(history):
    history.order("o0", start=30)
    history.row("charges", "o0", 1)
    history.empty("report")
    found = Converges.judge("converges", TABLES, history.record(read_at=40))
    assert found.outcome == "inconclusive"


def test_agreement_counts_however_early(history):
    history.order("o0", start=30)
    history.row("charges", "o0", 1)
    history.row("report", "o0", 1)
    assert Converges.judge("converges", TABLES, history.record(read_at=31)).outcome == "pass"


def test_empty_sources_are_no_agreement(history):
    history.empty("charges", "report")
    assert Converges.judge("converges", TABLES, history.record()).outcome == "inconclusive"


def test_elements_without_an_id_can_not_be_compared(history):
    history.row("charges", "o0", 1)
    history.row("charges", None, 1)
    history.row("report", "o0", 1)
    found = Converges.judge("converges", TABLES, history.record())
    assert (found.outcome, found.title) == ("inconclusive", "1 of 2 charges have no id to compare by")


def test_elements_without_an_id_do_not_hide_a_disagreement(history):
    history.row("charges", None, 1)
    history.row("charges", "o0", 1)
    history.row("report", "o0", 2)
    assert Converges.judge("converges", TABLES, history.record()).outcome == "fail"


def test_sources_whose_elements_all_lack_an_id_say_so(history):
    history.row("charges", None, 1)
    history.row("report", None, 1)
    found = Converges.judge("converges", TABLES, history.record())
    assert (found.outcome, found.title) == ("inconclusive", "1 of 1 charges, 1 of 1 report have no id to compare by")


def test_unknown_outcomes_explain_as_many_extra_ids_as_there_are(histories):
    for extra, outcome in ((1, "pass"), (2, "fail")):
        with histories() as history:
            history.order("o0")
            history.order(None, type="info")
            history.message("settled", "o0")
            for n in range(extra):
                history.message("settled", f"x{n}")
            found = Converges.judge("converges", {"sources": ["accepted", "settled"]}, history.record())
            assert found.outcome == outcome


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(*[st.dictionaries(st.integers(0, 4), st.integers(0, 2), min_size=1, max_size=5)] * 2)
def test_it_agrees_with_comparing_dictionaries(histories, one, other):
    with histories() as history:
        for stream, rows in (("charges", one), ("report", other)):
            for n, value in rows.items():
                history.row(stream, f"o{n}", value)
        assert (Converges.judge("converges", TABLES, history.record()).outcome == "pass") == (one == other)
