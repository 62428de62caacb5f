import struct

import pytest

from envctl.engines.group_records import Commit, parse_commit, parse_generation, parse_member, partition_of


@pytest.mark.parametrize(("group", "java_hash"), [("payments", 1382682413), ("", 0), ("polygenelubricants", -2147483648), ("é€", 15587)])
def test_a_groups_partition_is_found_as_kafka_does(group, java_hash):
    assert partition_of(group, 50) == (0 if java_hash == -(1 << 31) else abs(java_hash)) % 50


def key_of(version, group):
    return struct.pack(">hh", version, len(group)) + group.encode()


@pytest.mark.parametrize("value", [
    struct.pack(">hh8si", 3, 8, b"consumer", 7) + b"rest",
    struct.pack(">hB8si", 4, 9, b"consumer", 7) + b"rest",
])
def test_both_layouts_of_a_groups_record_are_read(value):
    assert parse_generation(key_of(2, "payments"), value) == ("payments", 7)


def test_new_groups_have_an_epoch_and_other_records_are_passed_over():
    assert parse_generation(key_of(3, "payments"), struct.pack(">hi", 0, 9)) == ("payments", 9)
    assert parse_generation(key_of(1, "payments"), struct.pack(">hi", 0, 9)) is None
    assert parse_generation(key_of(2, "payments"), None) is None


def member_key(version, group, member):
    return struct.pack(">h", version) + b"".join(struct.pack(">h", len(text)) + text for text in (group.encode(), member.encode()))


def test_a_member_of_a_newer_group_has_its_topics_until_it_leaves():
    texts = b"\x00\x00\x02c\x05/h:1"  # no instance, no rack, client, host
    value = struct.pack(">h", 0) + texts + b"\x03" + b"\x08letters" + b"\x06bills"
    assert parse_member(member_key(5, "readers", "m1"), value) == ("readers", "m1", ("letters", "bills"))
    assert parse_member(member_key(5, "readers", "m1"), None) == ("readers", "m1", None)
    assert parse_member(member_key(6, "readers", "m1"), value) is None


def commit_key(version, group, topic, partition):
    return member_key(version, group, topic) + struct.pack(">i", partition)


@pytest.mark.parametrize(("value", "epoch"), [
    (struct.pack(">hqh2sq", 1, 41, 2, b"me", 0) + b"rest", -1),
    (struct.pack(">hqih2sq", 3, 41, 7, 2, b"me", 0), 7),
    (struct.pack(">hqib2sq", 4, 41, 7, 3, b"me", 0), 7),
])
def test_a_commit_is_read_in_all_layouts_until_it_is_removed(value, epoch):
    assert parse_commit(commit_key(1, "payments", "orders.placed", 5), value) == ("payments", "orders.placed", 5, Commit(41, epoch, "me"))
    assert parse_commit(commit_key(1, "payments", "orders.placed", 5), None) is None
    assert parse_commit(key_of(2, "payments"), value) is None
