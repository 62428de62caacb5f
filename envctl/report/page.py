"""The page: one static file that needs nothing else."""

from __future__ import annotations

from envctl.report.model import Report


def page(report: Report) -> str:
    """The whole page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("envctl.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html.j2").render(r=report)
