"""What Kafka keeps about consumer groups in `__consumer_offsets`: their generations."""

from __future__ import annotations

import struct

from envctl.engines.topics import messages_of, partitions_of, reader

TOPIC = "__consumer_offsets"
CLASSIC, CONSUMER = 2, 3  # key versions of group metadata records: classic protocol, KIP-848


def generation(bootstrap: str, group: str, *, within_s: float) -> int:
    """The newest generation (or epoch) of a group in its records; 0 when it never had one.  Raises ResourceError."""
    newest = 0
    with reader(bootstrap) as consumer:
        partition = partition_of(group, partitions_of(consumer, TOPIC))
    for message in messages_of(bootstrap, TOPIC, partitions=(partition,), within_s=within_s):
        found = parse_generation(message.key(), message.value()) if message.key() is not None else None
        newest = found[1] if found and found[0] == group else newest
    return newest


def partition_of(group: str, partitions: int) -> int:
    """The partition of `__consumer_offsets` that holds a group: Java's String.hashCode, made positive (Kafka: Utils.abs)."""
    value = 0
    units = group.encode("utf-16-be")
    for at in range(0, len(units), 2):
        value = (31 * value + int.from_bytes(units[at : at + 2], "big")) & 0xFFFFFFFF
    signed = value - (1 << 32) if value >= 1 << 31 else value
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


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
    if layout >= 4:  # compact strings: an unsigned varint of length + 1
        at, size = _uvarint(value, 2)
        at += max(0, size - 1)
    else:
        at = 4 + max(0, struct.unpack_from(">h", value, 2)[0])
    return group, struct.unpack_from(">i", value, at)[0]


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
