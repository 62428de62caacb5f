"""What stands on the substrates and needs no Pulumi: light, because every command imports it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from envctl.errors import EnvctlError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from envctl.model.environment import Node
    from envctl.substrates.base import Substrate

T = TypeVar("T")
GROUP = "envctl.substrates"


class Substrates(Protocol):
    """The substrates that may be used."""

    def __call__(self, name: str) -> Substrate:
        """The substrate of that name.  Raises UsageError for an unknown one."""

    def names(self) -> Sequence[str]:
        """Those that there are."""


class _Installed:
    """The plug-ins of the entry-point group `envctl.substrates`."""

    def __call__(self, name: str) -> Substrate:
        from envctl.plugins import load

        substrate: Substrate = load(GROUP, name)
        return substrate

    def names(self) -> Sequence[str]:
        from envctl.plugins import names

        return names(GROUP)


installed: Substrates = _Installed()


def is_up(node: Node) -> bool:
    """Whether a node does its work: ready, or, for a job, done.  A held node was stopped on purpose and counts as not up."""
    return node.state == "ready" or (node.state == "exited" and node.exit_status == 0)


def begin(work: Callable[[], T]) -> Future[T]:
    """The result of `work` to come, from a thread that never keeps the process from ending."""
    from concurrent.futures import Future

    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 — handed over to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


@dataclass(slots=True)
class Tally:
    """What an update did, by name of resource, and what went wrong: the engine reports neither in a form worth parsing."""

    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    provisioned: list[str] = field(default_factory=list)
    failures: list[EnvctlError] = field(default_factory=list)
