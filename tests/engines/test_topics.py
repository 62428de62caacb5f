import pytest
from loopback_broker import commit_transactions, make_topic

from envctl.engines.group_records import generation
from envctl.engines.topics import ends_of, messages_of
from envctl.errors import ResourceError

pytestmark = pytest.mark.engines


def values(messages):
    return sorted((message.partition(), message.offset(), message.value().decode()) for message in messages)


def test_a_topic_is_read_from_any_start_to_its_end(broker):
    make_topic(broker, "read", [3, 0, 2])
    assert ends_of(broker.bootstrap, "read") == {0: 3, 1: 0, 2: 2}
    assert values(messages_of(broker.bootstrap, "read", within_s=30)) == [(0, 0, "0"), (0, 1, "1"), (0, 2, "2"), (2, 0, "0"), (2, 1, "1")]
    assert values(messages_of(broker.bootstrap, "read", starts={0: 2, 2: 2}, within_s=30)) == [(0, 2, "2")]
    assert values(messages_of(broker.bootstrap, "read", partitions=[2], within_s=30)) == [(2, 0, "0"), (2, 1, "1")]


def test_what_was_deleted_from_the_start_is_passed_over_and_not_the_rest(broker):
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    make_topic(broker, "cut", [5])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    next(iter(admin.delete_records([TopicPartition("cut", 0, 3)]).values())).result(30)
    assert values(messages_of(broker.bootstrap, "cut", within_s=30)) == [(0, 3, "3"), (0, 4, "4")]


def test_the_end_is_reached_where_transactions_leave_markers_and_aborted_messages_are_left_out(broker):
    make_topic(broker, "transacted", [0])
    commit_transactions(broker, "transacted", [("kept", True), ("aborted", False)])
    assert [message.value() for message in messages_of(broker.bootstrap, "transacted", within_s=30)] == [b"kept"]


def test_a_topic_that_is_not_there_or_not_read_in_time_is_an_error(broker):
    with pytest.raises(ResourceError, match="there is no topic nowhere"):
        ends_of(broker.bootstrap, "nowhere")
    make_topic(broker, "late", [1])
    with pytest.raises(ResourceError, match="could not be read to its end in 0 s"):
        list(messages_of(broker.bootstrap, "late", within_s=0))


def test_the_generation_of_a_group_is_read_and_0_when_it_never_was(broker):
    from confluent_kafka import Consumer

    make_topic(broker, "watched", [1])
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "watchers", "auto.offset.reset": "earliest"})
    consumer.subscribe(["watched"])
    assert consumer.poll(60) is not None
    assert generation(broker.bootstrap, "watchers", within_s=30) == 1
    assert generation(broker.bootstrap, "nobody", within_s=30) == 0
    consumer.close()
