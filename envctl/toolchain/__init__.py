"""Where binaries come from when the machine lacks them, and whether the machine can do the work at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from envctl.toolchain.tool import Tool, cache_dir

if TYPE_CHECKING:
    from envctl.toolchain.lookup import available, find

__all__ = ["Tool", "available", "cache_dir", "ensure", "find"]


def __getattr__(name: str) -> object:
    """Imports what finds tools when it is asked for: every command looks into the cache, few for a tool."""
    if name not in ("available", "find"):
        raise AttributeError(name)
    from envctl.toolchain import lookup

    found: object = getattr(lookup, name)
    return found


def ensure(names: Iterable[str], *, progress: Callable[[str, str], None] = lambda _tool, _doing: None) -> None:
    """Gets the tools that are missing (see `envctl.toolchain.supply.ensure`, which is imported when it is needed)."""
    from envctl.toolchain import supply

    supply.ensure(names, progress=progress)
