"""Brings plans up and down through Pulumi: one graph, one state, one provider."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envctl.stack.operations import bring_up as bring_up
    from envctl.stack.operations import tear_down as tear_down

__all__ = ["bring_up", "deploy", "tear_down"]


def deploy() -> None:
    """Deploys the current plan; what a stack's `__main__.py` calls.

    Under envctl that is the plan it was given.  Under a plain `pulumi up` with a Python language host it is the full topology
    beside the program.
    """
    from envctl.stack import program

    program.deploy()


def __getattr__(name: str) -> object:
    if name in ("bring_up", "tear_down"):
        from envctl.stack import operations

        return getattr(operations, name)
    raise AttributeError(name)
