"""Where binaries come from when the machine lacks them, and whether the machine can do the work at all."""

from __future__ import annotations

from envctl.toolchain.lookup import available, find
from envctl.toolchain.supply import ensure
from envctl.toolchain.tool import Tool, cache_dir

__all__ = ["Tool", "available", "cache_dir", "ensure", "find"]
