"""What stands on the substrates and needs no Pulumi: light, because every command imports it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from envctl.errors import EnvctlError
from envctl.model.environment import Node
from envctl.substrates.base import Substrate

T = TypeVar("T")


def installed(name: str) -> Substrate:
    """The substrate of that name.  Raises UsageError for an unknown one."""
    from envctl.plugins import load

    substrate: Substrate = load("envctl.substrates", name)
    return substrate


Substrates = Callable[[str], Substrate]


def is_up(node: Node) -> bool:
    """Whether a node does its work: ready, or, for a job, done.  A held node was stopped on purpose and counts as not up."""
    return node.state == "ready" or (node.state == "exited" and node.exit_status == 0)


def begin(work: Callable[[], T]) -> Future[T]:
    """The result of `work` to come, from a thread that never keeps the process from ending."""
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
