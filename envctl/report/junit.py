"""The findings as JUnit test cases, for what shows test results."""

from __future__ import annotations

from typing import Any

from envctl.model.verdict import Finding
from envctl.report.model import Report
from envctl.report.words import inert_lines

MOST = 20_000  # characters of one test case's evidence


def junit(report: Report) -> bytes:
    """One suite, one case a finding: a failed one is a failure, an inconclusive one an error, a waived one is skipped."""
    from junitparser import JUnitXml, TestCase, TestSuite
    from junitparser.junitparser import Error

    suite = TestSuite(inert_lines(report.run.scenario))
    suite.timestamp = report.run.started_at
    properties = {"run": report.run.id, "commit": report.run.commit, "branch": report.run.branch, "rng_seed": report.run.rng_seed,
                  "verdict": report.outcome or "none", "reproduce": report.reproduce}
    for name, value in properties.items():
        suite.add_property(name, inert_lines(str(value)))
    for finding in report.findings:
        case = TestCase(inert_lines(finding.id), classname=inert_lines(f"{report.run.scenario}.{finding.group}"), time=0.0)
        case.result = _results(finding)
        suite.add_testcase(case)
    if report.outcome is None:
        case = TestCase("verdict", classname=inert_lines(report.run.scenario), time=0.0)
        case.result = [Error("the run has not been judged", "inconclusive")]
        suite.add_testcase(case)
    suite.time = report.run.duration_s or 0.0
    document = JUnitXml("envctl")
    document.add_testsuite(suite)
    document.time = suite.time
    text: bytes = document.tostring()  # type: ignore[no-untyped-call]
    return text


def _results(finding: Finding) -> list[Any]:
    from junitparser import Error, Failure, Skipped

    if finding.waived:
        return [Skipped(inert_lines(f"waived: {finding.waived}: {finding.title}"))]
    if finding.outcome == "pass":
        return []
    result = (Failure if finding.outcome == "fail" else Error)(inert_lines(finding.title), finding.outcome)
    result.text = inert_lines("\n".join([finding.title, *(evidence.summary for evidence in finding.evidence)]))[:MOST]
    return [result]
