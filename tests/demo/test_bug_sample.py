"""A sample of the bug bench: defects of the shop that its unmodified scenarios must catch, and name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.bugs import cases_of, told
from bench.bugs_defects import Defect, load_defects, shop_scenarios
from bench.bugs_figures import named
from bench.bugs_runs import Results, run

LIMIT_S = 900
SAMPLE = [defect for defect in load_defects() if defect.first]  # those that say which scenario catches them

pytestmark = [pytest.mark.cell, pytest.mark.engines, pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]


@pytest.mark.parametrize("defect", SAMPLE, ids=lambda defect: defect.name)
def test_a_shop_broken_on_purpose_fails_and_the_verdict_names_the_cause(defect: Defect, tmp_path: Path) -> None:
    [case] = cases_of("sample", [defect], shop_scenarios(), seeds=1, clean=0)
    results = Results(tmp_path / "results.jsonl")
    while scenario := case.following(results.runs):
        results.add(run(case.commit, defect, case.seed, scenario))
    caught = case.caught(results.runs)
    assert caught, [told(each, defect) for each in results.runs.values()]
    assert named(defect, caught), caught.findings
