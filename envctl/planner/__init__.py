"""Which components a run needs, and why.  Pure and fast, but for `changes`, the thin part that asks git."""

from __future__ import annotations

from envctl.planner.changes import Changes, Repository, changed_files, changes, repository
from envctl.planner.identity import environment_id
from envctl.planner.project import plan_project
from envctl.planner.subset import Checkout, plan

__all__ = ["Changes", "Checkout", "Repository", "changed_files", "changes", "environment_id", "plan", "plan_project", "repository"]
