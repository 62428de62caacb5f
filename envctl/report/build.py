"""From a run's directory to the value that all forms of the report are written from."""

from __future__ import annotations

import json
from pathlib import Path

from envctl.record.shrunk import load_shrunk
from envctl.report import run as parts
from envctl.report.faults import asked, faults
from envctl.report.model import Report
from envctl.report.subject import Subject, load
from envctl.report.timeline import timeline
from envctl.report.traces import traces


def build(run_dir: Path) -> Report:
    """Reads a run as far as it can be read.  Raises UsageError where there is no run."""
    with load(run_dir) as subject:
        return _report(subject)


def _report(subject: Subject) -> Report:
    verdict = subject.verdict
    findings = verdict.findings if verdict else ()
    by_id = {finding.id: finding for finding in findings}
    over_time = timeline(subject, {id.removeprefix("fault:"): finding.outcome for id, finding in by_id.items() if id.startswith("fault:")})
    what = parts.run(subject)
    gaps = subject.gaps if what.whole else (*subject.gaps, "the run did not reach its end: what follows is what there is")
    return Report(
        run=what, outcome=verdict.outcome if verdict else None, findings=findings, unverified=verdict.unverified if verdict else subject.manifest.stubbed,
        notes=(*(verdict.notes if verdict else ()), *_against(subject)), reproduce=_reproduce(subject), gaps=gaps,
        figures=parts.figures(subject), timeline=over_time, faults=faults(subject, by_id), objectives=parts.objectives(findings),
        nodes=parts.nodes(subject), components=parts.components(subject), links=parts.links(subject), traces=traces(subject, findings),
        cost=parts.cost(subject), files=parts.files(subject.directory),
        post_mortem=parts.post_mortem(subject, findings, [f"{spec.fault}: {asked(spec)}" for spec in subject.scenario.faults]),
    )


def _against(subject: Subject) -> tuple[str, ...]:
    """What a comparison with another revision came to, where this run was the last of it (`envctl ci --against`)."""
    try:
        found = json.loads((subject.directory / "against.json").read_text(encoding="utf-8"))
        return tuple(map(str, found["lines"])) if found["format"] == "against/v1" else ()
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def _reproduce(subject: Subject) -> str:
    """The command that runs the same again, and the one for the smallest scenario that was found to fail so."""
    manifest, smallest = subject.manifest, load_shrunk(subject.directory)
    again = subject.verdict.reproduce if subject.verdict else ""
    again = again or f"envctl run {manifest.scenario_file or manifest.scenario} --rng-seed {manifest.rng_seed}"
    if smallest is None:
        return again
    return f"{again}\n{smallest.command}  # shrunk: {smallest.schedule}; {smallest.finding} failed in {smallest.failed} of {smallest.tries} tries"
