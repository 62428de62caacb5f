import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.spec import templates

names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in templates.OWN)
steps = st.lists(st.one_of(names, st.integers(0, 3)), max_size=4)


@given(names, steps, st.one_of(st.integers(), st.text(), st.booleans(), st.none(), st.lists(st.integers())))
def test_a_reference_finds_what_stands_at_its_path_with_its_type(op, path, leaf):
    answer = leaf
    for step in reversed(path):
        answer = {step: answer} if isinstance(step, str) else [None] * step + [answer]
    expression = op + "".join(f".{step}" if isinstance(step, str) else f"[{step}]" for step in path)
    assert templates.operation_of(expression) == op
    assert list(templates.expressions({"a": ["{{ " + expression + " }}"]})) == [expression]
    filled = templates.fill({"a": ["{{ " + expression + " }}"]}, lambda text: templates.pick(answer, text))
    assert filled == {"a": [leaf]}


@given(st.recursive(st.one_of(st.integers(), st.text("ab{} ").filter(lambda text: "{{" not in text)), st.lists))
def test_what_holds_no_template_is_left_as_it_is(value):
    assert templates.fill(value, pytest.fail) == value


def test_inside_a_longer_string_values_are_written_as_text():
    values = {"a.n": 3, "a.ok": True, "a.s": "x/y"}
    assert templates.fill("{{a.n}}-{{a.ok}}-{{a.s}}", values.__getitem__) == "3-true-x/y"
    assert templates.fill("{{a.s}}", values.__getitem__, lambda text: text.replace("/", "%2F")) == "x%2Fy"


@pytest.mark.parametrize("expression", ["", "a b", "a.", "a[x]", ".a", "uuid.x", "key[0]", "a..b"])
def test_bad_syntax_is_refused(expression):
    with pytest.raises(ValueError):
        templates.operation_of(expression)


@pytest.mark.parametrize("expression", ["a.none", "a.list[5]", "a.list.x", "a.text[0].x"])
def test_what_an_answer_does_not_have_is_unresolved(expression):
    with pytest.raises(templates.UnresolvedError, match="the answer has no"):
        templates.pick({"list": [1], "text": 5}, expression)
