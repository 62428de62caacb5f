"""Whether collecting a run's streams once more could still change what its checks say."""

from __future__ import annotations

from envctl import plugins
from envctl.record import Record


def settled(record: Record) -> bool:
    """Whether every check that reads streams or consumer groups passes on what was read so far.

    All of them count, not only those with a `within`: a message that is on its way between two streams while they are read is
    missing for a check that allows no delay, and one more round shows it.  Checks that read only telemetry gain nothing by rounds.
    """
    for spec in record.scenario.checks:
        check = plugins.load("envctl.checks", spec.check)
        collected = any(kind in ("stream", "group") for kind, _ in check.references(spec.params))
        if collected and check.judge(spec.id, spec.params, record).outcome != "pass":
            return False
    return True
