"""Consistency of histories: pure algorithms from the operations of clients to findings.  They know nothing of runs and records."""

from __future__ import annotations

from collections.abc import Mapping

from envctl.consistency import linearizable, queue, serializable, session
from envctl.consistency.base import Property

PROPERTIES: Mapping[str, Property] = {
    "linearizable": linearizable.PROPERTY,
    "serializable": serializable.SERIALIZABLE,
    "strict-serializable": serializable.STRICT_SERIALIZABLE,
    "session": session.PROPERTY,
    "queue-model": queue.PROPERTY,
}
"""Name (of `envctl check --check NAME`) → property."""
