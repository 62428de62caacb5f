"""Partition reassignment: partitions of a topic go to other replicas, as when brokers are added or a cluster is balanced anew, and back later.

Where a component has more brokers than the topic has replicas, a broker that has none takes the place of the leader: data moves.
Where every broker has a replica already, their order is rotated: each is preferred to another one than before, and leaders move.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from envctl.engines.cluster import Partition
from envctl.faults.base import World
from envctl.faults.placement import Moved, Place


class PartitionReassignment(Moved):
    """`{fault: partition-reassignment, topic: orders.placed, partitions: all}`."""

    name: ClassVar[str] = "partition-reassignment"
    mechanism: ClassVar[str] = "replicas reassigned by the admin API"
    proof: ClassVar[str] = "replicas, leader epochs, replicas in sync"

    @classmethod
    def build(cls, params: Mapping[str, Any], world: World) -> PartitionReassignment:
        """See `FaultKind.build`."""
        return cls(params, world)

    @staticmethod
    def _can_move(brokers: int, replicas: int) -> bool:
        return brokers > 1 and (brokers > replicas or replicas > 1)

    def _elsewhere(self, partition: Partition, number: int, alive: frozenset[int]) -> Place:
        spare = sorted(alive - set(partition.replicas))
        if spare:
            replicas = tuple(spare[number % len(spare)] if one == partition.leader else one for one in partition.replicas)
            return Place(replicas[0], replicas)
        at = partition.replicas.index(partition.leader) + 1
        replicas = (*partition.replicas[at:], *partition.replicas[:at])
        return Place(replicas[0], replicas)
