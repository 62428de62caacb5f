"""What the runs of the bug bench come to: caught of planted, named of caught, passed of clean, each with its bounds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench import Figure
from bench.bugs_defects import Defect
from bench.bugs_runs import Key, Run

RISK = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """A defect (None: the correct shop) with one seed, and the scenarios that it is tried in until one fails."""

    commit: str
    defect: Defect | None
    seed: int
    scenarios: tuple[str, ...]

    def key(self, scenario: str) -> Key:
        """Where a run of it is found."""
        name, digest = (self.defect.name, self.defect.digest) if self.defect else ("", "")
        return self.commit, name, digest, self.seed, scenario

    def tried(self, runs: Mapping[Key, Run]) -> list[Run]:
        """Its runs so far, in order."""
        return [run for scenario in self.scenarios if (run := runs.get(self.key(scenario))) is not None]

    def caught(self, runs: Mapping[Key, Run]) -> Run | None:
        """The run that failed."""
        return next((run for run in self.tried(runs) if run.outcome == "fail"), None)

    def following(self, runs: Mapping[Key, Run]) -> str | None:
        """The scenario that is to be run next; None when the case is decided."""
        if self.caught(runs):
            return None
        return next((scenario for scenario in self.scenarios if self.key(scenario) not in runs), None)


def named(defect: Defect, run: Run) -> bool:
    """Whether a finding that failed names the expected cause."""
    return any(cause.named_by(finding) for cause in defect.causes for finding in run.findings)


def bounds(good: int, of: int, risk: float = RISK) -> tuple[float, float]:
    """The exact bounds of a share (Clopper and Pearson, Biometrika 26, 1934): each side errs with at most risk/2."""
    if not of:
        return 0.0, 1.0
    low = 0.0 if good == 0 else _root(lambda p: _at_least(good, of, p) - risk / 2)
    high = 1.0 if good == of else _root(lambda p: risk / 2 - (1 - _at_least(good + 1, of, p)))
    return low, high


def _at_least(count: int, of: int, p: float) -> float:
    """The probability of `count` or more good ones of `of`."""
    return math.fsum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(count, of + 1))


def _root(rising: Callable[[float], float]) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if rising(middle) > 0 else (middle, high)
    return low


def share(good: int, of: int) -> str:
    """`48 of 50, 96.0 % (95 %: 86.3–99.5 %)`."""
    if not of:
        return "0 of 0"
    low, high = bounds(good, of)
    return f"{good} of {of}, {100 * good / of:.1f} % (95 %: {100 * low:.1f}–{100 * high:.1f} %)"


def figures(cases: Sequence[Case], runs: Mapping[Key, Run]) -> list[Figure]:
    """Envctl's figure of merit over the cases that are decided."""
    decided = [case for case in cases if case.following(runs) is None]
    planted = [(case.defect, case.caught(runs)) for case in decided if case.defect]
    caught = [(defect, run) for defect, run in planted if run]
    right = sum(named(defect, run) for defect, run in caught)
    clean = [run.outcome == "pass" for case in decided if not case.defect for run in case.tried(runs)]
    rows = [
        Figure("caught of planted (defects × seeds)", share(len(caught), len(planted)), "all", len(caught) == len(planted)),
        Figure("right cause named of caught", share(right, len(caught)), "all", right == len(caught)),
        Figure("clean runs passed", share(sum(clean), len(clean)), "all", all(clean)),
    ]
    wanted = {each: any(bool(case.defect) is each for case in cases) for each in (True, False)}
    rows = [row for row, present in zip(rows, (wanted[True], wanted[True], wanted[False]), strict=True) if present]
    return rows + ([Figure("not decided yet", f"{len(cases) - len(decided)} of {len(cases)} cases", "0", met=False)] if len(decided) < len(cases) else [])


def table(cases: Sequence[Case], runs: Mapping[Key, Run]) -> list[str]:
    """A row for each defect, and one for the clean runs of each scenario, as Markdown."""
    lines = ["| defect | class | caught | cause named | by |", "|---|---|---|---|---|"]
    lines += [_row(defect, [case for case in cases if case.defect == defect], runs) for defect in dict.fromkeys(c.defect for c in cases) if defect]
    clean = Counter(case.scenarios[0] for case in cases if not case.defect)
    if clean:
        lines += ["", "| clean | pass | otherwise |", "|---|---|---|"]
    for scenario in clean:
        found = [run for case in cases if not case.defect and case.scenarios == (scenario,) for run in case.tried(runs)]
        other = Counter(run.outcome for run in found if run.outcome != "pass")
        lines.append(f"| {scenario} | {sum(run.outcome == 'pass' for run in found)} of {len(found)} | {_counted(other)} |")
    return lines


def _row(defect: Defect, cases: Sequence[Case], runs: Mapping[Key, Run]) -> str:
    decided = [case for case in cases if case.following(runs) is None]
    caught = [run for case in decided if (run := case.caught(runs))]
    by = Counter(f"{run.findings[0]['id'] if run.findings else '?'} in {run.scenario}" for run in caught)
    why = _counted(by)
    if decided and not caught:
        why = "**nothing catches it**" + (f": {defect.uncaught}" if defect.uncaught else "")
    right = sum(named(defect, run) for run in caught)
    return f"| {defect.name} | {defect.group} | {len(caught)} of {len(decided)} | {right} of {len(caught)} | {why} |"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in counts.most_common()) or "–"
