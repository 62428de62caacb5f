"""What a property of histories is to whoever asks for it: its models, and the function that judges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from envctl.model.history import Fits, History
from envctl.model.verdict import Finding

Judge = Callable[[History, str, int], Sequence[Finding]]
"""(history, model, budget) → findings.  The history holds operations that fit the model and at least one of them.

`budget` bounds the work for one object (a key, or what else can't be divided) in states looked at, so that the answer is the same on
every machine; what could not be answered within it is `inconclusive`.
"""


@dataclass(frozen=True, slots=True)
class Property:
    """A property of histories, such as `linearizable`."""

    models: Mapping[str, Fits]  # the first one is the default
    judge: Judge
