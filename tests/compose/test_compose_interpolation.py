from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.compose.interpolation import InterpolationError, expand, variables_of
from envctl.errors import SpecError

SET = {"FULL": "f", "EMPTY": "", "OTHER": "o"}


@pytest.mark.parametrize(("text", "becomes"), [
    ("plain", "plain"), ("$FULL", "f"), ("a${FULL}b", "afb"), ("$FULL/x", "f/x"), ("$$FULL", "$FULL"), ("$${FULL}", "${FULL}"),
    ("${FULL:-d}", "f"), ("${EMPTY:-d}", "d"), ("${NONE:-d}", "d"), ("${EMPTY-d}", ""), ("${NONE-d}", "d"), ("${NONE:-}", ""),
    ("${FULL:?no}", "f"), ("${EMPTY?no}", ""), ("${FULL:+r}", "r"), ("${EMPTY:+r}", ""), ("${EMPTY+r}", "r"), ("${NONE+r}", ""),
    ("${NONE:-${OTHER}}", "o"), ("${NONE:-${NEITHER:-x}y}z", "xyz"), ("${NONE:-a:b/c?d}", "a:b/c?d"), ("${NONE:-$$5}", "$5"), ("$NONE", ""),
    ('${NONE:-{"a": {"b": 1}}}', '{"a": {"b": 1}}'), ('${FULL:-{"a": 1}}', "f"), ("{{.Names}}", "{{.Names}}"), ("a}b", "a}b"),
])
def test_references_are_replaced_as_the_specification_says(text: str, becomes: str) -> None:
    assert expand(text, SET) == becomes


@pytest.mark.parametrize(("text", "fragment"), [
    ("${NONE:?tell us}", "NONE is required: tell us"), ("${EMPTY:?}", "EMPTY is required"), ("${NONE?}", "NONE is required"), ("${FULL", "malformed"),
    ("${NONE:-a", "closing brace"), ("$", "dollar sign"), ("${1}", "dollar sign"), ("${FULL!}", "malformed"), ("${}", "dollar sign"),
])
def test_what_can_not_be_replaced_says_why(text: str, fragment: str) -> None:
    with pytest.raises(InterpolationError, match=fragment):
        expand(text, SET)


def test_only_what_is_used_and_has_no_default_counts_as_unset() -> None:
    unset: list[str] = []
    expand("$A ${B:-b} ${C-} ${FULL:-$D} ${E:-$F} ${EMPTY}", SET, unset.append)
    assert unset == ["A", "F"]


@given(st.text())
def test_a_text_whose_dollars_are_doubled_is_itself(text: str) -> None:
    assert expand(text.replace("$", "$$"), {}) == text


@given(st.text(alphabet="ab${}:-?+ A"))
def test_any_text_is_replaced_or_refused(text: str) -> None:
    with suppress(InterpolationError):
        assert isinstance(expand(text, {"A": "x"}), str)


def test_a_file_of_variables_is_read_with_quotes_comments_and_references(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text(r"""# comment

PLAIN=a b@
export EXPORTED=e # comment
HASH=a#b
SINGLE='$PLAIN # no'
DOUBLE="x\n$PLAIN \"q\" \$PLAIN" # c
LINES="one
two"
EMPTY=
ONLY_COMMENT= # c
NAMED
UNKNOWN
COLON: c
SPACED = s
REF=${PLAIN}-${OUTER}
OUTER=inner
REF2=$OUTER""".replace("@", " "))
    assert variables_of(file, {"OUTER": "outer", "NAMED": "n"}) == {
        "PLAIN": "a b", "EXPORTED": "e", "HASH": "a#b", "SINGLE": "$PLAIN # no", "DOUBLE": 'x\na b "q" $PLAIN', "LINES": "one\ntwo", "EMPTY": "",
        "ONLY_COMMENT": "", "NAMED": "n", "COLON": "c", "SPACED": "s", "REF": "a b-outer", "OUTER": "inner", "REF2": "outer",
    }


@pytest.mark.parametrize(("line", "value"), [
    (r"A='it\'s'", "it's"), (r"A='\n'", r"\n"), (r"A=\n", r"\n"), ('A="x"#y', "x"), (r'A="\a\0101\ \x07"', "\aA\\ \\x07"), (r'A="\${B}"', "${B}"), ("A: b=c", "b=c"),
    ("\tA = b\r\n", "b"), ("A=b#c", "b#c"), ("A=b #c", "b"),
])
def test_values_are_unquoted_as_compose_does_it(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / ".env").write_bytes(line.encode())
    assert variables_of(tmp_path / ".env", {}) == {"A": value}


@pytest.mark.parametrize("line", ['A="', 'A="b', r'A="b\"', "A='b\"", r"A='b\'", "a$b", "='b'"])
def test_an_open_quote_or_a_wrong_name_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(line)
    with pytest.raises(SpecError, match=r"\.env:1: .* sets no variable"):
        variables_of(tmp_path / ".env", {})


def test_a_line_that_sets_nothing_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\n\n'what'\n")
    with pytest.raises(SpecError, match=r"\.env:3: \"'what'\" sets no variable"):
        variables_of(tmp_path / ".env", {})


@given(st.text())
def test_any_file_of_variables_is_read_or_refused(text: str) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile("w", suffix=".env", encoding="utf-8", errors="replace", newline="") as file:
        file.write(text)
        file.flush()
        try:
            variables_of(Path(file.name), {})
        except SpecError as error:
            assert error.problems[0].line  # noqa: PT017
