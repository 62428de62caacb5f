"""The report for a pull request's comment and a job's summary: short, escaped, bounded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from envctl.model.verdict import Finding
from envctl.report import words
from envctl.report.model import Report

MOST = 900 * 1024  # bytes; a job summary ends at 1 MiB
COMMENT = 60_000  # characters after which evidence is left to the page; a comment ends at 65,536
_LINE, _EVIDENCE, _SHOWN, _ROWS = 400, 2000, 3, 60
_MARK = {"pass": "✅ pass", "fail": "❌ **fail**", "inconclusive": "⚠️ **inconclusive**", None: "– not judged"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#!|~&$]|^[-+=])")
_LIVE = re.compile(r"(@|#|:(?=//)|www(?=\.))", re.IGNORECASE)  # what makes mentions, references and links of plain text
_JOINER = "\N{WORD JOINER}"


def markdown(report: Report) -> str:
    """Verdict, reasons, tables, and the command that reproduces the run; under `MOST` bytes whatever is in it."""
    text = ""
    for block in _blocks(report):
        if len(text) + len(block) > COMMENT:
            text += "\n… the rest is in the page of the report.\n"
            break
        text += block
    return text + _reproduce(report)


def escape(text: str, most: int = _LINE) -> str:
    """One line of inert text: nothing in it is formatted, mentions anyone, or refers to anything."""
    flat = words.inert(" ".join(words.clip(text, most).split()))
    return _LIVE.sub(rf"\1{_JOINER}", _SPECIAL.sub(r"\\\1", flat))


def code(text: str, most: int = _EVIDENCE) -> str:
    """A fenced block whose fence is longer than any in the text."""
    body = words.inert_lines(words.clip(text.replace("\r", ""), most))
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", body)), default=0))
    return f"{fence}text\n{body}\n{fence}\n"


def _blocks(report: Report) -> Iterator[str]:
    run = report.run
    yield f"## {_MARK[report.outcome]} · {escape(run.scenario)}\n\n"
    facts = [escape(run.stack), escape(f"{run.branch} {run.commit[:10]}"), words.duration(run.duration_s)]
    yield " · ".join(fact for fact in facts if fact) + "\n\n"
    yield from (f"> {escape(gap)}\n\n" for gap in report.gaps)
    yield from (_reason(finding) for finding in report.findings if finding.outcome != "pass" and not finding.waived)
    yield _figures(report)
    yield _faults(report)
    yield _findings(report.findings)
    yield from (f"- {escape(note)}\n" for note in report.notes)
    if report.unverified:
        yield f"- unverified: {escape(', '.join(report.unverified))} answered by stubs\n"


def _reason(finding: Finding) -> str:
    told = [words.clip(evidence.summary.rstrip(), _EVIDENCE // _SHOWN) for evidence in finding.evidence[:_SHOWN]]
    more = finding.total - len(told)
    body = "\n".join(told + ([f"… and {more:,} more"] if more > 0 and told else []))
    return f"**{escape(finding.id)}** ({finding.outcome}): {escape(finding.title)}\n\n" + (code(body) + "\n" if body else "")


def _figures(report: Report) -> str:
    figures = report.figures
    lag = max(figures.peak_lag.values(), default=None)
    rows = [("operations", words.count(figures.operations)), ("answered well", words.percent(figures.success)), ("p50", words.duration(figures.p50_s)),
            ("p95", words.duration(figures.p95_s)), ("p99", words.duration(figures.p99_s)), ("peak lag", words.count(lag))]
    return _table([name for name, _ in rows], [[value for _, value in rows]])


def _faults(report: Report) -> str:
    rows = [[escape(fault.id + (f" (step {fault.step})" if fault.step else "")), escape(fault.asked), escape(fault.measured), escape(words.detected(fault.detect_s, fault.detected_by)), words.duration(fault.recover_s)]
            for fault in report.faults]
    return _table(["fault", "asked", "measured", "time to detect", "time to recover"], rows) if rows else ""


def _findings(findings: Sequence[Finding]) -> str:
    rows = [[_MARK[finding.outcome] + (" (waived)" if finding.waived else ""), escape(finding.id), escape(finding.title)] for finding in findings]
    return _table(["", "finding", "what it says"], rows) if rows else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows[:_ROWS])]
    more = [f"\n… and {len(rows) - _ROWS:,} more"] if len(rows) > _ROWS else []
    return "\n".join([*lines, *more]) + "\n\n"


def _reproduce(report: Report) -> str:
    return f"\nReproduce:\n\n{code(report.reproduce, _LINE)}" if report.reproduce else ""
