"""How built programs are kept; that they work is shown in test_cluster.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import build


def test_a_part_is_there_only_when_it_is_finished(tmp_path):
    def broken(new: Path, say: build.Say) -> None:
        (new / "half").write_text("made")
        raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        build._make(tmp_path / "part-1", print, broken)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".new-left").mkdir()
    build._make(tmp_path / "part-1", print, lambda new, _: (new / "program").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["part-1"]


def test_a_finished_part_is_not_made_again(tmp_path):
    (tmp_path / "part-1").mkdir()
    build._make(tmp_path / "part-1", print, lambda *_: pytest.fail("made again"))


def test_another_pin_is_another_part():
    old = build.Part("etcd", {"etcd": "go.etcd.io/etcd/server/v3"})
    assert old.directory != build.Part("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, "stamped").directory
    assert old.builds() == [("etcd", ["go.etcd.io/etcd/server/v3"])]
