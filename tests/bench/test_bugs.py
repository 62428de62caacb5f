"""The bug bench: what it plants and in which order it tries, what it counts as caught and as named, and that it goes on where it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import bugs, bugs_runs
from bench.bugs_defects import Cause, Defect, load_defects, ordered, sampled, shop_scenarios
from bench.bugs_figures import Case, bounds, figures, table
from bench.bugs_runs import Results, Run, ended
from envctl.waiting import until


@pytest.fixture
def defect(tmp_path: Path) -> Defect:
    return planted(tmp_path, "loses-orders")


def planted(root: Path, name: str, group: str = "lost-message", service: str = "payments", uncaught: str = "") -> Defect:
    home = root / name
    home.mkdir(parents=True)
    (home / "defect.patch").write_text(f"--- a/stacks/shop/services/{service}/x.py\n+++ b/stacks/shop/services/{service}/x.py\n")
    more = f"uncaught: {uncaught}\n" if uncaught else ""
    (home / "defect.yaml").write_text(
        f"name: {name}\ntitle: t\nclass: {group}\n{more}cause:\n  - {{check: no-loss, about: [accepted, orders.placed]}}\n  - {{check: no-duplicates}}\n")
    return next(each for each in load_defects(root) if each.name == name)


def a_run(case: Case, scenario: str, outcome: str, check: str = "no-loss", text: str = "3 accepted are not in orders.placed/0") -> Run:
    findings = [{"id": check, "check": check, "text": text}] if outcome == "fail" else []
    commit, name, patch, seed, _ = case.key(scenario)
    return Run(commit, name, patch, seed, scenario, outcome, 60.0, findings)


# --- defects ----------------------------------------------------------------------------------------------------------


def test_the_scenarios_that_hurt_what_is_broken_are_tried_first_and_none_is_left_out(defect: Defect) -> None:
    scenarios = shop_scenarios()
    names = ordered(defect, scenarios)
    hurting = {each.name for each in scenarios if any("payments" in map(str, fault.params.values()) for fault in each.faults)}
    assert set(names[: len(hurting)]) == hurting
    assert sorted(names) == sorted(each.name for each in scenarios)
    assert "hello" not in names


def test_what_every_service_shares_is_hurt_most_by_the_most_faults(tmp_path: Path) -> None:
    scenarios = shop_scenarios()
    names = ordered(planted(tmp_path, "shared", service="common"), scenarios)
    counts = [len(next(each for each in scenarios if each.name == name).faults) for name in names]
    assert counts == sorted(counts, reverse=True)


def test_what_a_defect_asks_to_be_tried_first_is_only_an_order(defect: Defect) -> None:
    names = ordered(replace(defect, first=("checkout-steady",)), shop_scenarios())
    assert names[0] == "checkout-steady"
    assert len(names) == len(shop_scenarios())


def test_a_sample_has_one_of_each_class_first_and_nothing_that_is_known_to_be_missed(tmp_path: Path) -> None:
    every = [planted(tmp_path, "a"), planted(tmp_path, "b"), planted(tmp_path, "c", group="stale-read"), planted(tmp_path, "d", group="x", uncaught="because")]
    assert [each.name for each in sampled(every, 2)] == ["a", "c"]
    assert [each.name for each in sampled(every, 5)] == ["a", "c", "b"]
    every[1] = replace(every[1], first=("checkout-steady",))
    assert [each.name for each in sampled(every, 5)] == ["b", "c", "a"]


@pytest.mark.parametrize(("text", "right"), [
    ("3 accepted never reached orders.placed", True),
    ("accepted, in orders.placed/0@48", True),
    ("accepted orders of orders.placed-1", True),
    ("3 accepted orders", False),
    ("unaccepted, orders.placed", False),
    ("accepted, orders.placed.dead", False),
    ("accepted, old-orders.placed", False),
])
def test_a_cause_is_named_by_its_check_and_all_its_names(text: str, right: bool) -> None:
    cause = Cause("no-loss", ("accepted", "orders.placed"))
    assert cause.named_by({"id": "no-loss-2", "check": "no-loss", "text": text}) is right
    assert not cause.named_by({"id": "converges", "check": "converges", "text": text})


# --- cases ------------------------------------------------------------------------------------------------------------


def test_a_case_goes_through_its_scenarios_until_one_fails(defect: Defect) -> None:
    case = Case("c", defect, 1, ("one", "two", "three"))
    runs = {}
    for scenario, outcome, following in (("one", "pass", "two"), ("two", "inconclusive", "three"), ("three", "fail", None)):
        assert case.following(runs) == scenario
        run = a_run(case, scenario, outcome)
        runs[run.key] = run
        assert case.following(runs) == following
    assert case.caught(runs) is not None
    assert replace(case, commit="another").following(runs) == "one"


@pytest.mark.parametrize("outcome", ["pass", "inconclusive", "error"])
def test_what_did_not_fail_was_missed_and_stays_in_the_table(defect: Defect, outcome: str) -> None:
    case = Case("c", defect, 1, ("one",))
    run = a_run(case, "one", outcome)
    [caught, *_] = figures([case], {run.key: run})
    assert (caught.measured[:6], caught.met) == ("0 of 1", False)
    assert any("nothing catches it" in line for line in table([case], {run.key: run}))


@pytest.mark.parametrize("outcome", ["fail", "inconclusive", "error"])
def test_a_clean_run_counts_only_when_it_passes(outcome: str) -> None:
    cases = [Case("c", None, seed, ("one",)) for seed in (1, 2)]
    runs = {run.key: run for run in (a_run(cases[0], "one", "pass"), a_run(cases[1], "one", outcome))}
    [clean] = figures(cases, runs)
    assert (clean.measured[:6], clean.met) == ("1 of 2", False)


def test_a_case_is_named_rightly_only_by_the_expected_cause(defect: Defect) -> None:
    cases = [Case("c", defect, seed, ("one",)) for seed in (1, 2, 3)]
    found = [a_run(cases[0], "one", "fail"), a_run(cases[1], "one", "fail", check="slo"), a_run(cases[2], "one", "fail", check="no-duplicates", text="")]
    caught, named, *_ = figures(cases, {run.key: run for run in found})
    assert caught.measured.startswith("3 of 3")
    assert named.measured.startswith("2 of 3")


def test_what_has_not_been_run_is_told_and_meets_no_target(defect: Defect) -> None:
    rows = figures([Case("c", defect, 1, ("one",))], {})
    assert (rows[-1].measured, rows[-1].met) == ("1 of 1 cases", False)


def test_clean_runs_are_spread_over_the_scenarios_each_with_a_seed_of_its_own() -> None:
    scenarios = shop_scenarios()
    cases = bugs.cases_of("c", (), scenarios, 5, 50)
    counts = [sum(case.scenarios == (each.name,) for case in cases) for each in scenarios]
    assert sum(counts) == len({case.key(case.scenarios[0]) for case in cases}) == 50
    assert max(counts) - min(counts) <= 1


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("good", "of", "low", "high"), [(0, 10, 0.0, 0.3085), (50, 50, 0.9289, 1.0), (5, 10, 0.1871, 0.8129), (81, 263, 0.2527, 0.3676)])
def test_bounds_are_those_of_clopper_and_pearson(good: int, of: int, low: float, high: float) -> None:
    assert bounds(good, of) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(1, 60).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_bounds_hold_the_share_and_mirror(counts: tuple[int, int]) -> None:
    good, of = counts
    low, high = bounds(good, of)
    assert low <= good / of <= high
    assert bounds(of - good, of) == pytest.approx((1 - high, 1 - low), abs=1e-9)


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_second_bench_runs_only_what_the_first_one_left(defect: Defect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases, file, asked = [Case("c", defect, seed, ("one", "two")) for seed in (1, 2)], tmp_path / "results.jsonl", []

    def run(commit: str, _: Defect, seed: int, scenario: str, keep: Path) -> Run:
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append((seed, scenario))
        return a_run(cases[seed - 1], scenario, "fail" if scenario == "two" else "pass")

    monkeypatch.setattr(bugs, "run", run)
    with pytest.raises(KeyboardInterrupt):
        bugs.bench(cases, Results(file), tmp_path)
    file.write_text(file.read_text() + '{"commit": "torn')
    first, asked[:] = list(asked), []
    bugs.bench(cases, Results(file), tmp_path)
    assert (first, asked) == ([(1, "one"), (1, "two")], [(2, "one"), (2, "two")])
    assert len(Results(file).runs) == 4
    bugs.bench(cases, Results(file), tmp_path)


def test_what_was_measured_with_another_patch_does_not_count(defect: Defect) -> None:
    case = Case("c", defect, 1, ("one",))
    before = case.key("one")
    defect.patch.write_text(defect.patch.read_text() + "+changed\n")
    assert case.key("one") != before


def test_a_change_that_is_not_committed_is_another_revision(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *arguments], cwd=tmp_path, check=True)

    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks/a").write_text("1")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "One")
    seen = [bugs_runs.revision(tmp_path)]
    (tmp_path / "README").write_text("says nothing about what is measured")
    git("add", "-A")
    git("commit", "-q", "-m", "Two")
    assert bugs_runs.revision(tmp_path) == seen[0]
    for name in ("a", "b"):
        (tmp_path / "stacks" / name).write_text("2")
        seen.append(bugs_runs.revision(tmp_path))
    assert len(set(seen)) == 3


def test_all_is_brought_up_but_where_a_scenario_wants_a_stub(tmp_path: Path) -> None:
    (tmp_path / "scenarios").mkdir()
    for name, more in (("whole", ""), ("stubbed", "stubs: [fraud]\n")):
        (tmp_path / f"scenarios/{name}.yaml").write_text(f"takes: [gateway, orders]\n{more}")
    assert bugs_runs._extent(tmp_path, "whole") == ["--full"]
    assert bugs_runs._extent(tmp_path, "stubbed") == ["--only", "gateway"]


CHILD = """
import signal, sys, time
told = []
signal.signal(signal.SIGINT, lambda *_: told.append(print("told", flush=True)))
print("up", flush=True)
while len(told) < 2:
    time.sleep(0.01)
open(sys.argv[1], "w").write("removed")
"""


class Waited(subprocess.Popen[bytes]):
    """A process of which it is known that somebody waits for it."""

    def wait(self, timeout: float | None = None) -> int:
        self.awaited.set()
        return super().wait(timeout)

    awaited = threading.Event()


def test_each_ctrl_c_is_handed_on_and_the_run_ends_in_its_own_time(tmp_path: Path) -> None:
    ready, gone = tmp_path / "ready", tmp_path / "gone"
    with ready.open("wb") as output:
        process = Waited([sys.executable, "-c", CHILD, str(gone)], stdout=output, start_new_session=True)
    assert until(lambda: ready.read_text() == "up\n", 20)

    def press() -> None:
        for count in (1, 2):  # two signals at once would be one
            process.awaited.wait(20)
            process.awaited.clear()
            os.kill(os.getpid(), signal.SIGINT)
            until(lambda: ready.read_text().count("told") == count, 20)  # noqa: B023 - asked at once

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        ended(process, 60)
    presser.join()
    assert gone.read_text() == "removed"


def test_a_run_that_never_ends_is_told_to(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], start_new_session=True)
    assert ended(process, 0.1) == 9
    assert process.returncode == -signal.SIGTERM


def test_a_kept_run_is_a_line_of_json(defect: Defect, tmp_path: Path) -> None:
    run = a_run(Case("c", defect, 1, ("one",)), "one", "fail")
    Results(tmp_path / "r.jsonl").add(run)
    assert json.loads((tmp_path / "r.jsonl").read_text())["findings"][0]["check"] == "no-loss"
    assert Results(tmp_path / "r.jsonl").runs == {run.key: run}
