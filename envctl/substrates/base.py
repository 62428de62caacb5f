"""The door between an environment and where it runs.

Above this door nobody knows which substrate is behind it.  A substrate realises nodes (from inside the Pulumi provider)
and gives `Reach`: ways to look at, enter and disturb what is alive.  `Reach` works the same from envctl's own process on the
host and from a helper process inside the environment (such as the runner).

Paths mean the same on both sides: what runs beside the nodes sees a file or directory of the host, once it was shown
(`Reach.show`), under the host's own path; and what it writes comes back under that path (`Reach.mirrored`, `Reach.fetch`).
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from envctl.model.environment import Environment, Node, NodeSpec, Packaging
    from envctl.model.topology import Probe


LOST = 128 + signal.SIGHUP
"""Exit status of a process whose client's connection was lost: it has noticed, and ended in good order."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended inside a node or inside the environment."""

    status: int  # exit status; 128 + signal for signals
    stdout: str
    stderr: str


Where = Literal["node", "netns"]
"""`node`: all of the node's namespaces, its root, its user.  `netns`: only its network namespace, with the right to change
packet rules and interfaces there, and the tools that are beside the nodes: the position from which faults act."""

Power = Literal["snapshots", "limits", "throttling", "io-limits", "disk-sizes", "addresses", "manifests", "rootless", "time-skew"]
"""What not every substrate can; a scenario may ask for it (`powers:`), and so may a fault.

`snapshots`: seeded data is kept and given to new nodes (`Reach.keep_data`, `NodeSpec.data`).
`limits`: the `resources:` of components are enforced, and nodes can be bounded further (`Reach.limit`).
`throttling`: the CPU that a node uses can be bounded (`Reach.limit`), whether or not there are `limits`.
`io-limits`: what a node reads and writes can be slowed down while it runs.
`disk-sizes`: a node's `/tmp` and `/dev/shm`, and its `/data` where it is born so (`NodeSpec.disk_bytes`), are file systems of its own, whose
    sizes can be changed from beside it, as with `time-skew`.
`addresses`: a node has the same address in all its lives, and so has the one that replaces it; elsewhere only its name leads to it always.
`manifests`: components may be made of objects of Kubernetes (`NodeSpec.template`).
`rootless`: nothing on the machine needs the right of root, no service of it either.
`time-skew`: what runs beside the nodes sees their processes under the numbers that `Reach.node` tells, and may change their memory:
    so their wall clocks can be skewed."""

Usage = Mapping[str, tuple[float, int]]
"""What a node uses, by process (or as one whole): seconds of CPU so far, resident bytes."""


class Reach(Protocol):
    """How everything above the substrate touches an environment that is alive."""

    @property
    def own(self) -> tuple[str, ...]:
        """How envctl's interpreter is called beside the nodes: `(*own, "-m", "envctl.…")`."""

    @property
    def address(self) -> str:
        """The IPv4 address from which what runs beside the nodes speaks to them."""

    def environment(self) -> Environment:
        """What is there now (asked afresh at each call)."""

    def node(self, name: str) -> Node:
        """One node as it is now.  Raises ResourceError for an unknown name."""

    def notes(self) -> tuple[str, ...]:
        """What `status` should tell about this environment, such as limits that are not enforced."""

    def run(
        self, node: str, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: str | None = None, timeout_s: float = 30.0,
    ) -> Completed:
        """Runs a command in a node and waits for it.  Raises DeadlineError after `timeout_s` (the command is killed)."""

    def popen(
        self, node: str | None, argv: Sequence[str], *, where: Where = "node", env: Mapping[str, str] | None = None,
        stdin: IO[bytes] | int | None = None, stdout: IO[bytes] | int | None = None, stderr: IO[bytes] | int | None = None, job: str = "",
    ) -> Process:
        """Starts a command in a node, or (node None) beside the nodes, in the environment's own network.

        The process dies with the environment.  It reads and writes the descriptors that it is given.  In a node, a terminal that
        is both its input and its output is its own: with that size, whenever it changes, and with the signals of its keys.
        `job`: it is a piece of work of its own, of that name; a substrate may give it a place of its own beside the nodes.
        """

    def helper(self, name: str, module: str, *arguments: str, ready: Probe | None = None) -> None:
        """Keeps a module of envctl running beside the nodes, restarted whenever it ends; returns when it is ready.

        Idempotent by name; other arguments for the same name replace the old ones.
        """

    def signal(self, node: str, signal: int) -> None:
        """Sends a signal to the node's main process; SIGKILL ends everything in the node."""

    def hold(self, node: str, lease_s: float) -> None:
        """Tells the node's supervisor not to restart it until `release`, or until `lease_s` seconds from now.

        Asking again renews the lease; when it runs out the node is released by itself.
        """

    def release(self, node: str) -> None:
        """Lets the supervisor restart the node again, and starts it if it is down.  Idempotent."""

    def pause(self, node: str, lease_s: float) -> None:
        """Stops all processes of a node where they are, until `resume`, or until `lease_s` seconds from now (renewed as a hold)."""

    def resume(self, node: str) -> None:
        """Lets them go on.  Idempotent."""

    def is_paused(self, node: str) -> bool:
        """Whether all processes of a node stand still, as the machine sees it, not as it was asked.  Raises ResourceError when it has none."""

    def limit(self, node: str, lease_s: float, *, cpus: float | None = None, memory_bytes: int | None = None) -> None:
        """Bounds what a node may use, in all its lives, until `unlimit`, or until `lease_s` seconds from now (renewed as a hold).

        The later bounds take the place of the earlier ones, and none is wider than the node's own limits.  For memory that it uses
        beyond a bound the kernel ends processes of it, or the bound is refused with ResourceError.  Needs the power `limits`, for CPU
        alone `throttling`: raises CapabilityError without it.
        """

    def unlimit(self, node: str) -> None:
        """Gives it back what it may use by itself.  Idempotent."""

    def throttled(self, node: str) -> float:
        """Seconds for which a bound on its CPU has kept the node from running, in this life of it (on each CPU, where that is counted so).

        Raises ResourceError when the node is down.
        """

    def lose(self, node: str, senders: Sequence[str], share: float, lease_s: float) -> bool:
        """Has a share of the packets from some nodes to one lost by the substrate's own means, until `unlose` or the lease's end (renewed as a hold).

        False where it has none, as is usual: then packet rules in the node's network do it (`where="netns"`).
        """

    def unlose(self, node: str) -> None:
        """Ends that; returns when it has.  Idempotent."""

    def restart(self, node: str) -> None:
        """Ends a node in good order (its stop signal, its grace) and starts it again, with its data; returns when it has ended."""

    def wait_ready(self, node: str, timeout_s: float) -> None:
        """Waits until the node's readiness probe holds.

        Raises DeadlineError with the unmet condition and the node's last log lines.
        """

    def log(self, name: str, *, tail: int | None = None, follow: bool = False) -> Iterator[str]:
        """The lines that a node or helper has written (stdout and stderr in one), oldest first, or the last `tail` of them.

        They survive restarts and last until the environment is removed.  With `follow` it goes on, as the node does, until
        the environment has ended.
        """

    def show(self, path: Path) -> None:
        """Makes a file or directory of the host visible beside the nodes, under the same path, as it is now.

        Whoever runs there may change it; where that is a copy, the host's own does not change with it.
        """

    def mirrored(self, directory: Path) -> AbstractContextManager[None]:
        """Meanwhile, and once more at the end, what is written beside the nodes in a directory that was shown comes back to it."""

    def fetch(self, path: Path, target: Path, *, most: int | None = None) -> None:
        """Copies a file or directory that is beside the nodes to the host.  Raises FileNotFoundError.

        `most`: nothing is copied when it has more bytes.
        """

    def usage(self) -> Mapping[str, Usage]:
        """What each living node uses; a node that can't be looked at is missing."""

    def keep_data(self, node: str, target: Path) -> None:
        """Copies the `/data` of a node that has ended to the host.  Needs the power `snapshots`."""

    def publish(self, name: str, node: str, port: int) -> str:
        """Makes a node's TCP port reachable on the host's loopback; returns "127.0.0.1:NNNNN".  Idempotent by `name`."""

    def renew(self, ttl_s: float) -> float:
        """Moves the expiry to `ttl_s` from now; returns it as Unix time."""


class Process(Protocol):
    """A process started by `Reach.popen`."""

    pid: int
    note: str  # what is to be told of where it runs, if it is not where it was to be

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""

    def wait(self, timeout_s: float | None = None) -> int:
        """Waits for the exit status (`LOST` among them).  Raises DeadlineError."""

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


class MakesParts(Protocol):
    """A realiser of a substrate whose declarer registers parts: resources `envctl:SUBSTRATE:KIND` with the inputs `name` and `node`."""

    def make_part(self, kind: str, name: str, node: str) -> None:
        """Makes it, or adopts the one that is there.  `node` is empty for a part of the environment as a whole."""

    def has_part(self, kind: str, name: str) -> bool:
        """Whether it is there."""

    def remove_part(self, kind: str, name: str) -> None:
        """Removes it; one that is not there is fine."""


class Declarer(Protocol):
    """What Pulumi makes of an environment beside the resources of envctl's own provider: resources of other providers, or none.

    They are the environment's own: whoever ends it ends them, and nobody else need.
    """

    def environment(self) -> Sequence[Any]:
        """Registers what must be there before the environment's own resource; returns those resources."""

    def node(self, spec: NodeSpec, before: Sequence[Any]) -> Sequence[Any]:
        """Registers what must be there before a node's own resource, once `before` are; returns those resources."""


class NothingMore:
    """Where envctl's own provider makes everything."""

    def environment(self) -> Sequence[Any]:
        """Nothing."""
        return ()

    def node(self, spec: NodeSpec, before: Sequence[Any]) -> Sequence[Any]:  # noqa: ARG002
        """Nothing."""
        return ()


class Notebook(Protocol):
    """Short texts that are kept with an environment, because they are true only there, and end with it."""

    def read(self, name: str) -> str | None:
        """What was written under that name; None when there is nothing, or no environment."""

    def write(self, name: str, text: str | None) -> None:
        """Keeps a text as a whole; None forgets it.  Raises NoEnvironmentError."""


@dataclass(frozen=True, slots=True)
class Found:
    """An environment that was found, or what is left of one."""

    id: str
    directory: Path
    alive: bool  # False: it has ended, and something is left of it
    expires_at: float | None = None  # Unix time, as far as that is known without asking it
    unknown: str = ""  # why it can't be asked any more, as where its cluster is not known here any more
    apart: bool = False  # whether it may be alive where who asks can't reach it


class Substrate(Protocol):
    """A plug-in of the entry-point group `envctl.substrates`: a class with this shape."""

    name: ClassVar[str]
    packaging: ClassVar[Packaging]
    beside: ClassVar[str]  # the host under which nodes reach what runs beside them
    powers: ClassVar[frozenset[Power]]

    @staticmethod
    def lacks(tools: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
        """What keeps environments from running here now, and faults that use these tools: (what is missing, what to do) pairs."""

    @staticmethod
    def directory(env_id: str) -> Path:
        """Where the environment of that id lives (or would live); together with the substrate it is the environment's key.

        It is `envs/ID` of the user's cache on every substrate, whether or not anything is there: its locks are beside it.
        """

    @staticmethod
    def attach(directory: Path) -> Reach:
        """Reach into a living environment.  Raises NoEnvironmentError when there is none."""

    @staticmethod
    def realiser(directory: Path) -> Realiser:
        """What makes, adopts and ends the environment of that directory."""

    @staticmethod
    def declarer(directory: Path) -> Declarer:
        """What more becomes resources of Pulumi; asked from inside a Pulumi program."""

    @staticmethod
    def notebook(directory: Path) -> Notebook:
        """What is kept with the environment of that directory."""

    @staticmethod
    def environments(env_id: str = "") -> tuple[Found, ...]:
        """What lives here, found by what is alive even where directories or state are lost; only what has that id, where one is given.

        Raises CapabilityError where that can't be told although something may be there.
        """

    @staticmethod
    def census(directory: Path) -> tuple[str, ...]:
        """What is left of the environment of that directory: processes, namespaces, mounts, sockets, directories.  Empty: nothing."""

