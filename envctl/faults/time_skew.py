"""Time skew: a node whose wall clock is wrong, by a jump or more and more, while what waits in it waits as long as before.

The clocks of its processes are skewed where they read them (`programs/vdso.py`), whatever they are written in and whenever they began; a program
that begins has the machine's time for a moment.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults.acting import bystanders, canary, unexplained
from envctl.faults.base import Blast, Effect, World
from envctl.faults.leased import ASKED_S, Leased, asked
from envctl.faults.programs.skewer import Look
from envctl.faults.targets import PICK, TARGET, AtNodes, at_each, placed
from envctl.model.environment import Node
from envctl.substrates.base import Power
from envctl.waiting import until

TOLERANCE_S = 0.1  # beyond the time that a reading takes
SETTLE_S = (0.2, 0.8, 2.0)  # for how long a process lives before it reads its clock: within that it has been found
READY_S, RIGHT_S = 60.0, 2.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_JUMP = r"^[+-]?\d+(\.\d+)?\s*(ms|s|m|h|d)$"
_SKEWER = "envctl.faults.programs.skewer"


class TimeSkew(AtNodes):
    """`{fault: time-skew, target: orders, pick: 1, jump: -90s}`, or `drift: 1.1`, with which a clock gains 0.1 s a second."""

    name: ClassVar[str] = "time-skew"
    mechanism: ClassVar[str] = "the clock as processes read it (vDSO) is shifted"
    proof: ClassVar[str] = "the target's clock against ours; timed waits"
    claims: ClassVar[frozenset[str]] = frozenset({"clock", "turns"})
    powers: ClassVar[frozenset[Power]] = frozenset({"time-skew"})
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["target"],
        "additionalProperties": False,
        "oneOf": [{"required": ["jump"]}, {"required": ["drift"]}],
        "description": "it needs either `jump` or `drift`",
        "properties": {
            "target": TARGET,
            "pick": PICK,
            "jump": {"type": "string", "pattern": _JUMP, "description": "how far, as -90s"},
            "drift": {"type": "number", "minimum": 0.1, "maximum": 10, "description": "how fast it goes, as 1.1"},
        },
    }

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        super().__init__(params, world)
        self._base_ns = 0
        self._skewers: dict[str, Leased] = {}  # of each target

    @cached_property
    def _offset_s(self) -> float:
        words = re.fullmatch(r"([+-]?[\d.]+)\s*([a-z]+)", self._params.get("jump", "0s"))
        assert words
        return float(words[1]) * _UNITS[words[2]]

    @property
    def _drift(self) -> float:
        return float(self._params.get("drift", 1)) - 1

    def probe(self) -> Blast:
        """See `Fault.probe`: by how much shows, and clocks can be looked at in every target."""
        if abs(self._offset_s) < 2 * TOLERANCE_S and not self._drift:
            raise UsageError("a clock that is as good as right shows nothing", hint=f"let it jump by {2 * TOLERANCE_S:g} s at least, or drift")
        for node in self._targets:
            main = self._world.reach.node(node.name).pid
            if main is None:
                raise UsageError(f"{node.name} is not alive: it has no clock")
            look = self._look(main)
            if look["strange"]:
                raise CapabilityError(f"{', '.join(look['strange'])} in {node.name} is no ordinary 64-bit program: its clock can't be skewed",
                                      hint="aim at a component that has only such")
            if look["waiting"]:
                raise CapabilityError(f"{node.name} uses librdkafka, which waits by the wall clock and can't be spared: skewed, it would wait too long or not at all",
                                      hint="aim at a component that does not")
            self._read(node.name, 0)
        how = f"{self._offset_s:+g} s" if "jump" in self._params else f"{self._drift:+g} s a second"
        return Blast(self._targets, f"{placed(self._targets)} {how}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"clocks": [node.name for node in self._targets]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  A target that was started again meanwhile is skewed anew."""
        self._base_ns = self._base_ns or time.time_ns()
        at_each(self._targets, lambda target: self._skew(target.name, lease_s))

    def _skew(self, target: str, lease_s: float) -> None:
        main, there = self._world.reach.node(target).pid, self._skewers.get(target)
        if main is None and there:
            return  # it has no clock as it is
        if main is None:
            raise ResourceError(f"{target} is not alive: it has no clock")
        if there and there.main == main and there.renew(lease_s):
            return
        self._forget(target)
        how = (str(self._base_ns), str(round(self._offset_s * 1e9)), str(self._drift), str(lease_s))
        there = self._skewers[target] = Leased(self._world.reach, _SKEWER, main, "skew", *how)
        if not there.begun() and self._world.reach.node(target).pid == main:
            raise ResourceError(f"the clock of {target} could not be skewed")

    def verify(self) -> Effect:
        """Every process of the targets is skewed, and one that lives there reads what was asked; in another node, it reads the right time."""
        skewed, missed, strange = self._found()
        others = [node.name for node in bystanders(self._world, self._targets, most=2)]
        with ThreadPoolExecutor(len(self._targets) + len(others)) as pool:
            canaries = pool.map(self._is_right, others)
            errors = list(pool.map(lambda node: self._error(node.name, SETTLE_S if skewed else SETTLE_S[:1]), self._targets))
            lost = unexplained(self._world, [name for name, right in zip(others, canaries, strict=True) if not right])
        worst = max(errors, key=abs)
        summary = f"as asked but for {1000 * abs(worst):.0f} ms" if abs(worst) <= TOLERANCE_S else f"{worst:+.2f} s off what was asked"
        summary += f"; {missed} processes were missed{_named(strange)}" if missed else f"; {len(lost)} others were skewed, too" if lost else ""
        detail = {"errors_s": errors, "processes": skewed, "missed": missed, "strange": strange,
                  **canary(self._world, others, lost)}
        return Effect(abs(worst) <= TOLERANCE_S and not missed and not lost, summary, detail)

    def _found(self) -> tuple[int, int, list[str]]:
        """How many processes of the targets are skewed, how many are not although they have been there for a while, and which can't be."""
        mains = [self._world.reach.node(node.name).pid for node in self._targets]
        looks = [self._look(main) for main in mains if main is not None]
        missed = {pid for look in looks for pid in look["right"]}
        if missed and any(look["skewed"] for look in looks):  # it may have begun just then
            missed &= {pid for main in mains if main is not None for pid in self._look(main)["right"]}
        strange = [name for look in looks for name in look["strange"]]
        return sum(len(look["skewed"]) for look in looks), len(missed) + mains.count(None), strange

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._targets, self._right)

    def _right(self, node: Node) -> None:
        try:
            self._forget(node.name)
        finally:
            if (main := self._world.reach.node(node.name).pid) is not None:
                asked(self._world.reach, _SKEWER, main, "right")

    def _forget(self, name: str) -> None:
        """Lets go of what keeps a node skewed, and waits for it to have put the clocks right."""
        if skewer := self._skewers.pop(name, None):
            skewer.end()

    def absent(self) -> Effect:
        """No process of the targets is skewed, and one that lives there reads the right time."""
        for node in self._targets:
            self._world.reach.wait_ready(node.name, READY_S)
        left, _, _ = self._found()
        wrong = [node.name for node in self._targets if left or not self._is_right(node.name)]
        summary = f"{left} processes are skewed, the clock is wrong in {', '.join(wrong) or 'none'}" if left or wrong else "right again"
        return Effect(not left and not wrong, summary, {"skewed": left, "wrong": wrong})

    def _error(self, node: str, settle: Sequence[float]) -> float:
        """How far a node's clock is from where it should be, in seconds; the least of some readings."""
        errors = []
        for settle_s in settle:
            errors.append(self._read(node, settle_s) - self._expected_s())
            if abs(errors[-1]) <= TOLERANCE_S:
                break
        return min(errors, key=abs)

    def _expected_s(self) -> float:
        """How far it should be from ours."""
        return self._offset_s + (time.time_ns() - self._base_ns) / 1e9 * self._drift if self._base_ns else self._offset_s + self._drift

    def _is_right(self, node: str) -> bool:
        return until(lambda: abs(self._read(node, SETTLE_S[0])) <= TOLERANCE_S, RIGHT_S)

    def _read(self, node: str, settle_s: float) -> float:
        """How far the clock is from ours, in seconds, in a process that has lived for a while when it reads it.  Raises CapabilityError."""
        stdin, tell = os.pipe()
        said, stdout = os.pipe()
        try:
            process = self._world.reach.popen(node, ["date", "-f", "-", "+%s.%N"], stdin=stdin, stdout=stdout)
        finally:
            os.close(stdin)
            os.close(stdout)
        with os.fdopen(said) as lines:
            time.sleep(settle_s)
            begun = time.time()
            os.write(tell, b"now\n")
            os.close(tell)
            line = lines.readline()
            ours = (begun + time.time()) / 2
        process.wait(ASKED_S)
        if not line:
            raise CapabilityError(f"the clock of {node} can't be read", hint="its image needs `date` of GNU coreutils")
        return float(line) - ours

    def _look(self, main: int) -> Look:
        found: Look = json.loads(asked(self._world.reach, _SKEWER, main, "look") or '{"skewed": [], "right": [], "waiting": [], "strange": []}')
        return found


def _named(strange: Sequence[str]) -> str:
    return f" ({', '.join(strange)} can't be skewed)" if strange else ""
