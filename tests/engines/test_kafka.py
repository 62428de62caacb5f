from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.kafka import KafkaEngine, cluster_id, min_isr, replication
from envctl.model.topology import Kafka, Topic, Topology

TOPICS = {"orders": Topic("orders", 6), "one": Topic("one", config={"retention.ms": "60000"})}
RACK = 'C:\\racks "Süd" = #1'
BUS = Kafka(name="bus", version="4.1", brokers=3, topics=TOPICS, settings={"broker.rack": RACK, "message.max.bytes": "7654321"})
BOOTSTRAP = KafkaEngine().endpoints(BUS)["bootstrap"]
DESCRIBE = f"""
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
admin = AdminClient({{"bootstrap.servers": {BOOTSTRAP!r}, "log_level": 0}})
def config(name):
    resource = ConfigResource(ResourceType.TOPIC, name)
    found = admin.describe_configs([resource])[resource].result()
    return {{key: found[key].value for key in ("min.insync.replicas", "retention.ms")}}
for name, topic in sorted(admin.list_topics(timeout=20).topics.items()):
    if not name.startswith("__"):
        print(name, len(topic.partitions), {{len(part.isrs) for part in topic.partitions.values()}}, config(name))
"""
SETTINGS = f"""
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
admin = AdminClient({{"bootstrap.servers": {BOOTSTRAP!r}, "log_level": 0}})
resource = ConfigResource(ResourceType.BROKER, "2")
found = admin.describe_configs([resource])[resource].result()
print(ascii((found["broker.rack"].value, found["message.max.bytes"].value)))
"""
PRODUCE = f"""
from confluent_kafka import Producer
failed = []
producer = Producer({{"bootstrap.servers": {BOOTSTRAP!r}, "acks": "all", "log_level": 0, "delivery.timeout.ms": 30000}})
for number in range(200):
    producer.produce("orders", str(number), on_delivery=lambda error, _: failed.append(error) if error else None)
print(producer.flush(40), failed)
"""
CONSUME = f"""
from confluent_kafka import Consumer
consumer = Consumer({{"bootstrap.servers": {BOOTSTRAP!r}, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}})
consumer.subscribe(["orders"])
found = set()
while len(found) < 200:
    message = consumer.poll(30)
    assert message is not None, len(found)
    found.add(int(message.value()))
consumer.commit(asynchronous=False)
consumer.close()
print(found == set(range(200)))
"""


@pytest.fixture
def site(stack: Path, prepared: Path) -> Callable[..., Site]:
    def make(component: Kafka = BUS) -> Site:
        topology = Topology("test", stack / "topology.yaml", ("a", "b"), {component.name: component})
        return Site(topology, "env", (component.name,), (), prepared)

    return make


@pytest.mark.parametrize(("brokers", "copies", "in_sync"), [(1, 1, 1), (2, 2, 1), (3, 3, 2), (5, 3, 2)])
def test_topics_are_kept_by_up_to_three_brokers_and_bear_the_loss_of_one(brokers: int, copies: int, in_sync: int) -> None:
    kafka = replace(BUS, brokers=brokers)
    assert (replication(kafka, Topic("x")), min_isr(kafka, Topic("x"))) == (copies, in_sync)
    assert (replication(kafka, Topic("x", replication=1)), min_isr(kafka, Topic("x", min_isr=1))) == (1, 1)
    assert len(cluster_id(kafka)) == 22


@pytest.mark.engines
@pytest.mark.cell
@pytest.mark.slow
def test_a_cluster_bears_the_loss_of_a_broker_and_adopts_what_its_topics_were(cell: Any, site: Callable[..., Site]) -> None:
    realisation = KafkaEngine().realise(BUS, site())
    cell.up(realisation)
    minimum = "{3} {'min.insync.replicas': '2', 'retention.ms': "
    assert cell.python(DESCRIBE).splitlines() == [f"one 1 {minimum}'60000'}}", f"orders 6 {minimum}'604800000'}}"]

    assert cell.python(SETTINGS) == ascii((RACK, "7654321"))

    cell.reach.hold("bus-1", 60)
    cell.reach.signal("bus-1", signal.SIGKILL)
    assert cell.python(PRODUCE) == "0 []"
    assert cell.python(CONSUME) == "True"
    cell.reach.release("bus-1")
    cell.reach.wait_ready("bus-1", 60)

    more = replace(BUS, topics={"orders": Topic("orders", 8), "one": Topic("one", config={"retention.ms": "90000"}), "new": Topic("new")})
    later = KafkaEngine().realise(more, site(more))
    assert [node.digest for node in later.nodes] == [node.digest for node in realisation.nodes], "topics replace no broker"
    cell.up(later)
    cell.up(later)
    assert [line.split(" {")[0] for line in cell.python(DESCRIBE).splitlines()] == ["new 1", "one 1", "orders 8"]
    assert "'retention.ms': '90000'" in cell.python(DESCRIBE)

    for topic, words in (
        (Topic("orders", 2), "topic orders has 8 partitions, 2 are declared"),
        (Topic("orders", 8, replication=2), "topic orders has replication 3, 2 is declared"),
        (Topic("bad", config={"no.such": "1"}), "topic bad could not be made: .*no.such"),
    ):
        wrong = replace(BUS, topics={topic.name: topic})
        with pytest.raises(Exception, match=words):
            cell.up(KafkaEngine().realise(wrong, site(wrong)))
