"""From a record and its verdict to HTML, JUnit, Markdown and JSON."""

from __future__ import annotations

from pathlib import Path

PAGE = "report.html"


def write_all(run_dir: Path) -> Path:
    """Writes `report.json`, `report.md`, `junit.xml` and `report.html` into a run's directory; returns the page's path.

    Reads nothing but that directory, and takes partial records as they are.  Each file is replaced whole, the page last.
    Raises UsageError where there is no run, OSError where nothing can be written.
    """
    import json

    from envctl.report.build import build
    from envctl.report.document import document
    from envctl.report.files import write
    from envctl.report.junit import junit
    from envctl.report.markdown import markdown
    from envctl.report.page import page

    report = build(run_dir)
    write(run_dir / "report.json", json.dumps(document(report), ensure_ascii=False, indent=1, allow_nan=False).encode("utf-8", "replace"))
    write(run_dir / "report.md", markdown(report).encode("utf-8", "replace"))
    write(run_dir / "junit.xml", junit(report))
    write(run_dir / PAGE, page(report).encode("utf-8", "replace"))
    return run_dir / PAGE
