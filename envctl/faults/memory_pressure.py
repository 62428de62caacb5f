"""Memory pressure: something in a node holds memory that the node would need, as a leak or a neighbour in the same container does.

The ballast is a pipe of the node's own programs, whose last one keeps what it is given; it ends when nobody holds the other end of its
input any more, so with us.  Where the node's memory is limited (`limits`), the kernel may kill what runs in it: that is meant.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.targets import PICK, TARGET, AtNodes, at_each, placed
from envctl.model.environment import Node
from envctl.model.topology import Topology
from envctl.record.writer import publish
from envctl.spec.names import owner_of
from envctl.spec.units import size_bytes
from envctl.substrates.base import Process
from envctl.waiting import until

FEWEST, MOST, SLACK_BYTES = 0.95, 1.1, 8 << 20  # the tolerance: what is resident of what was asked for, and the programs themselves
SHARE = 0.5  # of the machine's available memory that may be taken: never more
READY_S, FILL_S, GONE_S = 30.0, 20.0, 5.0
_BALLAST = '{ head -c "$1" /dev/zero; cat; } | tail -c "$1" > /dev/null'
_LEAST, _MARKS = 1 << 20, 4096  # a ballast is known by its size: what is left of it, divided by the latter
_EACH = f"""for p in /proc/[0-9]*; do
c=$(tr '\\0' ' ' < $p/cmdline); n=${{{{c#tail -c }}}}; n=${{{{n% }}}}
case $c in "tail -c "[0-9]*) [ $n -ge {_LEAST} ] && [ $((n % {_MARKS})) -eq $1 ] && {{do}};; esac
done 2>/dev/null; exit 0"""
_AVAILABLE = "grep MemAvailable /proc/meminfo && command -v head tail cat tr"


_BOOK = "memory.json"  # one beside those of the run's other faults
_booking = threading.Lock()


@dataclass(slots=True)
class _Ballast:
    """What holds memory in one life of a node."""

    starts: int
    process: Process
    end: int  # of its input
    lease: threading.Timer | None = None

    def renew(self, lease_s: float) -> None:
        if self.lease:
            self.lease.cancel()
        self.lease = threading.Timer(lease_s, self.drop)
        self.lease.daemon = True
        self.lease.start()

    def end_it(self) -> None:
        if self.lease:
            self.lease.cancel()
        self.drop()
        self.process.signal(signal.SIGTERM)

    def drop(self) -> None:
        """Lets go of it; once is enough."""
        end, self.end = self.end, -1
        if end >= 0:
            os.close(end)


class MemoryPressure(AtNodes):
    """`{fault: memory-pressure, target: orders, pick: 1, bytes: 256Mi}`, or `leave: 32Mi` of its own limit; `target` is a component or a node."""

    name: ClassVar[str] = "memory-pressure"
    mechanism: ClassVar[str] = "a ballast that is held in the node"
    proof: ClassVar[str] = "what the node's processes have resident"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "oneOf": [{"required": ["bytes"]}, {"required": ["leave"]}],
        "description": "it needs either `bytes` or `leave`",
        "properties": {
            "target": TARGET,
            "pick": PICK,
            "bytes": {"type": "string", "pattern": r"^[1-9]\d*\s*(Mi|Gi)$", "description": "that are held in each, as 256Mi"},
            "leave": {"type": "string", "pattern": r"^[1-9]\d*\s*(Mi|Gi)$", "description": "that are left of each one's own limit, as 32Mi"},
        },
    }

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._ballasts: dict[str, _Ballast] = {}  # of each target
        self._sizes: dict[str, int] = {}  # likewise, in bytes

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:
        """See `FaultKind.unfit`: only of a limit can something be left."""
        owner = owner_of(topology, params["target"])
        if owner is None or "leave" not in params:
            return []
        own = owner.resources.memory_bytes
        if own is None:
            return [("leave", f"{owner.name} has no limit of which something could be left", "give it `resources: {memory: …}`, or say how many `bytes` are held")]
        return [("leave", f"{owner.name} may use {own >> 20} MiB in all", "leave less")] if size_bytes(params["leave"]) >= own else []

    @cached_property
    def _mark(self) -> int:
        """Different for each fault: so its ballast is known by what is left of its size."""
        return zlib.crc32(self._world.scratch.name.encode()) % _MARKS

    def _size(self, node: Node) -> int:
        """How large the ballast of a node is, in bytes: a little more than asked for.  Raises UsageError where it would be nothing, or all."""
        component = self._world.topology.components.get(node.component)
        own = component.resources.memory_bytes if component else None
        if "bytes" in self._params:
            size = size_bytes(self._params["bytes"])
        else:
            size = (own or 0) - self._used().get(node.name, 0) - size_bytes(self._params["leave"])
            size -= size % _MARKS
        if size < _LEAST or (own is not None and size + self._mark >= own):
            raise UsageError(f"{node.name} may use {(own or 0) >> 20} MiB in all, and uses {self._used().get(node.name, 0) >> 20} MiB already",
                             hint="hold less in it" if "bytes" in self._params else "leave less of it")
        return size + self._mark

    def probe(self) -> Blast:
        """See `Fault.probe`: the machine must have plenty more, each node more than nothing."""
        asked = sum(map(self._size, self._targets))
        for node in self._targets:
            available = self._available(node)
            if asked > available * SHARE:
                raise UsageError(f"{asked >> 20} MiB in all is more than half of what {node.name}'s machine has left", hint=f"it has {available >> 20} MiB")
        how = self._params["bytes"] if "bytes" in self._params else f"all but {self._params['leave']}"
        return Blast(self._targets, f"{how} in {placed(self._targets)}")

    def _available(self, node: Node) -> int:
        """What its machine has left, in bytes.  Raises CapabilityError where nothing can be held in it."""
        try:
            done = self._world.reach.run(node.name, ["sh", "-c", _AVAILABLE])
        except ResourceError as error:
            raise CapabilityError(f"memory can't be held in {node.name}: {error.message}", hint="its image needs a shell") from error
        if done.status:
            raise CapabilityError(f"memory can't be held in {node.name}", hint="its image needs head, tail, cat, tr and grep")
        return int(done.stdout.split()[1]) << 10

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"ballast": f"tail -c N, N % {_MARKS} = {self._mark}", "nodes": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A target that was started again meanwhile gets its ballast anew; one that was killed by the kernel does not."""
        if not self._ballasts:
            self._book()
        at_each(self._targets, lambda target: self._press(self._world.reach.node(target.name), lease_s))

    def _book(self) -> None:
        """Notes what it takes before it does, for others who come before it shows.  Raises ResourceError where all together would take too much."""
        with _booking:
            here = self._world.scratch / _BOOK
            others = [json.loads(file.read_text(encoding="utf-8")) for file in here.parent.parent.glob(f"*/{_BOOK}") if file != here]
            booked = sum(sum(other["sizes"].values()) for other in others)
            held = sum(self._held(name, other["mark"]) for other in others for name in other["sizes"] if self._world.reach.node(name).pid)
            had = min(map(self._available, self._targets)) + held
            self._sizes = {node.name: self._size(node) for node in self._targets}
            asked = sum(self._sizes.values())
            if asked + booked > had * SHARE:
                raise ResourceError(f"with what other faults hold, {(asked + booked) >> 20} MiB would be taken: more than half of the machine's {had >> 20} MiB")
            here.parent.mkdir(parents=True, exist_ok=True)
            publish(here, {"mark": self._mark, "sizes": self._sizes})

    def _press(self, node: Node, lease_s: float) -> None:
        there = self._ballasts.get(node.name)
        if node.pid is None and there:
            return
        if there is None or there.starts != node.starts:
            if there:
                there.drop()
            there = self._ballasts[node.name] = self._begin(node)
        there.renew(lease_s)

    def _begin(self, node: Node) -> _Ballast:
        stdin, end = os.pipe()
        try:
            process = self._world.reach.popen(node.name, ["sh", "-c", _BALLAST, "sh", str(self._sizes[node.name])], stdin=stdin,
                                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        finally:
            os.close(stdin)
        return _Ballast(node.starts, process, end)

    def verify(self) -> Effect:
        """The ballast of each target is resident, and the substrate counts it as the node's; nothing holds it in another node."""
        until(lambda: not any(ballast.end >= 0 for ballast in self._ballasts.values()) or all(map(self._is_full, self._targets)), FILL_S)
        resident = [self._resident(node) for node in self._targets]
        used, others = self._used(), bystanders(self._world, self._targets, most=2)
        hit = unexplained(self._world, [node.name for node in others if self._resident(node)])
        asked = [self._sizes.get(node.name, _LEAST) for node in self._targets]
        fits = all(size * FEWEST <= there <= size * MOST + SLACK_BYTES for size, there in zip(asked, resident, strict=True))
        counted = all(used.get(node.name, 0) >= size * FEWEST for size, node in zip(asked, self._targets, strict=True))
        summary = f"{min(resident) >> 20} MiB held in each" + (f", and in {', '.join(hit)}" if hit else "")
        detail = {"asked_bytes": asked, "resident_bytes": resident, "used_bytes": [used.get(node.name, 0) for node in self._targets],
                  **canary(self._world, others, hit)}
        return Effect(fits and counted and not hit, summary, detail)

    def _is_full(self, node: Node) -> bool:
        return self._resident(node) >= self._sizes.get(node.name, _LEAST) * FEWEST

    def heal(self) -> None:
        """See `Fault.heal`: also of a ballast whose other end did not hear of our death."""
        at_each(self._targets, self._relieve)
        (self._world.scratch / _BOOK).unlink(missing_ok=True)

    def _relieve(self, node: Node) -> None:
        try:
            if ballast := self._ballasts.pop(node.name, None):
                ballast.end_it()
        finally:
            if self._world.reach.node(node.name).pid is not None:
                self._world.reach.run(node.name, ["sh", "-c", _EACH.format(do="kill -9 ${p#/proc/}"), "sh", str(self._mark)])

    def absent(self) -> Effect:
        """Nothing of it is resident, and each target is ready."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, READY_S)
        until(lambda: not any(map(self._resident, self._targets)), GONE_S if not self._ballasts else 0)
        left = sum(map(self._resident, self._targets))
        return Effect(not left, f"{left >> 20} MiB are still held" if left else "nothing is held", {"resident_bytes": left})

    def _resident(self, node: Node) -> int:
        return self._held(node.name, self._mark)

    def _held(self, node: str, mark: int) -> int:
        """What a ballast of that mark has resident."""
        done = self._world.reach.run(node, ["sh", "-c", _EACH.format(do="grep VmRSS $p/status"), "sh", str(mark)])
        return sum(int(line.split()[1]) for line in done.stdout.splitlines()) << 10

    def _used(self) -> dict[str, int]:
        return {name: sum(size for _, size in use.values()) for name, use in self._world.reach.usage().items()}
