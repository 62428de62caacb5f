"""A real Kafka broker on the loopback, for tests that ask Kafka itself."""

import random
import signal
import socket
import subprocess
import time
from contextlib import suppress

from envctl.engines.broker import format_directory, java_command, write_properties
from envctl.toolchain.lookup import find

DEADLINE_S = 60.0


def free_port():
    """One that nobody is given by the kernel until it is bound: below those."""
    drawn = random.SystemRandom()
    while True:
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", drawn.randrange(15000, 30000)))
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
            "offsets.topic.num.partitions": "5", "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1", "transaction.state.log.num.partitions": "2", "group.initial.rebalance.delay.ms": "0", "log.cleaner.dedupe.buffer.size": "8388608",
        }
        write_properties(directory / "server.properties", settings)
        format_directory(kafka, java, "AAAAAAAAAAAAAAAAAAAAAA", directory / "server.properties")
        program, *flags = java_command(kafka, java)
        unpacked = f"-Djava.io.tmpdir={directory}"  # the libraries that it leaves, being killed
        command = [program, unpacked, *flags, "kafka.Kafka", str(directory / "server.properties")]
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


def ready(broker):
    """Waits until it answers."""
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    until(lambda: admin.list_topics(timeout=2).brokers)
    return broker


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


def commit_transactions(broker, topic, messages):
    """(value, committed) messages, each in its own transaction."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": f"t-{topic}"})
    producer.init_transactions(60)
    for value, committed in messages:
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(30)
        producer.commit_transaction() if committed else producer.abort_transaction()
