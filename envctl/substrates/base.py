"""The door between an environment and where it runs.

Above this door nobody knows which substrate is behind it.  A substrate realises nodes (from inside the Pulumi provider)
and gives `Reach`: ways to look at, enter and disturb what is alive.  `Reach` works the same from envctl's own process on the
host and from a helper process inside the environment (such as the runner).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Literal, Protocol

from envctl.model.environment import Environment, Node, NodeSpec


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended inside a node or inside the environment."""

    status: int  # exit status; 128 + signal for signals
    stdout: str
    stderr: str


Where = Literal["node", "netns"]
"""`node`: all of the node's namespaces, its root, its user.  `netns`: only its network namespace, with the right to change
packet rules and interfaces there, and the tools of the host: the position from which faults act."""


class Reach(Protocol):
    """How everything above the substrate touches an environment that is alive."""

    def environment(self) -> Environment:
        """What is there now (asked afresh at each call)."""

    def node(self, name: str) -> Node:
        """One node as it is now.  Raises ResourceError for an unknown name."""

    def run(
        self, node: str, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: str | None = None, timeout_s: float = 30.0,
    ) -> Completed:
        """Runs a command in a node and waits for it.  Raises DeadlineError after `timeout_s` (the command is killed)."""

    def popen(
        self, node: str | None, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | int | None = None, stdout: IO[bytes] | int | None = None, stderr: IO[bytes] | int | None = None,
    ) -> Process:
        """Starts a command in a node, or (node None) beside the nodes, in the environment's own network.

        The process dies with the environment.  Descriptors are handed over as they are (terminals too).
        """

    def signal(self, node: str, signal: int) -> None:
        """Sends a signal to the node's main process; SIGKILL ends everything in the node."""

    def hold(self, node: str, lease_s: float) -> None:
        """Tells the node's supervisor not to restart it until `release`, or until `lease_s` seconds from now.

        Asking again renews the lease; when it runs out the node is released by itself.
        """

    def release(self, node: str) -> None:
        """Lets the supervisor restart the node again, and starts it if it is down.  Idempotent."""

    def wait_ready(self, node: str, timeout_s: float) -> None:
        """Waits until the node's readiness probe holds.

        Raises DeadlineError with the unmet condition and the node's last log lines.
        """

    def logs(self, node: str) -> tuple[Path, ...]:
        """Log files of a node, oldest first (stdout and stderr in one; they survive until the environment is removed)."""

    def publish(self, name: str, node: str, port: int) -> str:
        """Makes a node's TCP port reachable on the host's loopback; returns "127.0.0.1:NNNNN".  Idempotent by `name`."""

    def renew(self, ttl_s: float) -> float:
        """Moves the expiry to `ttl_s` from now; returns it as Unix time."""


class Process(Protocol):
    """A process started by `Reach.popen`."""

    pid: int

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the exit status.  Raises DeadlineError."""

    def signal(self, signal: int) -> None:
        """Sends a signal to it."""


class Realiser(Protocol):
    """What the Pulumi provider of a substrate calls.  Every method is idempotent and adopts what is already there."""

    def create_environment(self, env_id: str, *, ttl_s: float, labels: Mapping[str, str]) -> None:
        """Makes the empty environment, or adopts the living one of that id."""

    def start_node(self, spec: NodeSpec, *, ready_timeout_s: float) -> Node:
        """Starts a node, or adopts the living one with the same digest, or replaces one with another; waits until ready."""

    def stop_node(self, name: str) -> None:
        """Ends a node and removes its data.  A node that is not there is fine."""

    def end_environment(self) -> None:
        """Ends everything and waits until nothing is left."""


@dataclass(frozen=True, slots=True)
class Found:
    """An environment that was found on this machine."""

    id: str
    directory: Path
    pid: int | None  # of its first process, as the finder sees it; None: only a directory is left of it


class Substrate(Protocol):
    """A plug-in of the entry-point group `envctl.substrates`: a class with this shape."""

    name: ClassVar[str]

    @staticmethod
    def directory(env_id: str) -> Path:
        """Where the environment of that id lives (or would live)."""

    @staticmethod
    def attach(directory: Path) -> Reach:
        """Reach into a living environment.  Raises NoEnvironmentError when there is none."""

    @staticmethod
    def realiser(directory: Path) -> Realiser:
        """What makes, adopts and ends the environment of that directory."""

    @staticmethod
    def environments() -> tuple[Found, ...]:
        """What lives on this machine, found by process markers even where directories or state are lost."""

    @staticmethod
    def census(directory: Path) -> tuple[str, ...]:
        """What is left of the environment of that directory: processes, namespaces, mounts, sockets, directories.  Empty: nothing."""
