"""Judging one check of a scenario, and whether collecting a run's streams once more could still change what checks say."""

from __future__ import annotations

import traceback

from envctl import plugins
from envctl.model.scenario import CheckSpec
from envctl.model.verdict import Evidence, Finding
from envctl.record import Record


def finding_of(spec: CheckSpec, record: Record) -> Finding:
    """The finding of one check; a check that raises is inconclusive, with its traceback."""
    try:
        found: Finding = plugins.load("envctl.checks", spec.check).judge(spec.id, spec.params, record)
    except Exception as error:  # noqa: BLE001 — a plug-in's errors are anything; none may end the judging
        title = f"the check gave up: {type(error).__name__}: {error}"
        return Finding(spec.id, spec.check, "inconclusive", title, evidence=(Evidence(traceback.format_exc()),), total=1)
    return found


def settled(record: Record) -> bool:
    """Whether every check that reads streams or consumer groups passes on what was read so far; one that raises doesn't.

    All of them count, not only those with a `within`: a message that is on its way between two streams while they are read is
    missing for a check that allows no delay, and one more round shows it.  Checks that read only telemetry gain nothing by rounds.
    """
    return all(finding_of(spec, record).outcome == "pass" for spec in record.scenario.checks if _collected(spec))


def _collected(spec: CheckSpec) -> bool:
    try:
        references = plugins.load("envctl.checks", spec.check).references(spec.params)
    except Exception:  # noqa: BLE001 — what it reads is unknown, so that it may gain by another round
        return True
    return any(kind in ("stream", "group") for kind, _ in references)
