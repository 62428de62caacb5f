"""Ctrl-C: what was begun is healed, judged and removed, and the exit code says that it was cancelled."""

from __future__ import annotations

import json
import signal

import pytest
from chaos_boundaries import begin
from chaos_site import Site, until

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow]


@pytest.mark.parametrize(("boundary", "number"), [
    ("the run is prepared", signal.SIGINT), ("the fault is held", signal.SIGINT), ("its absence is shown", signal.SIGTERM),
])
def test_the_first_interrupt_of_a_run_heals_judges_and_removes(site: Site, boundary: str, number: signal.Signals) -> None:
    before = site.take()
    command = begin(site, boundary)
    command.process.send_signal(number)
    assert command.wait() == 8, command.text()
    assert "nothing left" in command.text()
    if boundary != "the run is prepared":  # the runner may not have begun
        verdict = json.loads((site.run_directory() / "verdict.json").read_text())  # type: ignore[operator]
        assert verdict["outcome"] == "inconclusive"
        assert b'"edge":"absent"' in site.events()
    assert site.left(before) == []


def test_a_second_interrupt_goes_straight_to_the_teardown(site: Site) -> None:
    before = site.take()
    command = begin(site, "the fault is applied")
    command.process.send_signal(signal.SIGINT)
    assert until(lambda: b"traffic" in site.events(), 20)
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 8, command.text()
    assert "nothing left" in command.text()
    assert site.left(before) == []


def test_an_interrupt_of_the_teardown_does_not_stop_it(site: Site) -> None:
    before = site.take()
    command = begin(site, "the report is written")
    for _ in range(3):
        command.process.send_signal(signal.SIGINT)
    assert command.wait() in (0, 8), command.text()
    assert site.left(before) == []


@pytest.mark.parametrize("boundary", ["the cell is made", "the snapshot is verified"])
def test_an_interrupt_before_the_run_removes_what_was_made(site: Site, boundary: str) -> None:
    before = site.take()
    command = begin(site, boundary)
    command.process.send_signal(signal.SIGINT)
    assert command.wait() == 8, command.text()
    assert site.left(before) == []


@pytest.mark.parametrize("after_s", [0.1, 0.4, 0.7, 1.0])
def test_an_interrupt_of_up_at_any_instant_leaves_what_down_finds(site: Site, after_s: float) -> None:
    before = site.take()
    command = site.start("up", "--full")
    assert not until(lambda: command.process.poll() is not None, after_s)
    command.process.send_signal(signal.SIGINT)
    status, said = command.process.wait(60), command.text()
    assert status in (8, -signal.SIGINT) or (status == 1 and "init_import_site" in said), said  # the latter two while Python itself still starts
    assert site.envctl("down")[0] in (0, 6)
    assert site.left(before, 3.0) == []
