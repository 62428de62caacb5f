"""Starts what a cell runs: nodes and helpers, with their output in their logs, and commands in them or beside them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable
from dataclasses import replace
from pathlib import Path

from envctl.model.environment import NodeSpec
from envctl.substrates.embedded import root, spawn
from envctl.substrates.embedded.identity import cell_uid
from envctl.substrates.embedded.network import Network
from envctl.substrates.embedded.spawn import Command, Started


class Launcher:
    """Starts processes; all of them say in their environment which cell they belong to."""

    def __init__(self, env_id: str, directory: Path) -> None:
        self._id, self._directory = env_id, directory
        self._children = spawn.Children()
        self.network = Network(self._children)
        self.node_uid = cell_uid()  # seen from the cell
        self._mark = {"ENVCTL_CELL": str(directory)}
        null = os.open(os.devnull, os.O_RDWR)
        self.quiet = (null, null, null)  # standard descriptors of what nobody listens to

    async def start(self, spec: NodeSpec) -> Started:
        """The process of a helper, or PID 1 of a node."""
        log = os.open(self.log(spec.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            os.fchown(log, self.node_uid, self.node_uid)
            command = Command(spec.command, spec.env, spec.cwd, (self.quiet[0], log, log))
            if spec.kind == "helper":
                return await self.beside(command)
            return await self._node(spec, command)
        finally:
            os.close(log)

    async def _node(self, spec: NodeSpec, command: Command) -> Started:
        home = self._directory / "nodes" / spec.name
        (home / "root").mkdir(exist_ok=True)
        address, netns = await self.network.join(spec.name), self.network.namespace(spec.name)
        place = root.Root(home / "root", spec.name, address, home / "data", spec.mounts)
        argv = ("/bin/sh", "-c", spawn.INIT, f"envctl-node:{self._id}:{spec.name}", *spec.command)
        command = replace(command, argv=argv, env=self._node_env(spec))
        return await self._children.fork(spawn.node(command, place, netns, self.node_uid))

    async def inside(self, command: Command, spec: NodeSpec, pid: int) -> Started:
        """A command in the node whose PID 1 is `pid`, in the node's surroundings."""
        command = replace(command, env={**self._node_env(spec), **command.env}, cwd=spec.cwd)
        return await self._children.fork(spawn.inside(command, pid))

    async def beside(self, command: Command, node: str | None = None) -> Started:
        """A command with the machine's files, in the cell's network or in a node's."""
        command = replace(command, env={**command.env, **self._mark})
        return await self._children.fork(spawn.beside(command, None if node is None else self.network.namespace(node)))

    async def tool(self, *argv: str, log: Path | None = None) -> int:
        """The exit status of a tool of the machine's that ran beside the nodes: what may take long must not hold the cell up."""
        with open(log or os.devnull, "ab") as output:  # noqa: PTH123, ASYNC230 - a local file
            command = Command(argv, os.environ, "/", (self.quiet[0], output.fileno(), output.fileno()))
            return await status_of(self.beside(command))

    def log(self, name: str) -> Path:
        """Where the output of a node or helper goes."""
        return self._directory / "logs" / f"{name}.log"

    def _node_env(self, spec: NodeSpec) -> dict[str, str]:
        base = {"PATH": spawn.PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "HOSTNAME": spec.name, **self._mark}  # noqa: S108 - the node's own
        return {**base, **spec.env}


async def status_of(starting: Awaitable[Started]) -> int:
    """Waits for a command's exit status; who stops waiting kills it."""
    pid, ended = await starting
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        raise
