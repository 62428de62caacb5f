"""Files of the host's, on a volume that several containers have, at their own paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from envctl.errors import ResourceError
from envctl.substrates.kubernetes.volume import lead, lead_all


def containers(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A volume, and the roots of two containers of one image."""
    for name in ("one", "two"):
        (tmp_path / name / "home").mkdir(parents=True)
        (tmp_path / name / "usr").mkdir()
    (tmp_path / "volume").mkdir()
    return tmp_path / "volume", tmp_path / "one", tmp_path / "two"


def test_what_is_written_at_a_path_that_leads_to_the_volume_is_there_in_other_containers_too(tmp_path: Path) -> None:
    volume, one, two = containers(tmp_path)
    for below in ("home/me/run", "work/x", "work/y"):
        lead(one / below, volume, one).mkdir(parents=True)
    (one / "home" / "me" / "run" / "events").write_text("1")
    (one / "work" / "new").write_text("2")
    lead_all(volume, two)
    lead_all(volume, two)
    assert (two / "home" / "me" / "run" / "events").read_text() == "1"
    assert (two / "work" / "new").read_text() == "2"
    (two / "home" / "me" / "run" / "more").write_text("3")
    assert (one / "home" / "me" / "run" / "more").read_text() == "3"


def test_only_what_the_container_does_not_have_is_led_away(tmp_path: Path) -> None:
    volume, one, _ = containers(tmp_path)
    assert lead(one / "home" / "seed.csv", volume, one) == volume / "home" / "seed.csv", "a file can be written there at once"
    (one / "home" / "seed.csv").write_text("x")
    assert (volume / "home" / "seed.csv").read_text() == "x"
    assert lead(one / "usr", volume, one) == one / "usr"
    assert (one / "home").is_dir()
    assert not (one / "home").is_symlink()


def test_leading_it_again_changes_nothing(tmp_path: Path) -> None:
    volume, one, _ = containers(tmp_path)
    for _ in range(2):
        assert lead(one / "home" / "a" / "b", volume, one) == volume / "home" / "a" / "b"
        assert lead(one / "home" / "a" / "b" / "c", volume, one) == volume / "home" / "a" / "b" / "c"


def test_a_place_where_nothing_can_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "symlink_to", refused)
    with pytest.raises(ResourceError, match=r"/elsewhere can't be made in the keeper's container"):
        lead(tmp_path / "root" / "elsewhere" / "project", volume=tmp_path / "volume", root=tmp_path / "root")
