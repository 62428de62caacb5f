"""CPU pressure: a node gets less CPU than it wants, as on a machine that is shared with too much else."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import UsageError
from envctl.faults import hunger
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect
from envctl.faults.targets import PICK, TARGET, AtNodes, at_each, placed, ratio
from envctl.model.environment import Node
from envctl.substrates.base import Power

WINDOW_S, CANARY_S = 2.0, 0.5
FEWEST, MOST, SLACK = 0.5, 1.25, 0.03  # the tolerance: how many times of what was asked a hungry node gets, and CPUs beyond that
READY_S = 60.0
TRIES_S = 6.0  # on a busy machine who is free may get little for a while; who is bound never gets more


class CpuPressure(AtNodes):
    """`{fault: cpu-pressure, target: orders, pick: 1, cpus: 0.2}`; or `share: 20 %` of the machine's CPUs."""

    name: ClassVar[str] = "cpu-pressure"
    mechanism: ClassVar[str] = "a quota of control groups, or stopped in turns"
    proof: ClassVar[str] = "the share that a busy process gets"
    claims: ClassVar[frozenset[str]] = frozenset({"processes", "turns"})
    powers: ClassVar[frozenset[Power]] = frozenset({"throttling"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "oneOf": [{"required": ["cpus"]}, {"required": ["share"]}],
        "description": "it needs either `cpus` or `share`",
        "properties": {
            "target": TARGET,
            "pick": PICK,
            "cpus": {"type": "number", "minimum": 0.02, "description": "CPUs that each may use, as 0.2"},
            "share": {"type": ["string", "number"], "pattern": r"^\s*(?!0+(\.0+)?\s*%)\d+(\.\d+)?\s*%\s*$", "exclusiveMinimum": 0, "exclusiveMaximum": 1,
                      "description": "of the CPUs of its machine, as 20 %"},
        },
    }

    @cached_property
    def _machine(self) -> int:
        """CPUs of the machine: nodes are on machines like ours, or on ours."""
        return len(os.sched_getaffinity(0))

    @cached_property
    def _cpus(self) -> float:
        return float(self._params["cpus"]) if "cpus" in self._params else ratio(self._params["share"]) * self._machine

    @property
    def _most(self) -> float:
        return self._cpus * MOST + SLACK

    @property
    def _eaters(self) -> int:
        return min(self._machine, math.floor(self._most) + 1)

    def probe(self) -> Blast:
        """See `Fault.probe`: more than nothing, and so much less than there is that it shows."""
        if self._cpus <= 0 or self._most >= self._machine * 0.9:
            raise UsageError(f"with {self._cpus:g} CPUs a node is under no pressure on a machine of {self._machine}, or it stands still",
                             hint=f"ask for 0.02 to {self._machine * 0.65:.1f}")
        for node in self._targets:
            component = self._world.topology.components.get(node.component)
            own = component.resources.cpus if component else None
            if own is not None and self._most >= own * 0.9:
                raise UsageError(f"{node.name} may use {own:g} CPUs by itself: with {self._cpus:g} it is under no pressure that would show",
                                 hint=f"ask for {max(0.0, math.floor(100 * (own * 0.9 - SLACK) / MOST) / 100):g} at most")
            hunger.check(self._world.reach, node.name)
        return Blast(self._targets, f"{placed(self._targets)} with {self._cpus:g} CPUs")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"unlimit": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A target that is down is bound when it is back, by its supervisor or the next renewal."""
        living = [node for node in self._targets if self._world.reach.node(node.name).pid is not None]
        at_each(living, lambda node: self._world.reach.limit(node.name, lease_s, cpus=self._cpus), at_once=True)

    def verify(self) -> Effect:
        """However hungry each target is, it gets what was asked, because the bound keeps it from running; no bound keeps another node."""
        others = self._others()
        with ThreadPoolExecutor(len(self._targets) + 1) as pool:
            canaries = pool.submit(lambda: [self._feed(node, CANARY_S) for node in others])
            fed = list(pool.map(lambda node: self._feed(node, WINDOW_S), self._targets))
        low, high = min(each.cpus for each in fed), max(each.cpus for each in fed)
        hit = unexplained(self._world, [node.name for node, each in zip(others, canaries.result(), strict=True) if self._is_bound(each)])
        summary = f"{low:.2f} to {high:.2f} CPUs" if len(fed) > 1 else f"{high:.2f} CPUs"
        idle = sum(not self._is_bound(each) for each in fed)
        summary += f"; {idle} of {len(fed)} were not held to {self._cpus:g}" if idle else "; another node was, too" if hit else ""
        detail = {"asked_cpus": self._cpus, "cpus": [each.cpus for each in fed], "stood_s": [each.stood_s for each in fed],
                  "canary_cpus": [each.cpus for each in canaries.result()], **canary(self._world, others, hit)}
        return Effect(not idle and not hit and low >= self._cpus * FEWEST, summary, detail)

    def _feed(self, node: Node, window_s: float) -> hunger.Fed:
        return hunger.feed(self._world.reach, node.name, self._eaters, window_s)

    def _is_bound(self, fed: hunger.Fed) -> bool:
        return fed.stood_s > 0 and fed.cpus <= self._most

    def _others(self) -> Sequence[Node]:
        """A node that no bound of its own keeps, either."""
        return [node for node in bystanders(self._world, self._targets) if not self._has_own_bound(node)][:1]

    def _has_own_bound(self, node: Node) -> bool:
        component = self._world.topology.components.get(node.component)
        return component is not None and component.resources.cpus is not None

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._targets, lambda node: self._world.reach.unlimit(node.name))

    def absent(self) -> Effect:
        """Each is ready, and when hungry gets more than it was bound to.  Whom no bound keeps and who gets little is on a busy machine."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, READY_S)
        with ThreadPoolExecutor(len(self._targets)) as pool:
            fed = list(pool.map(self._freed, self._targets))
        left = [node.name for node, each in zip(self._targets, fed, strict=True) if not self._is_free(node, each)]
        bound = [node.name for node, each in zip(self._targets, fed, strict=True) if self._is_bound(each)]
        summary = f"{', '.join(left)} gets no more" if left else "gets more again"
        return Effect(not left, summary, {"bound": bound, "cpus": [each.cpus for each in fed], "unmeasured": bool(left) and not bound})

    def _freed(self, node: Node) -> hunger.Fed:
        """What a node gets as soon as it is clear whether a bound keeps it, or in the end."""
        deadline = time.monotonic() + TRIES_S
        while True:
            fed = self._feed(node, CANARY_S)
            if self._is_free(node, fed) or self._is_bound(fed) or time.monotonic() > deadline:
                return fed

    def _is_free(self, node: Node, fed: hunger.Fed) -> bool:
        return fed.cpus > self._most and (not fed.stood_s or self._has_own_bound(node))
