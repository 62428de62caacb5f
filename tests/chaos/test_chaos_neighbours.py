"""Two at once: two checkouts do not meet, and one checkout is worked on by one command at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_boundaries import forget_snapshots
from chaos_site import Site, make

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow]


def test_two_checkouts_run_side_by_side(site: Site, tmp_path: Path) -> None:
    other = make(tmp_path / "other", site.cache)
    before, before_other = site.take(), other.take()
    first, second = site.ci("retry"), other.ci("retry")
    assert (first.wait(), second.wait()) == (0, 0), first.text() + second.text()
    assert site.left(before) == []
    assert other.left(before_other) == []


def test_two_caches_that_make_one_snapshot_do_not_meet_nor_does_the_garbage_collector_of_either(site: Site, tmp_path: Path) -> None:
    other = make(tmp_path / "other", tmp_path / "cache")
    forget_snapshots(site)
    before, before_other = site.take(), other.take()
    first, second = site.ci("retry"), other.ci("retry")
    while first.process.poll() is None or second.process.poll() is None:
        assert site.envctl("gc")[0] == other.envctl("gc")[0] == 0
    assert (first.wait(), second.wait()) == (0, 0), first.text() + second.text()
    assert site.left(before) == []
    assert other.left(before_other) == []


def test_two_ups_of_one_checkout_make_one_environment(site: Site) -> None:
    before = site.take()
    first, second = site.start("up", "--full"), site.start("up", "--full")
    statuses = {first.wait(), second.wait()}
    assert 0 in statuses
    assert statuses <= {0, 4}
    if 4 in statuses:
        refused = first if first.process.returncode else second
        assert "envctl up (process" in refused.text()
    assert set(site.nodes().values()) | set(site.cells().values()) == {1}
    assert site.envctl("down")[0] == 0
    assert site.left(before) == []


def test_a_second_run_of_one_checkout_waits_or_is_refused(site: Site) -> None:
    before = site.take()
    first = site.ci("retry")
    second = site.ci("retry")
    statuses = (first.wait(), second.wait())
    assert 0 in statuses, first.text() + second.text()
    assert set(statuses) <= {0, 4}
    if 4 in statuses:
        assert "is working on" in (first if first.process.returncode else second).text()
    assert site.left(before) == []
