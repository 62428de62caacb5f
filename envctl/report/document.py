"""`report.json`: everything the page shows, for dashboards (format `report/v1`, `docs/report.md`)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from envctl.report.model import Report

FORMAT = "report/v1"


def document(report: Report) -> dict[str, Any]:
    """The report as plain JSON values; what JSON can't hold (infinities) is null."""
    return {"format": FORMAT, **plain(report)}


def plain(value: Any) -> Any:
    """A value of the report as JSON knows it."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
