"""Logs of a cell are read over their rotation, and followed until it has ended."""

from __future__ import annotations

from pathlib import Path

from envctl.substrates.embedded import logs
from envctl.substrates.embedded.launch import read
from envctl.substrates.embedded.logs import lines_of


def test_the_last_lines_go_back_over_the_rotated_part(tmp_path: Path) -> None:
    log = tmp_path / "a-0.log"
    assert list(lines_of(log, tail=None, there=None)) == []
    (tmp_path / "a-0.log.1").write_text("a\nb\n")
    log.write_text("c\nunfinished")
    assert list(lines_of(log, tail=None, there=None)) == ["a", "b", "c", "unfinished"]
    assert list(lines_of(log, tail=3, there=None)) == ["b", "c", "unfinished"]
    assert list(lines_of(log, tail=0, there=None)) == []


def test_following_goes_on_when_the_file_is_replaced_or_truncated_and_repeats_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(logs, "POLL_S", 0)
    log = tmp_path / "a-0.log"
    log.write_text("old\n")

    def add(text: str) -> None:
        with log.open("a") as file:
            file.write(text)

    def replace() -> None:
        add("o\n")
        log.rename(tmp_path / "elsewhere")
        log.write_text("three\n")

    happenings = iter([lambda: add("one\ntw"), replace, lambda: log.write_text(""), lambda: None, lambda: log.write_text("four\n"), lambda: None])

    def there() -> bool:
        happening = next(happenings, None)
        if happening:
            happening()
        return happening is not None

    assert list(lines_of(log, tail=None, there=there)) == ["old", "one", "two", "three", "four"]


def test_what_a_life_has_said_begins_anew_where_its_log_was_rotated_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "a-0.log"
    log.write_text("a life before\nready\n")
    assert read(log, 14) == "ready\n"
    log.write_text("ready\n")
    assert read(log, 14) == "ready\n"
