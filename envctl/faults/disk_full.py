"""Disk full: a node can't write any more to one of its directories, while everybody else can.

It takes a directory that is a file system of its own with a fixed size, in memory; that becomes as small as what is in it.  An embedded
node's `/tmp` and `/dev/shm` are always so, its `/data` where the scenario that it is brought up for says that it is filled.  A directory
on the machine's disk is refused: to fill it would fill everybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.errors import ResourceError, UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.leased import Leased, asked
from envctl.faults.targets import PICK, TARGET, AtNodes, at_each, placed
from envctl.model.environment import Node
from envctl.spec.units import size_bytes
from envctl.substrates.base import Power

DATA, SIZE = "/data", "512Mi"
WRITE_BYTES = 65536  # more than the page that a file system has at least
READY_S = 30.0
_FILLER = "envctl.faults.programs.disk_filler"
_NO_ROOM = "No space left on device"
_WRITE = 'head -c "$2" /dev/zero > "$1/.envctl-write-$$"; s=$?; rm -f "$1/.envctl-write-$$"; exit $s'


class DiskFull(AtNodes):
    """`{fault: disk-full, target: orders, pick: 1, path: /data}`, where `target` is a component or a node."""

    name: ClassVar[str] = "disk-full"
    mechanism: ClassVar[str] = "a file system of the node's own is shrunk to what is in it"
    proof: ClassVar[str] = "writes that are refused for want of room"
    claims: ClassVar[frozenset[str]] = frozenset({"disk"})
    powers: ClassVar[frozenset[Power]] = frozenset({"disk-sizes"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "properties": {
            "target": TARGET,
            "pick": PICK,
            "path": {"enum": ["/data", "/tmp", "/dev/shm"], "description": "/data, /tmp or /dev/shm; default: /data"},  # noqa: S108 - the node's own
            "size": {"type": "string", "pattern": r"^[1-9]\d*\s*(Mi|Gi)$", "description": "of `/data` from its birth, in memory, as 256Mi; default: 512Mi"},
        },
    }

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._fillers: dict[str, Leased] = {}  # of each target

    @classmethod
    def disks(cls, params: Mapping[str, Any]) -> Mapping[str, int]:
        """Whose `/data` must be a file system of its own, so that it can be full for a node alone."""
        return {params["target"]: size_bytes(params.get("size", SIZE))} if params.get("path", DATA) == DATA else {}

    @property
    def _path(self) -> str:
        return str(self._params.get("path", DATA))

    def probe(self) -> Blast:
        """See `Fault.probe`: every target is alive, and the directory is of a kind that can be full for it alone."""
        for node in self._targets:
            main = self._main(node)
            if main is None:
                raise UsageError(f"{node.name} is not alive: nothing can be written in it")
            asked(self._world.reach, _FILLER, main, self._path, "look")
        return Blast(self._targets, f"no room in {self._path} of {placed(self._targets)}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"free": self._path, "nodes": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A target that was started again meanwhile has a new directory, which is filled anew."""
        at_each(self._targets, lambda node: self._fill(node, lease_s))

    def _fill(self, node: Node, lease_s: float) -> None:
        main, there = self._main(node), self._fillers.get(node.name)
        if main is None or (there and there.main == main and there.renew(lease_s)):
            return
        self._forget(node)
        there = self._fillers[node.name] = Leased(self._world.reach, _FILLER, main, self._path, "fill", str(lease_s))
        if not there.begun() and self._main(node) == main:
            raise ResourceError(f"{self._path} of {node.name} could not be filled")

    def verify(self) -> Effect:
        """A write fails in each target because there is no room; in another node, it succeeds."""
        others = bystanders(self._world, self._targets, most=2)
        full = [self._is_full(node) for node in self._targets]
        hit = unexplained(self._world, [node.name for node in others if self._is_full(node)])
        summary = f"no room in {full.count(True)} of {len(full)}" + (f", nor in {', '.join(hit)}" if hit else "")
        return Effect(all(full) and not hit, summary, {"full": full.count(True), **canary(self._world, others, hit)})

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._targets, self._free)

    def _free(self, node: Node) -> None:
        try:
            self._forget(node)
        finally:
            if (main := self._main(node)) is not None:
                asked(self._world.reach, _FILLER, main, self._path, "free")

    def absent(self) -> Effect:
        """Each target is ready, and can write again."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, READY_S)
        left = [node.name for node in self._targets if self._is_full(node)]
        return Effect(not left, f"no room yet in {', '.join(left)}" if left else "there is room again", {"full": left})

    def _forget(self, node: Node) -> None:
        if filler := self._fillers.pop(node.name, None):
            filler.end()

    def _main(self, node: Node) -> int | None:
        return self._world.reach.node(node.name).pid

    def _is_full(self, node: Node) -> bool:
        """Whether a write in a node fails for want of room.  Raises ResourceError where it fails otherwise."""
        done = self._world.reach.run(node.name, ["sh", "-c", _WRITE, "sh", self._path, str(WRITE_BYTES)])
        if done.status and _NO_ROOM not in done.stderr:
            raise ResourceError(f"{node.name} could not write to {self._path}: {done.stderr.strip()}")
        return done.status != 0
