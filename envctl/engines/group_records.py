"""What Kafka keeps about consumer groups in `__consumer_offsets`: their generations, the members of KIP-848 groups, and what was committed."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from envctl.engines.topics import ends_of, messages_of, partitions_of, reader

TOPIC = "__consumer_offsets"
COMMIT = (0, 1)  # key versions of records: an offset that was committed
CLASSIC, CONSUMER, MEMBER = 2, 3, 5  # a classic group, a KIP-848 group, a member of such a one
UNREAD = -1  # no epoch


@dataclass(frozen=True, slots=True)
class Commit:
    """An offset that was committed for a group."""

    offset: int
    epoch: int  # of the leader from which its consumer had the message before it; UNREAD where it had none, or is too old to tell
    note: str = ""  # the metadata


def generation(bootstrap: str, group: str, *, within_s: float) -> int:
    """The newest generation (or epoch) of a group in its records; 0 when it never had one.  Raises ResourceError."""
    newest = 0
    for message in _records(bootstrap, group, within_s):
        found = parse_generation(message.key(), message.value())
        newest = found[1] if found and found[0] == group else newest
    return newest


def members(bootstrap: str, group: str, *, within_s: float) -> dict[str, tuple[str, ...]]:
    """The members of a KIP-848 group, with the topics each has subscribed to by name.  Raises ResourceError."""
    found: dict[str, tuple[str, ...]] = {}
    for message in _records(bootstrap, group, within_s):
        member = parse_member(message.key(), message.value())
        if member and member[0] == group:
            found.pop(member[1], None)
            if member[2] is not None:
                found[member[1]] = member[2]
    return found


def end_of_records(bootstrap: str, group: str) -> int:
    """The offset at which the next record of a group will be, or a later one.  Raises ResourceError."""
    ends = ends_of(bootstrap, TOPIC)
    return ends[partition_of(group, len(ends))]


def commits(bootstrap: str, group: str, *, start: int, within_s: float) -> dict[tuple[str, int], tuple[Commit, ...]]:
    """(topic, partition) → what was committed for a group from a record on, in the order of time.  Raises ResourceError."""
    found: dict[tuple[str, int], tuple[Commit, ...]] = {}
    for message in _records(bootstrap, group, within_s, start):
        commit = parse_commit(message.key(), message.value())
        if commit and commit[0] == group:
            found[commit[1:3]] = (*found.get(commit[1:3], ()), commit[3])
    return found


def _records(bootstrap: str, group: str, within_s: float, start: int = 0) -> Iterator[Any]:
    """The records in the group's partition, oldest first."""
    with reader(bootstrap) as consumer:
        partition = partition_of(group, partitions_of(consumer, TOPIC))
    found = messages_of(bootstrap, TOPIC, starts={partition: start}, partitions=(partition,), within_s=within_s)
    return (message for message in found if message.key())


def partition_of(group: str, partitions: int) -> int:
    """The partition of `__consumer_offsets` that holds a group: Java's String.hashCode, made positive (Kafka: Utils.abs)."""
    value = 0
    units = group.encode("utf-16-be")
    for at in range(0, len(units), 2):
        value = (31 * value + int.from_bytes(units[at : at + 2], "big")) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >= 1 << 31 else value
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


def parse_commit(key: bytes, value: bytes | None) -> tuple[str, str, int, Commit] | None:
    """(group, topic, partition, commit), None for records of other types and for removals (OffsetCommitKey/Value)."""
    if value is None or len(key) < 4:
        return None
    version, length = struct.unpack_from(">hh", key)
    if version not in COMMIT:
        return None
    group, at = key[4 : 4 + length].decode("utf-8", "replace"), 4 + length
    (length,) = struct.unpack_from(">h", key, at)
    topic, at = key[at + 2 : at + 2 + length].decode("utf-8", "replace"), at + 2 + length
    return group, topic, struct.unpack_from(">i", key, at)[0], _commit(value)


def _commit(value: bytes) -> Commit:
    layout, offset = struct.unpack_from(">hq", value)
    epoch, at = (struct.unpack_from(">i", value, 10)[0], 14) if layout >= 3 else (UNREAD, 10)
    if layout >= 4:
        return Commit(offset, epoch, _compact(value, at)[1])
    (length,) = struct.unpack_from(">h", value, at)
    return Commit(offset, epoch, value[at + 2 : at + 2 + length].decode("utf-8", "replace"))


def parse_generation(key: bytes, value: bytes | None) -> tuple[str, int] | None:
    """(group, generation) of a group's record, None for records of other types and for removals.

    Formats: GroupMetadataKey/Value (key version 2) and ConsumerGroupMetadataKey/Value (key version 3, KIP-848, whose
    group epoch it is) in Kafka's group-coordinator message definitions.
    """
    if value is None or len(key) < 4:
        return None
    version, length = struct.unpack_from(">hh", key)
    group = key[4 : 4 + length].decode("utf-8", "replace")
    if version == CONSUMER:
        return group, struct.unpack_from(">i", value, 2)[0]
    if version != CLASSIC:
        return None
    (layout,) = struct.unpack_from(">h", value)
    at = _compact(value, 2)[0] if layout >= 4 else 4 + max(0, struct.unpack_from(">h", value, 2)[0])
    return group, struct.unpack_from(">i", value, at)[0]


def parse_member(key: bytes, value: bytes | None) -> tuple[str, str, tuple[str, ...] | None] | None:
    """(group, member, topics) of a member's record, topics None once it has left; None for records of other types.

    Formats: ConsumerGroupMemberMetadataKey/Value in Kafka's group-coordinator message definitions.
    """
    if len(key) < 4 or struct.unpack_from(">h", key)[0] != MEMBER:
        return None
    at, names = 2, []
    for _ in range(2):
        (size,) = struct.unpack_from(">h", key, at)
        names.append(key[at + 2 : at + 2 + size].decode("utf-8", "replace"))
        at += 2 + size
    if value is None:
        return names[0], names[1], None
    at = 2
    for _ in range(4):  # instance, rack, client and host
        at, _text = _compact(value, at)
    at, count = _uvarint(value, at)
    topics = []
    for _ in range(count - 1):
        at, topic = _compact(value, at)
        topics.append(topic)
    return names[0], names[1], tuple(topics)


def _compact(data: bytes, at: int) -> tuple[int, str]:
    """(offset behind it, text) of a compact string: an unsigned varint of length + 1, and the bytes; null is empty."""
    at, size = _uvarint(data, at)
    end = at + max(0, size - 1)
    return end, data[at:end].decode("utf-8", "replace")


def _uvarint(data: bytes, at: int) -> tuple[int, int]:
    """(offset behind it, value)."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return at, value
        shift += 7
