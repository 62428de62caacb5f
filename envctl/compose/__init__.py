"""Compose files → a topology, and a list of what could not be carried over: reads and transforms only."""

from __future__ import annotations

from envctl.compose.convert import Imported, import_compose
from envctl.compose.project import compose_files
from envctl.compose.report import Left

__all__ = ["Imported", "Left", "compose_files", "import_compose"]
