from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import Problem, SpecError
from envctl.spec.document import dotted, read
from envctl.spec.structure import FORMATS, open_document, schema

HERE = Path("some.yaml")


def test_words_of_old_yaml_stay_words() -> None:
    document = read(HERE, "on: healed(x)\nyes: no\nat: 12:30\nday: 2024-01-01\noctal: 010\n")
    assert document.data == {"on": "healed(x)", "yes": "no", "at": "12:30", "day": "2024-01-01", "octal": "010"}


def test_every_field_knows_its_line_and_its_text() -> None:
    document = read(HERE, "a:\n  b: 1.10\n  c:\n    - x\n    - {d: true}\n")
    assert document.line("a", "b") == 2
    assert document.texts["a", "b"] == "1.10"
    assert document.line("a", "c", 1, "d") == 5
    assert document.line("a", "c", 1, "unknown") == 5
    assert dotted(("a", "c", 1, "d")) == "a.c[1].d"


def test_anchors_may_be_used() -> None:
    document = read(HERE, "a: &x {b: 1}\nc: *x\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.line("c") == 2


@pytest.mark.parametrize("text", ["a: &x [*x]", "a: !!python/object:os.system {}", "? [a]\n: b", "a: b: c", "\x00", "- " * 200])
def test_hostile_yaml_is_refused_without_a_crash(text: str) -> None:
    with pytest.raises(SpecError):
        open_document_text(text)


def test_yaml_that_repeats_itself_without_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(SpecError, match="repeats itself"):
        read(HERE, "\n".join(lines))


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_as_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        open_document_text(f"envctl: topology/v1\n{text}")


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "needs", "a", "env", "service"]), inner, max_size=3),
    max_leaves=10,
))
def test_any_structure_is_explained(value: object) -> None:
    import yaml

    text = yaml.safe_dump({"envctl": "topology/v1", "name": "x", "components": value})
    problems: tuple[Problem, ...] = ()
    try:
        open_document(HERE, "topology", units=("components",), text=text).raise_problems()
    except SpecError as error:
        problems = error.problems
    assert all(problem.line > 0 and problem.message for problem in problems)


@pytest.mark.parametrize("name", FORMATS)
def test_every_published_schema_is_valid_itself_and_describes_itself(name: str) -> None:
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(dict(schema(name)))
    assert schema(name)["description"]


def open_document_text(text: str) -> None:
    open_document(HERE, "topology", units=("components",), text=text).raise_problems()
