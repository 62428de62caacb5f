from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.engines.content import copy_tree, digest, made_once, shown, tree_digest
from envctl.model.topology import Redis, Topic

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.text("abcxyz", min_size=1, max_size=3)
TREES = st.dictionaries(NAMES, st.binary(max_size=8) | st.dictionaries(NAMES, st.binary(max_size=8), max_size=3), max_size=4)


def write(path: Path, tree: dict[str, object]) -> None:
    path.mkdir()
    for name, content in tree.items():
        if isinstance(content, bytes):
            (path / name).write_bytes(content)
        else:
            assert isinstance(content, dict)
            write(path / name, content)


@given(st.dictionaries(st.text(), PLAIN, max_size=5))
def test_the_order_of_a_mapping_does_not_count(value: dict[str, object]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@given(PLAIN, PLAIN)
def test_different_values_have_different_ids(one: object, other: object) -> None:
    import json

    assert (digest(one) == digest(other)) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


def test_where_a_component_stands_in_its_file_does_not_count() -> None:
    assert digest(Redis(name="cache", version="7", line=3)) == digest(Redis(name="cache", version="7", line=9))
    assert digest(Redis(name="cache", version="7")) != digest(Redis(name="cache", version="8"))


def test_a_value_without_content_id_is_refused() -> None:
    with pytest.raises(TypeError, match="object has no content id"):
        digest({"a": object()})
    assert digest(Topic("a"), {"x"}) == digest(Topic("a"), ["x"])


@given(TREES, TREES)
def test_trees_have_the_same_id_exactly_when_they_are_the_same(one: dict[str, object], other: dict[str, object]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        first, second, copy = Path(place, "first"), Path(place, "second"), Path(place, "copy")
        write(first, one)
        write(second, other)
        copy_tree(first, copy)
        assert tree_digest(copy) == tree_digest(first)
        assert (tree_digest(first) == tree_digest(second)) == (one == other)


def test_executable_bits_and_links_count_and_by_products_do_not(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("#!/bin/sh\n")
    seen = [tree_digest(tmp_path)]
    (tmp_path / "run").chmod(0o755)
    seen.append(tree_digest(tmp_path))
    (tmp_path / "link").symlink_to("run")
    seen.append(tree_digest(tmp_path))
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("elsewhere")
    seen.append(tree_digest(tmp_path))
    assert len(set(seen)) == 4
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "run.pyc").write_bytes(b"1")
    assert tree_digest(tmp_path) == seen[-1]


def test_a_missing_path_is_not_an_empty_one(tmp_path: Path) -> None:
    missing = tree_digest(tmp_path / "x")
    (tmp_path / "x").mkdir()
    assert tree_digest(tmp_path / "x") != missing


def test_a_directory_is_made_once_however_many_ask_at_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make(half: Path) -> None:
        made.append(1)
        (half / "file").write_text("whole")

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: (made_once(tmp_path / "key", make) / "file").read_text(), range(16)))
    assert made == [1]
    assert set(found) == {"whole"}


def test_what_fails_leaves_nothing_and_is_tried_again(tmp_path: Path) -> None:
    def fail(half: Path) -> None:
        (half / "file").write_text("half")
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        made_once(tmp_path / "key", fail)
    assert not (tmp_path / "key").exists()
    assert made_once(tmp_path / "key", lambda half: (half / "file").touch()).is_dir()


def test_what_a_killed_process_left_half_made_is_not_taken(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        made_once(tmp_path / "key", lambda half: ((half / "left").touch(), os._exit(9)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    assert any(tmp_path.rglob("left"))
    made = made_once(tmp_path / "key", lambda half: (half / "file").touch())
    assert [path.name for path in made.iterdir()] == ["file"]


def test_what_a_node_is_shown_can_be_read_by_everyone(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir(mode=0o700)
    (tmp_path / "sub" / "file").touch(mode=0o600)
    (tmp_path / "sub" / "run").touch(mode=0o700)
    (tmp_path / "sub" / "link").symlink_to("nowhere")
    shown(tmp_path)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.exists()}
    assert modes == {"sub": 0o755, "file": 0o644, "run": 0o755}
