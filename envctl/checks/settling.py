"""Judging one check of a scenario, how long it may take to come true, and whether waiting could still change what it says."""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from contextlib import suppress
from math import isfinite

from envctl import plugins
from envctl.model.scenario import CheckSpec
from envctl.model.verdict import Evidence, Finding
from envctl.record import Record


def finding_of(spec: CheckSpec, record: Record) -> Finding:
    """The finding of one check; a check that raises, or can't say how long to wait for it, is inconclusive, with its traceback."""
    try:
        waits_s(spec)
        found: Finding = plugins.load("envctl.checks", spec.check).judge(spec.id, spec.params, record)
    except Exception as error:  # noqa: BLE001 — a plug-in's errors are anything; none may end the judging
        title = f"the check gave up: {type(error).__name__}: {error}"
        return Finding(spec.id, spec.check, "inconclusive", title, evidence=(Evidence(traceback.format_exc()),), total=1)
    return found


def waits_s(spec: CheckSpec) -> float:
    """How long after the traffic a check's condition may take to come true.  Raises whatever the plug-in raises, and ValueError."""
    seconds = float(plugins.load("envctl.checks", spec.check).waits_s(spec.params))
    if not isfinite(seconds):
        raise ValueError(f"{spec.check} asks to wait for {seconds} s")
    return seconds


def patience_s(checks: Iterable[CheckSpec]) -> float:
    """The longest of the checks' times; a check that can't say waits for nothing, and its finding tells why."""
    longest = 0.0
    for spec in checks:
        with suppress(Exception):
            longest = max(longest, waits_s(spec))
    return longest


def settled(record: Record, *, telemetry: bool = False) -> bool:
    """Whether every check that reads streams or consumer groups passes on what was read so far; one that raises doesn't.

    All of them count, not only those with a `within`: a message that is on its way between two streams while they are read is
    missing for a check that allows no delay, and one more round shows it.  Checks that read neither gain nothing by rounds; with
    `telemetry` it is they that are asked, who gain by waiting for late spans.
    """
    return all(finding_of(spec, record).outcome == "pass" for spec in record.scenario.checks if not acts(spec) and _collected(spec) is not telemetry)


def acts(spec: CheckSpec) -> bool:
    """Whether a check is judged by what is done after everything else, so that nothing before tells."""
    with suppress(Exception):
        return hasattr(plugins.load("envctl.checks", spec.check), "redelivers")
    return False


def _collected(spec: CheckSpec) -> bool:
    try:
        references = plugins.load("envctl.checks", spec.check).references(spec.params)
    except Exception:  # noqa: BLE001 — what it reads is unknown, so that it may gain by another round
        return True
    return any(kind in ("stream", "group", "topic") for kind, _ in references)
