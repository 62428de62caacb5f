"""Words for people, and what services say made fit to be read."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.report.words import inert

UNSEEN = st.text(st.sampled_from("a:# [\t\n\r\x00\x1b\x7f\x85\x9b\u2028\u202e\u2066\u200f\ud800\ufffe") | st.characters())


@given(UNSEEN)
def test_nothing_steers_a_terminal_or_a_log_and_it_stays_one_line(text: str) -> None:
    shown = inert(text)
    assert len(shown.splitlines() or [""]) == 1
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") and char != "\t"]
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert not shown.lstrip().startswith("::")
    assert "##[" not in shown
    shown.encode()


@pytest.mark.parametrize(("said", "shown"), [
    ("\x1b[2Jgone", r"\x1b[2Jgone"),
    ("one\ntwo\r", r"one\ntwo\r"),
    ("\u202eevil \u2066", r"\u202eevil \u2066"),
    ("  ::stop-commands::x", r"  \x3a:stop-commands::x"),
    ("x ##[add-mask]y ##vso[task]", r"x #\x23[add-mask]y #\x23vso[task]"),
    ("Grüße → 19.8\u00a0%, std::vector ✔\t\U0001f600", "Grüße → 19.8\u00a0%, std::vector ✔\t\U0001f600"),
])
def test_what_is_done_to_a_text_can_be_seen_and_the_rest_is_left_alone(said: str, shown: str) -> None:
    assert inert(said) == shown
