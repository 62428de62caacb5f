"""Where consumer groups go on, read and moved from outside.

`client` is one of `cluster.admin`, which raises what Kafka refuses as ResourceError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envctl.errors import ResourceError

Place = tuple[str, int]
"""Topic and partition."""


def committed(client: Any, groups: Sequence[str]) -> dict[str, dict[Place, int]]:
    """Group → the offsets that it has committed, by place, where it has."""
    found = client.list_group_offsets(list(groups)) if groups else {}
    return {group: {(place.topic, place.partition): one.offset for place, one in found.get(group, {}).items() if one.offset >= 0} for group in groups}


def move(client: Any, group: str, to: Mapping[Place, int], note: str = "") -> None:
    """Has a group go on at these offsets, with a note as their metadata.

    Committed as by a consumer that is no member, which a coordinator takes only while the group has none (Kafka: OffsetCommit with generation -1).
    Raises ResourceError where it has.
    """
    from kafka import TopicPartition
    from kafka.errors import NoError
    from kafka.structs import OffsetAndMetadata

    answers = client.alter_group_offsets(group, {TopicPartition(*place): OffsetAndMetadata(offset, note, None) for place, offset in to.items()})
    for place, error in answers.items():
        if error is not NoError:
            raise ResourceError(f"the offsets of group {group} in {place.topic}/{place.partition} can't be moved: {error.__name__}")
