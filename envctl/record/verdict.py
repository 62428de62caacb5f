"""`verdict.json`: the newest verdict on a run by its own scenario, rewritten by every judging."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envctl.errors import UsageError
from envctl.model.verdict import Evidence, Finding, Verdict
from envctl.record.writer import publish

FORMAT = "verdict/v1"
VERDICT = "verdict.json"


def save_verdict(run_dir: Path, verdict: Verdict, *, by: str = "") -> Path:
    """Writes `verdict.json`, or `verdict.BY.json` for a verdict by another scenario, atomically; returns its path."""
    path = run_dir / (f"verdict.{by}.json" if by else VERDICT)
    publish(path, {"format": FORMAT, **asdict(verdict)})
    return path


def load_verdict(run_dir: Path) -> Verdict:
    """Reads `verdict.json`.  Raises UsageError when it is missing, broken or of another version."""
    path = run_dir / VERDICT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise UsageError(f"{path} is not of format {FORMAT}", hint="judge the run again: envctl judge")
        findings = tuple(_finding(raw) for raw in data.pop("findings"))
        return Verdict(findings=findings, **_frozen(data))
    except FileNotFoundError as error:
        raise UsageError(f"{run_dir} has not been judged", hint="envctl judge RUN") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {error!r}") from error


def _finding(raw: dict[str, Any]) -> Finding:
    evidence = tuple(Evidence(**_frozen(each)) for each in raw.pop("evidence"))
    return Finding(evidence=evidence, **raw)


def _frozen(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
