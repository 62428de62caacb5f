"""What of a build's context counts, by the rules of Docker's manual."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import SpecError
from envctl.model.topology import Image
from envctl.spec.contexts import Context, context_of, ignore_rules


def sees(text: str, path: str) -> bool:
    return Context(Path("/nowhere"), "Dockerfile", (), tuple(ignore_rules(text))).sees(PurePosixPath(path))


@pytest.mark.parametrize(("text", "left_out", "kept"), [
    ("# a comment\n\nnode_modules\n", ["node_modules", "node_modules/a/b.js"], ["web/node_modules/a.js", "# a comment"]),
    ("**/node_modules", ["node_modules/a", "web/node_modules/a"], ["web/node_modules.txt"]),
    ("*/temp*", ["a/temporary.txt", "a/temp/x"], ["temp", "a/b/temp"]),
    ("*/*/temp*", ["a/b/temporary.txt"], ["a/temp"]),
    ("temp?", ["tempa"], ["temp", "tempab"]),
    ("/build/", ["build/x"], ["a/build"]),
    ("a/../b", ["b"], ["a/b"]),
    ("*.md\n!README.md", ["x.md"], ["README.md", "docs/x.md"]),
    ("*.md\n!README*.md\nREADME-secret.md", ["README-secret.md"], ["README.md"]),
    ("!README-secret.md\n*.md", ["README-secret.md"], []),
    ("**\n!src", ["a", "b/c"], ["src/x/y"]),
    ("docs/**/*.txt", ["docs/a.txt", "docs/a/b.txt"], ["a.txt", "docs/a.md"]),
    ("file[0-9].[^c]", ["file1.h"], ["file1.c", "filex.h"]),
    ("a\\*b", ["a*b"], ["axb"]),
    ("a.b$+(c)", ["a.b$+(c)"], ["axb$+(c)"]),
    ("**", ["src/x"], ["Dockerfile", ".dockerignore"]),
    ("", [".git/HEAD", "a/__pycache__/b.pyc", ".envctl/runs/x"], [".gitignore"]),
])
def test_a_rule_leaves_out_what_docker_leaves_out(text: str, left_out: list[str], kept: list[str]) -> None:
    assert [path for path in left_out if sees(text, path)] == []
    assert [path for path in kept if not sees(text, path)] == []


@given(st.lists(st.text(alphabet="ab*?/!.[]\\^-", max_size=6), max_size=4), st.text(alphabet="ab/.", min_size=1, max_size=6))
def test_any_text_is_a_set_of_rules(lines: list[str], path: str) -> None:
    try:
        assert sees("\n".join(lines), path) in (True, False)
    except SpecError as error:
        assert "is no pattern" in error.message  # noqa: PT017


def test_what_is_no_pattern_is_refused_at_its_line(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("a\n[b-a]\n")
    with pytest.raises(SpecError, match=r"\.dockerignore:2: '\[b-a\]' is no pattern"):
        context_of(tmp_path, Image(context="."))


def test_the_files_of_a_context_are_those_that_it_sees(tmp_path: Path) -> None:
    for name in ("Dockerfile", "src/main.py", "src/notes.md", "docs/a.md", "docs/keep/b.txt", ".git/HEAD"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("src")
    (tmp_path / ".dockerignore").write_text("Dockerfile\n**/*.md\ndocs\n!docs/keep\n")
    found = [str(path) for path in context_of(tmp_path, Image(context=".")).files()]
    assert found == [".dockerignore", "Dockerfile", "docs/keep/b.txt", "empty", "link", "src/main.py"]
    (tmp_path / "Dockerfile.dockerignore").write_text("*\n")
    assert [str(path) for path in context_of(tmp_path, Image(context=".")).files()] == [".dockerignore", "Dockerfile", "Dockerfile.dockerignore"]
