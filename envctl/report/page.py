"""The page: one static file that needs nothing else and lets nothing in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files
from urllib.parse import quote

from envctl.checks.evidence import trace_words
from envctl.model.verdict import Evidence, Finding
from envctl.report import words
from envctl.report.charts import chart
from envctl.report.graph import graph
from envctl.report.model import Objective, Report, TraceView

FINDINGS = 400  # that a page shows
EVIDENCE = 4000  # characters of one piece of evidence
VOLUME = 1_000_000  # characters of all evidence, beyond which each piece is cut shorter
_WORDS = {"pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive", None: "Not judged"}


def page(report: Report) -> str:
    """The whole page as HTML; every text of the record is escaped, and no script but the page's own may run."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("envctl.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )
    environment.globals |= {"w": words, "outcome_word": _WORDS.__getitem__, "clip": words.clip, "evidence_limit": _limit(report), "href": _href,
                            "budget": _budget, "told": _told}
    style, script = _own("style.css"), _own("page.js")
    findings = report.findings[:FINDINGS]
    return environment.get_template("page.html.j2").render(
        r=report, findings=findings, reasons=[f for f in findings if f.outcome != "pass" and not f.waived],
        counts=_counts(report.findings), passed=_passed(report.findings), chart=chart(report.timeline), graph=graph(report.components, report.links),
        colours=_colours(report.traces), shown_traces={trace.trace_id for trace in report.traces},
        style=Markup(style), script=Markup(script),  # noqa: S704 (files of this package)
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
    )


def _limit(report: Report) -> int:
    """How much of a piece of evidence is shown, so that the page stays one that a browser opens."""
    volume = sum(len(finding.title) + sum(len(piece.summary) for piece in finding.evidence) for finding in report.findings[:FINDINGS])
    return EVIDENCE if volume < VOLUME else EVIDENCE // 10


def _own(name: str) -> str:
    return (files("envctl.report") / "templates" / name).read_text(encoding="utf-8")


def _href(path: str) -> str:
    """A link to a file beside the page; never one that a browser takes for something else."""
    return "./" + quote(path)


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counted = [finding.outcome for finding in findings if not finding.waived]
    found = {outcome: counted.count(outcome) for outcome in ("fail", "inconclusive", "pass")}
    return found | {"waived": len(findings) - len(counted)}


def _passed(findings: Sequence[Finding]) -> str:
    """`7 checks, 2 objectives, 3 faults`: what a verdict rests on."""
    nouns = {"check": "check", "slo": "objective", "fault": "fault", "steady": "steady state"}
    counted = {noun: sum(finding.group == group and not finding.waived for finding in findings) for group, noun in nouns.items()}
    return ", ".join(f"{count} {noun}{'s' if count > 1 else ''}" for noun, count in counted.items() if count)


def _told(piece: Evidence) -> str:
    """What evidence says, without the trace that stands as a link below it."""
    text = piece.summary.rstrip()
    return text.replace(trace_words(piece.traces), "") if piece.traces else text


def _budget(objective: Objective) -> float | None:
    """The share of an error budget that was used, in percent, at most 100."""
    if objective.allowed is None or objective.used is None:
        return None
    return min(100.0, objective.used / objective.allowed * 100) if objective.allowed else 100.0 * bool(objective.used)


def _colours(traces: Sequence[TraceView]) -> dict[str, str]:
    """A colour for each service, in the order in which the traces show them."""
    services = dict.fromkeys(bar.service for trace in traces for bar in trace.bars)
    return {service: f"c{index % 8 + 1}" for index, service in enumerate(services)}
