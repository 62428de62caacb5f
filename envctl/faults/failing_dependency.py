"""Failing dependency: a stub, which answers for a service that is left out, fails a share of the calls on purpose.

With errors (503, UNAVAILABLE), with time-outs (no answer at all), or with bodies that are no answer (broken JSON, broken protocol buffers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from envctl.errors import ResourceError, UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.statistics import ALPHA, binomial_p_value
from envctl.faults.targets import at_each, nodes_named, ratio
from envctl.model.environment import Node
from envctl.waiting import until

WAYS = ("errors", "timeouts", "malformed")
CALLS = 20  # that a measurement waits for
OBSERVE_S = 10.0  # and how long


class FailingDependency:
    """`{fault: failing-dependency, stub: fraud, how: errors|timeouts|malformed, share: 50 %}`."""

    name: ClassVar[str] = "failing-dependency"
    tools: ClassVar[tuple[str, ...]] = ()
    mechanism: ClassVar[str] = "the stub fails calls on purpose"
    proof: ClassVar[str] = "the stub's own count, binomial test"
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["stub", "how"],
        "additionalProperties": False,
        "properties": {
            "stub": {"type": "string", "description": "a service of the scenario's `stubs`"},
            "how": {"enum": list(WAYS), "description": "how its calls fail"},
            "share": {"type": ["string", "number"], "description": "share of the calls that fail, such as 50 %; default: all"},
        },
    }
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._params = params
        self._world = world
        self._share = ratio(params.get("share", 1.0))
        if not self._share:
            raise UsageError("a dependency that fails 0 % of its calls is a healthy one", hint="ask for a larger share")

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> FailingDependency:
        """See `FaultKind.build`."""
        return cls(params, world)

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The stub."""
        return [("stub", params["stub"])] if isinstance(params.get("stub"), str) else []

    @cached_property
    def _nodes(self) -> tuple[Node, ...]:
        return nodes_named(self._world, self._params["stub"])

    def probe(self) -> Blast:
        """See `Fault.probe`: a stub must be there, that fails nothing yet."""
        for node in self._nodes:
            if (how := self._ask(node)["how"]):
                raise UsageError(f"the stub {node.name} fails already, with {how}", hint="let the faults follow each other")
        share = "" if self._share == 1 else f", {self._share * 100:g} %"
        return Blast(self._nodes, f"{self._params['stub']} fails with {self._params['how']}{share}")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`."""
        return {"heal_stubs": [node.name for node in self._nodes]}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  One that was started again fails anew; one that is down fails as it is."""
        at_each(self._nodes, lambda node: self._tell(node, how=self._params["how"], share=self._share, lease_s=lease_s))

    def verify(self) -> Effect:
        """By the stubs' own count, calls have come, and as many of them failed as were to (exact binomial test)."""
        until(lambda: sum(each["asked"] for each in self._states()) >= CALLS, OBSERVE_S)
        states = self._states()
        asked, failed = sum(each["asked"] for each in states), sum(each["failed"] for each in states)
        acts = all(each["how"] == self._params["how"] for each in states)
        shown = acts and failed > 0 and binomial_p_value(failed, asked, self._share) >= ALPHA
        return Effect(shown, f"{failed:,} of {asked:,} calls failed" if acts else "the stub does not fail", {"asked": asked, "failed": failed})

    def heal(self) -> None:
        """See `Fault.heal`."""
        at_each(self._nodes, lambda node: self._tell(node, how=""))

    def _tell(self, node: Node, **request: Any) -> None:
        if self._world.reach.node(node.name).pid is not None:
            self._ask(node, **request)

    def absent(self) -> Effect:
        """No stub fails any more."""
        left = [node.name for node, state in zip(self._nodes, self._states(), strict=True) if state["how"]]
        return Effect(not left, f"{', '.join(left)} still fails" if left else "answering again", {"failing": left})

    def _states(self) -> list[dict[str, Any]]:
        return [self._ask(node) for node in self._nodes]

    def _ask(self, node: Node, **request: Any) -> dict[str, Any]:
        reach = self._world.reach
        done = reach.run(node.name, [*reach.own, "-m", "envctl.replay.failing", json.dumps(request)], where="netns")
        if done.status:
            raise ResourceError(f"{node.name} can't be told to fail: {done.stderr.strip()}", hint=f"it must be among the scenario's `stubs`, and with `--full` nothing is stubbed: {node.component}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found
