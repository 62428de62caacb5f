import contextlib
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.engines.broker import format_directory, java_command, write_properties
from envctl.telemetry.lag import GenerationSampler, LagSampler, Position, lag_of, parse_generation, partition_of
from envctl.toolchain.lookup import find

DEADLINE_S = 60.0


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Broker:
    """A real broker on the loopback."""

    def __init__(self, directory):
        kafka, java = find("kafka"), find("java", ">=17")
        port, controller = free_port(), free_port()
        settings = {
            "process.roles": "broker,controller", "node.id": "0", "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"0@127.0.0.1:{controller}", "log.dirs": str(directory / "log"),
            "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT", "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "5", "group.initial.rebalance.delay.ms": "0", "log.cleaner.dedupe.buffer.size": "8388608",
        }
        write_properties(directory / "server.properties", settings)
        format_directory(kafka, java, "AAAAAAAAAAAAAAAAAAAAAA", directory / "server.properties")
        command = [*java_command(kafka, java), "kafka.Kafka", str(directory / "server.properties")]
        self.output = (directory / "output").open("wb")
        self.process = subprocess.Popen(command, stdout=self.output, stderr=subprocess.STDOUT, env=dict(java.env))
        self.bootstrap = f"127.0.0.1:{port}"

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self.output.close()


def until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            if found := condition():
                return found
        except Exception:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    from confluent_kafka.admin import AdminClient

    one = Broker(tmp_path_factory.mktemp("broker"))
    admin = AdminClient({"bootstrap.servers": one.bootstrap, "log_level": 0})
    until(lambda: admin.list_topics(timeout=2).brokers)
    yield one
    one.stop()


def make_topic(broker, name, counts):
    """A topic with so many messages in each partition."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, len(counts), 1)])[name].result(30)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for partition, count in enumerate(counts):
        for number in range(count):
            producer.produce(name, str(number), partition=partition)
    assert producer.flush(30) == 0


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
    until(lambda: lags(sampler) == {0: 6, 1: None, 2: 0})
    commit(broker, "payments", "orders", {0: 10, 1: 1})
    assert lags(sampler) == {0: 0, 1: 4, 2: 0}
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    next(iter(admin.delete_records([TopicPartition("orders", 1, 3)]).values())).result(30)
    assert lags(sampler) == {0: 0, 1: 2, 2: 0}


@pytest.mark.engines
def test_a_topic_that_is_not_there_is_an_error_not_a_zero(broker):
    with pytest.raises(LookupError, match="no topic never-made"):
        list(LagSampler(broker.bootstrap, [("payments", "never-made")]).sample())


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
    from confluent_kafka.admin import AdminClient

    one = Broker(tmp_path)
    try:
        admin = AdminClient({"bootstrap.servers": one.bootstrap, "log_level": 0})
        until(lambda: admin.list_topics(timeout=2).brokers)
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
