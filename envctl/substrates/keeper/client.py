"""How a client speaks with a keeper: the part of `Reach` that is the same wherever nodes run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envctl import errors
from envctl.errors import DeadlineError, NoEnvironmentError, ResourceError
from envctl.model.environment import Environment, Node, NodeSpec
from envctl.model.topology import Probe
from envctl.substrates.keeper import wire

_MARGIN_S = 60.0  # for what the keeper itself does, such as ending an old node, beyond the time-out of a request


class KeeperClient:
    """Requests to the keeper of one environment, each over a connection of its own."""

    substrate = ""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.credentials: Mapping[str, str] = {}  # go with every request

    def connect(self) -> wire.Lines:
        """A new connection.  Raises OSError when nobody listens."""
        raise NotImplementedError

    def opened(self) -> wire.Lines:
        """A new connection.  Raises NoEnvironmentError."""
        try:
            return self.connect()
        except OSError as error:
            raise NoEnvironmentError(
                f"there is no living environment {self.directory.name}", hint="`envctl list` shows what is alive, `envctl up` makes one",
            ) from error

    def ask(self, do: str, fds: Sequence[int] = (), **fields: Any) -> wire.Message:
        """One request and its answer.  Raises NoEnvironmentError, or what the keeper says went wrong."""
        lines = self.opened()
        lines.sock.settimeout(float(fields.get("timeout_s", 0)) + _MARGIN_S)
        try:
            lines.send({"do": do, **fields, **self.credentials}, fds)
            return checked(lines.receive())
        except TimeoutError as error:
            raise DeadlineError(f"the keeper of {self.directory.name} does not answer `{do}`") from error
        except ConnectionError as error:
            raise self.ended(do) from error
        finally:
            lines.close()

    def ended(self, do: str) -> NoEnvironmentError:
        """What to raise when the keeper goes in the middle of a request."""
        return NoEnvironmentError(f"the environment {self.directory.name} ended in the middle of `{do}`")

    def environment(self) -> Environment:
        """What is there now.  `stack` and `plan_digest` are the labels of those names."""
        status = self.ask("status")
        labels, units = status["labels"], [Node(**unit) for unit in status["nodes"]]
        return Environment(
            id=status["id"], stack=labels.get("stack", ""), substrate=self.substrate, directory=self.directory,
            plan_digest=labels.get("plan_digest", ""), nodes=tuple(unit for unit in units if unit.kind != "helper"),
            endpoints=status["endpoints"], expires_at=status["expires_at"], labels=labels,
        )

    def notes(self) -> tuple[str, ...]:
        """What `status` should tell about this environment, such as limits that are not enforced."""
        return tuple(self.ask("status")["notes"])

    def node(self, name: str) -> Node:
        """One node (or helper) as it is now.  Raises ResourceError for an unknown name."""
        return Node(**self.ask("node", name=name))

    def start(self, spec: NodeSpec, ready_timeout_s: float, **more: Any) -> Node:
        """Starts a node or helper, adopts the one with the same digest, or replaces the one with another; waits until it is ready."""
        return Node(**self.ask("start", spec=asdict(spec), timeout_s=ready_timeout_s, **more))

    def signal(self, node: str, signal: int) -> None:
        """Sends a signal to the node's main process; SIGKILL ends everything in the node."""
        self.ask("signal", name=node, signal=int(signal))

    def hold(self, node: str, lease_s: float) -> None:
        """No restarts from now on, until `release`, and for `lease_s` seconds at most.  Called again it renews the lease."""
        self.ask("hold", name=node, lease_s=lease_s)

    def release(self, node: str) -> None:
        """Restarts again; a node that is down starts at once.  Idempotent."""
        self.ask("release", name=node)

    def pause(self, node: str, lease_s: float) -> None:
        """Stops all processes of a node, until `resume`, and for `lease_s` seconds at most.  Called again it renews the lease."""
        self.ask("pause", name=node, lease_s=lease_s)

    def resume(self, node: str) -> None:
        """Lets them go on.  Idempotent."""
        self.ask("resume", name=node)

    def is_paused(self, node: str) -> bool:
        """Whether all processes of a node stand still, as the machine sees it.  Raises ResourceError when it has none."""
        return bool(self.ask("is_paused", name=node)["paused"])

    def limit(self, node: str, lease_s: float, *, cpus: float | None = None, memory_bytes: int | None = None) -> None:
        """Bounds what a node may use, until `unlimit`, and for `lease_s` seconds at most.  Called again it renews the lease."""
        self.ask("limit", name=node, cpus=cpus, memory_bytes=memory_bytes, lease_s=lease_s)

    def unlimit(self, node: str) -> None:
        """Ends that.  Idempotent."""
        self.ask("unlimit", name=node)

    def throttled(self, node: str) -> float:
        """Seconds for which a bound on its CPU has kept the node from running.  Raises ResourceError when it is down."""
        return float(self.ask("throttled", name=node)["seconds"])

    def lose(self, node: str, senders: Sequence[str], share: float, lease_s: float) -> bool:  # noqa: ARG002
        """By no means of its own."""
        return False

    def unlose(self, node: str) -> None:
        """Nothing to do."""

    def restart(self, node: str) -> None:
        """Ends a node in good order and starts it again; returns when it has ended."""
        self.ask("restart", name=node)

    def wait_ready(self, node: str, timeout_s: float) -> None:
        """Waits until the node is ready.  Raises DeadlineError with the unmet condition and the last log lines."""
        self.ask("wait", name=node, timeout_s=timeout_s)

    def renew(self, ttl_s: float, labels: Mapping[str, str] | None = None) -> float:
        """Moves the expiry to `ttl_s` from now (and from each later use), and changes the labels if there are any."""
        return float(self.ask("renew", ttl_s=ttl_s, labels=None if labels is None else dict(labels))["expires_at"])

    def is_alive(self) -> bool:
        """Whether the keeper answers."""
        try:
            self.ask("status")
        except NoEnvironmentError:
            return False
        return True


def helper_spec(name: str, argv: tuple[str, ...], ready: Probe | None, env: Mapping[str, str] | None = None, cwd: str = "/") -> NodeSpec:
    """What a keeper needs in order to keep a command running beside the nodes."""
    digest = hashlib.sha256(json.dumps(argv).encode()).hexdigest()[:16]
    return NodeSpec(name, name, "helper", "", argv, digest, env=dict(env or {}), cwd=cwd, ready=ready)


def checked(reply: wire.Message) -> wire.Message:
    """The reply.  Raises what it says went wrong."""
    if "error" in reply:
        kind = getattr(errors, reply["error"], ResourceError)
        raise kind(reply["message"], hint=reply["hint"])
    return reply
