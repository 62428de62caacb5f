"""One value that a sampler read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Reading:
    """A measure's value (None: unknown) and what it is about; `envctl.model.event.Sample` lists the names."""

    measure: str
    value: float | None
    attrs: Mapping[str, Any] = field(default_factory=dict)
