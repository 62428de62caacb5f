import contextlib
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback_broker import Broker, make_topic, ready, until

from envctl.telemetry.lag import DepthSampler, GenerationSampler, LagSampler, Position, lag_of


def commit(broker, group, topic, offsets):
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group})
    places = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
    until(lambda: consumer.commit(offsets=places, asynchronous=False))
    consumer.close()


def lags(sampler):
    return {reading.attrs["partition"]: reading.value for reading in sampler.sample()}


@pytest.mark.engines
def test_lag_is_what_is_left_to_read_and_unknown_until_the_group_has_committed(broker):
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    make_topic(broker, "orders", [10, 5, 0])
    sampler = LagSampler(broker.bootstrap, [("payments", "orders")])
    assert until(lambda: lags(sampler)) == {0: None, 1: None, 2: None}
    commit(broker, "payments", "orders", {0: 4})
    assert until(lambda: lags(sampler) == {0: 6, 1: None, 2: 0})
    commit(broker, "payments", "orders", {0: 10, 1: 1})
    assert until(lambda: lags(sampler) == {0: 0, 1: 4, 2: 0})
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    next(iter(admin.delete_records([TopicPartition("orders", 1, 3)]).values())).result(30)
    assert until(lambda: lags(sampler) == {0: 0, 1: 2, 2: 0})


@pytest.mark.engines
def test_a_topic_that_is_not_there_is_an_error_not_a_zero(broker):
    with pytest.raises(LookupError, match="no topic never-made"):
        list(LagSampler(broker.bootstrap, [("payments", "never-made")]).sample())


@pytest.mark.engines
def test_the_depth_of_a_topic_is_all_that_lies_in_it(broker):
    make_topic(broker, "dead", [3, 0])
    sampler = DepthSampler(broker.bootstrap, ["dead"])
    assert [reading.value for reading in sampler.unknown()] == [None]
    assert until(lambda: lags(sampler) == {0: 3, 1: 0})  # a busy broker may not answer at once
    assert [reading.value for reading in sampler.unknown()] == [None, None]
    sampler.close()
    with pytest.raises(LookupError, match="no topic never-made"):
        list(DepthSampler(broker.bootstrap, ["never-made"]).sample())


@pytest.mark.engines
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_the_generation_rises_when_a_member_comes(broker, protocol):
    from confluent_kafka import Consumer

    group, topic = f"group-{protocol}", f"topic-{protocol}"
    make_topic(broker, topic, [1, 1])
    settings = {"bootstrap.servers": broker.bootstrap, "group.id": group, "group.protocol": protocol, "auto.offset.reset": "earliest"}
    stop, members = threading.Event(), []

    def join():
        consumer = Consumer(settings)
        consumer.subscribe([topic])
        while not stop.is_set():
            consumer.poll(0.1)
        consumer.close()

    def member():
        members.append(threading.Thread(target=join))
        members[-1].start()

    sampler = GenerationSampler(broker.bootstrap, [group])

    def generation():
        return {reading.attrs["group"]: reading.value for reading in sampler.sample()}.get(group)

    try:
        member()
        first = until(generation)
        member()
        until(lambda: generation() > first)
    finally:
        stop.set()
        for thread in members:
            thread.join(30)
        sampler.close()


@pytest.mark.engines
def test_without_brokers_lag_is_unknown_partition_by_partition(tmp_path):
    from confluent_kafka import KafkaException

    one = Broker(tmp_path)
    try:
        ready(one)
        make_topic(one, "orders", [3, 0])
        sampler = LagSampler(one.bootstrap, [("payments", "orders")])
        list(sampler.sample())
    finally:
        one.stop()
    with contextlib.suppress(KafkaException, TimeoutError):
        assert set(lags(sampler).values()) == {None}
    assert [(reading.attrs["partition"], reading.value) for reading in sampler.unknown()] == [(0, None), (1, None)]


offsets = st.one_of(st.none(), st.integers(0, 1000))


@given(offsets, offsets, offsets)
def test_lag_is_never_negative_never_more_than_there_is_and_never_zero_by_ignorance(committed, start, end):
    lag = lag_of(Position(committed, start, end), group_committed=committed is not None)
    if committed is None or start is None or end is None:
        assert lag is None
    else:
        assert lag is not None
        assert 0 <= lag <= max(0, end - start)
