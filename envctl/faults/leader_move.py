"""Leader move: partitions of a topic get another leader among their replicas, as when a broker is drained, and their own one back later.

The order of the replicas is changed so that another one is preferred, and that one is elected; no data moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.engines.cluster import Partition
from envctl.faults.base import World
from envctl.faults.placement import Moved, Place


class LeaderMove(Moved):
    """`{fault: leader-move, topic: orders.placed, partitions: all}`."""

    name: ClassVar[str] = "leader-move"
    mechanism: ClassVar[str] = "the preferred replica is changed, and elected"
    proof: ClassVar[str] = "leaders and their epochs, replicas in sync"

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> LeaderMove:
        """See `FaultKind.build`."""
        return cls(params, world)

    @staticmethod
    def _can_move(brokers: int, replicas: int) -> bool:
        return min(brokers, replicas) > 1

    def _elsewhere(self, partition: Partition, number: int, alive: frozenset[int]) -> Place:  # noqa: ARG002
        """To the replica after the leader, so that leaders stay as evenly spread as they were."""
        at = partition.replicas.index(partition.leader)
        after = (*partition.replicas[at + 1 :], *partition.replicas[:at])
        return Place(after[0], (after[0], *(one for one in partition.replicas if one != after[0])))
