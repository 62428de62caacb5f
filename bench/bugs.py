"""The bug bench: realistic defects are planted in the shop, and its unmodified scenarios must catch them and pass without them.

`python -m bench.bugs` goes on where it was: a run that is in the results for this commit is not run again.  Exits 0 when everything was
caught, rightly named and clean, 1 when not, 130 when it was interrupted.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.bugs_defects import HOME, Defect, load_defects, ordered, sampled, shop_scenarios
from bench.bugs_figures import Case, figures, named, table
from bench.bugs_runs import Results, Run, revision, run
from bench.project import HERE
from envctl.model.scenario import Scenario

TITLE = "The bug bench"
RESULTS = HERE / ".envctl" / "bugbench" / "results.jsonl"
SEEDS, CLEAN = 5, 50
GUESS_S = 60.0  # a run, before there is one


def cases_of(commit: str, defects: Sequence[Defect], scenarios: Sequence[Scenario], seeds: int, clean: int) -> list[Case]:
    """Every defect with every seed, and clean runs spread over the scenarios; all defects with one seed before the next seed."""
    planted = [Case(commit, defect, seed, ordered(defect, scenarios)) for seed in range(1, seeds + 1) for defect in defects]
    names = sorted(each.name for each in scenarios)
    return planted + [Case(commit, None, 1 + number // len(names), (names[number % len(names)],)) for number in range(clean)]


def bench(cases: Sequence[Case], results: Results, reports: Path) -> None:
    """Runs what is not decided.  Raises KeyboardInterrupt, when the run that was on its way is removed."""
    for number, case in enumerate(cases, 1):
        while scenario := case.following(results.runs):
            name = case.defect.name if case.defect else "clean"
            print(f"[{number}/{len(cases)}] {name}, seed {case.seed}, {scenario} … about {left(cases, results)} left", flush=True)
            done = run(case.commit, case.defect, case.seed, scenario, reports / name / f"{scenario}-{case.seed}")
            results.add(done)
            print(f"        {told(done, case.defect)}", flush=True)


def told(done: Run, defect: Defect | None) -> str:
    """A run in one line."""
    why = f": {done.findings[0]['id']}" if done.findings else ""
    right = f" ({'the right cause' if named(defect, done) else 'NOT the right cause'})" if defect and done.outcome == "fail" else ""
    return f"{done.outcome}{why}{right}   {done.seconds:.0f} s{f'{chr(10)}{done.said}' if done.said else ''}"


def left(cases: Sequence[Case], results: Results) -> str:
    """Time left in words: a case takes as many runs, and a run as long, as those before did."""
    runs = results.runs
    here = [done for case in cases for done in case.tried(runs)]
    decided = [case for case in cases if case.defect and case.following(runs) is None]
    each = statistics.mean(len(case.tried(runs)) for case in decided) if decided else 1.0
    waiting = [case for case in cases if case.following(runs)]
    count = sum(max(1.0, each - len(case.tried(runs))) if case.defect else 1.0 for case in waiting)
    minutes = count * statistics.mean([done.seconds for done in here] or [GUESS_S]) / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{max(1, round(minutes))} min"


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.bugs", description=__doc__)
    parser.add_argument("--defects", nargs="+", metavar="NAME", help="only these")
    parser.add_argument("--sample", type=int, metavar="N", help="only N of them, of as many classes as possible, with one seed and no clean runs unless asked")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"how many seeds each runs with (default: {SEEDS})")
    parser.add_argument("--clean", type=int, metavar="N", help=f"how many runs of the correct shop (default: {CLEAN})")
    parser.add_argument("--home", type=Path, default=HOME, help="where the defects are")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file of results")
    parser.add_argument("--show", action="store_true", help="run nothing: show what the results say")
    return parser.parse_args(argv)


def _chosen(parser: argparse.Namespace) -> tuple[Defect, ...]:
    defects = load_defects(parser.home)
    if unknown := set(parser.defects or ()) - {each.name for each in defects}:
        sys.exit(f"no such defect: {', '.join(sorted(unknown))}; there are {', '.join(each.name for each in defects) or 'none'}")
    chosen = tuple(each for each in defects if not parser.defects or each.name in parser.defects)
    return chosen if parser.sample is None else sampled(chosen, parser.sample)


def main(argv: Sequence[str]) -> int:
    """Runs the bench and prints its table and figures."""
    asked = _arguments(argv)
    seeds, clean = (SEEDS, CLEAN) if asked.sample is None else (1, 0)
    seeds, clean = seeds if asked.seeds is None else asked.seeds, clean if asked.clean is None else asked.clean
    results = Results(asked.results)
    cases = cases_of(revision(), _chosen(asked), shop_scenarios(), seeds, clean)
    status = 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not asked.show:
            bench(cases, results, asked.results.with_name("runs"))
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", flush=True)
        status = 128 + signal.SIGINT
    rows = figures(cases, results.runs)
    print("\n".join(("", *table(cases, results.runs), "", *(f"{row.what}: {row.measured}" for row in rows))))
    return status or int(not all(row.met for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
