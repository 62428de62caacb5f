"""Apache Kafka in KRaft mode: `brokers` nodes, each of them broker and controller.

Three brokers keep what they acknowledge (`acks=all`) through the loss of one: replication 3, min ISR 2, in the topics that
Kafka makes for itself too.  What costs start time or memory and changes no behaviour is small (heap, threads, caches).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from envctl.engines.base import Provision, Realisation, Site
from envctl.engines.broker import JVM_FLAGS, PORT, format_directory, in_java_format, java_command, properties, write_properties
from envctl.engines.class_archive import ARCHIVE, QUIET, class_archive
from envctl.engines.containers import sealed_container, tag_of
from envctl.engines.content import digest, made_once
from envctl.engines.nodes import PATH, sealed, tool_mounts, tool_names
from envctl.model.environment import Mount, NodeSpec
from envctl.model.topology import AnyComponent, Kafka, Probe, Topic
from envctl.toolchain.lookup import find
from envctl.toolchain.tool import Tool

_JAVA = ">=17"
_FORM = 1  # raise it when prepared directories become different


class KafkaEngine:
    """All brokers start at once from formatted directories; topics are made once they are there.

    `settings` of the topology are properties of every broker and win over the defaults.
    """

    kind: ClassVar[str] = "kafka"

    def endpoints(self, component: AnyComponent) -> Mapping[str, str]:
        """`bootstrap`: the list of all brokers."""
        assert isinstance(component, Kafka)
        return {"bootstrap": ",".join(f"{name}:{PORT}" for name in _names(component))}

    def tools(self, component: AnyComponent) -> Mapping[str, str]:
        """See `RunsTools.tools`."""
        assert isinstance(component, Kafka)
        return {"kafka": component.version, "java": _JAVA}

    def realise(self, component: AnyComponent, site: Site) -> Realisation:
        """The brokers and their topics; prepares formatted directories and a class archive.

        Raises CapabilityError without this version or a Java for it, ResourceError if preparing fails.
        """
        assert isinstance(component, Kafka)
        if site.packaging == "images":
            containers = tuple(_container(component, site, index) for index in range(component.brokers))
            return Realisation(component.name, site.needs(component), containers, _provision(component))
        kafka, java = find("kafka", component.version), find("java", _JAVA)
        archive = class_archive(kafka, java, site)
        nodes = tuple(_node(component, site, index, kafka=kafka, java=java, archive=archive) for index in range(component.brokers))
        return Realisation(component.name, site.needs(component), nodes, _provision(component))


def _names(component: Kafka) -> tuple[str, ...]:
    return tuple(f"{component.name}-{index}" for index in range(component.brokers))


def replication(component: Kafka, topic: Topic) -> int:
    """How many brokers hold each partition of a topic."""
    return topic.replication or min(3, component.brokers)


def min_isr(component: Kafka, topic: Topic) -> int:
    """How many of them must have a write before it is acknowledged."""
    return topic.min_isr or max(1, replication(component, topic) - 1)


def cluster_id(component: Kafka) -> str:
    """The id of the cluster: a UUID in Kafka's form, the same for the same component in every environment."""
    return base64.urlsafe_b64encode(hashlib.md5(f"envctl {component.name}".encode(), usedforsecurity=False).digest()).decode()[:22]


def _formatted(component: Kafka, kafka: Tool, java: Tool, site: Site, index: int) -> Path:
    """A directory with a broker's formatted, empty log directory `log`."""
    names = _names(component)
    key = digest("kafka", _FORM, kafka.version, names, index, cluster_id(component))

    def make(half: Path) -> None:
        site.progress(f"prepare {names[index]}  Kafka {kafka.version} log directory, once")
        config = half / "format.properties"
        write_properties(config, properties(names, index, str(half / "log")))
        format_directory(kafka, java, cluster_id(component), config)
        config.unlink()

    return made_once(site.cache / "prepared" / f"kafka-{key}", make)


def _configured(settings: Mapping[str, str], cache: Path) -> tuple[Path, str]:
    """A directory in the cache that holds the configuration, and its content id."""
    key = digest("kafka", _FORM, settings)
    return made_once(cache / "configs" / key, lambda half: write_properties(half / "server.properties", settings)), key


def _node(component: Kafka, site: Site, index: int, *, kafka: Tool, java: Tool, archive: Path | None) -> NodeSpec:
    names = _names(component)
    name = names[index]
    config, config_id = _configured({**properties(names, index, "/data/log"), **component.settings}, site.cache)
    mounts = [*tool_mounts(kafka, java), Mount(config, "/config")]
    named = {**tool_names(kafka, java), str(config): config_id}
    flags: tuple[str, ...] = ()
    if archive:
        mounts.append(Mount(archive, "/classes"))
        named[str(archive)] = "class archive"
        flags = (f"-XX:SharedArchiveFile=/classes/{ARCHIVE}", "-Xshare:auto", *QUIET)
    spec = NodeSpec(
        name=name, component=component.name, kind=component.kind, zone=site.zone(component, index), digest="",
        command=(*java_command(kafka, java, *flags), "kafka.Kafka", "/config/server.properties"),
        env={"PATH": PATH, "LC_ALL": "C.UTF-8", **java.env}, cwd="/data", mounts=tuple(dict.fromkeys(mounts)),
        data=site.data(name, _formatted(component, kafka, java, site, index)), ports={"kafka": PORT},
        # The broker says so once it is part of the quorum, unfenced and able to serve.
        ready=Probe("log", target=r"Kafka Server started"),
        stop_grace_s=10.0, resources=component.resources,
    )
    data = f"kafka-{_FORM}-{kafka.version}-{cluster_id(component)}-{site.seed_key}"
    return sealed(spec, data=data, names=named)


_START = """set -eu
home=${KAFKA_HOME:-/opt/kafka}
printf '%s\n' "$ENVCTL_PROPERTIES" > /tmp/server.properties
test -e /var/lib/kafka/data/log/meta.properties || "$home/bin/kafka-storage.sh" format -t "$ENVCTL_CLUSTER" -c /tmp/server.properties
exec "$home/bin/kafka-server-start.sh" /tmp/server.properties"""
"""The image's own entry point makes a configuration out of variables; here it is given as a whole, as everywhere."""


def _container(component: Kafka, site: Site, index: int) -> NodeSpec:
    names = _names(component)
    settings = {**properties(names, index, "/var/lib/kafka/data/log"), **component.settings}
    return sealed_container(NodeSpec(
        name=names[index], component=component.name, kind=component.kind, zone=site.zone(component, index), digest="",
        command=(), entrypoint=("sh", "-c", _START), image=component.image or f"apache/kafka:{tag_of(component.version, parts=3)}",
        env={
            "ENVCTL_PROPERTIES": in_java_format(settings),
            "ENVCTL_CLUSTER": cluster_id(component), "KAFKA_HEAP_OPTS": JVM_FLAGS[0], "KAFKA_JVM_PERFORMANCE_OPTS": " ".join(JVM_FLAGS[1:]),
        },
        init=True, ports={"kafka": PORT}, ready=Probe("log", target=r"Kafka Server started"), stop_grace_s=10.0, resources=component.resources,
        user="1000:1000", volumes=("/var/lib/kafka/data",),
    ))


def _provision(component: Kafka) -> Provision:
    topics = [
        {
            "name": topic.name,
            "partitions": topic.partitions,
            "replication": replication(component, topic),
            "config": {"min.insync.replicas": str(min_isr(component, topic)), **topic.config},
        }
        for topic in component.topics.values()
    ]
    work = {"bootstrap": KafkaEngine().endpoints(component)["bootstrap"], "brokers": component.brokers, "topics": topics}
    return Provision(
        component.name,
        ("-m", "envctl.engines.provision_kafka"),
        digest("kafka", _FORM, work),
        {"ENVCTL_PROVISION": json.dumps(work)},
    )
