"""The contract of every fault.

`probe → journal the undo (fsync) → apply with a lease → verify the effect → hold → heal → verify the absence → recover`.
The runner walks these stages, writes an event at each, and never trusts a fault to have acted: `verify` must measure it.
A fault owns its inverse: `heal` is idempotent and needs no memory of how it was applied.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from envctl.model.environment import Node
from envctl.model.topology import Topology
from envctl.substrates.base import Reach


@dataclass(frozen=True, slots=True)
class World:
    """What a fault may touch: one environment, through its substrate, and nothing else."""

    reach: Reach
    topology: Topology
    rng: random.Random  # of this fault alone, derived from the scenario's rng_seed and the fault's id
    scratch: Path  # a private directory inside the run's directory
    bootstrap: str = ""  # Kafka bootstrap servers as seen from inside the environment, if there are any
    stopping: threading.Event = field(default_factory=threading.Event)  # set: the run ends; what a fault waits for is given up, and it is healed


@dataclass(frozen=True, slots=True)
class Effect:
    """What a measurement showed.  `shown` False makes the run inconclusive, whatever else holds."""

    shown: bool
    summary: str  # one line for a person: "19.8 % of 4,210 packets"
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Blast:
    """Which nodes a fault touches, known before anything is applied."""

    nodes: tuple[Node, ...]
    summary: str  # for the dry run and the terminal: "orders → bus 20 %"
    peers: tuple[Node, ...] = ()  # whose traffic with those nodes is hurt, too: no bystanders of other faults


class Fault(Protocol):
    """One fault of a timeline, with its targets resolved.  Built by the plug-in from a scenario's parameters."""

    name: ClassVar[str]
    instantaneous: bool  # True: nothing is held; `heal` and `absent` still run

    def probe(self) -> Blast:
        """Resolves targets and checks capabilities; writes nothing.  Raises CapabilityError, or UsageError for targets."""

    def undo(self) -> Mapping[str, Any]:
        """What is journalled before `apply`: enough for `heal` in another process."""

    def apply(self, lease_s: float) -> None:
        """Makes the fault act; whatever happens to us, it ends by itself at most `lease_s` seconds later.

        Called again with the same lease to renew it while the fault is held.
        """

    def verify(self) -> Effect:
        """Measures that the fault acts, inside its stated tolerance, and that an untargeted canary is untouched."""

    def heal(self) -> None:
        """Removes the fault.  Idempotent; also right when it was never applied."""

    def absent(self) -> Effect:
        """Measures that the fault is gone."""


class FaultKind(Protocol):
    """A plug-in of the entry-point group `envctl.faults`: a class with this shape."""

    name: ClassVar[str]
    schema: ClassVar[Mapping[str, Any]]  # JSON Schema of its parameters in a scenario
    tools: ClassVar[tuple[str, ...]]  # tools of the machine that it uses, looked for before anything starts
    mechanism: ClassVar[str]  # how it acts, in a few words
    proof: ClassVar[str]  # what its effect is measured by, likewise
    # Optional: `powers: ClassVar[frozenset[Power]]`, what it needs that not every substrate has; likewise.  Where none has them,
    # `missing: ClassVar[str]` tells why.
    # Optional: `impossible(params)`, a class method: (parameter, what is wrong with it) of params that passed the schema and still can't be.
    # Optional: `unfit(params, topology)`, a class method: (parameter, message, hint) of what the topology shows to be impossible.
    # Optional: `disks(params)`, a class method: component or node → bytes, whose `/data` is to be a file system of that size from its birth.
    # Optional: `claims: ClassVar[frozenset[str]]`, what it takes of its nodes for itself: faults that claim the same of one node can't overlap.
    # `processes`: whether they live; `turns`: when those that live run; `clock`: what their wall clock says; `disk`: how much room they have.

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> Fault:
        """Makes the fault for one entry of a timeline.  `params` has passed the schema."""

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """(parameter, component or group name) pairs, so that names are checked before anything starts.

        The parameter tells the kind of name: "group" is a consumer group, "topic" a topic, "zone" a zone, anything else a component.
        """
