"""How a Kafka broker is configured and started."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from envctl.engines.nodes import PATH
from envctl.engines.unprivileged import run
from envctl.toolchain.tool import Tool

PORT, CONTROLLER_PORT = 9092, 9093
JVM_FLAGS = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Djava.awt.headless=true")
_SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # A dead broker is noticed in seconds, and a start does not wait for a slow heartbeat.
    "broker.heartbeat.interval.ms": "500",
    "broker.session.timeout.ms": "6000",
    "replica.lag.time.max.ms": "10000",
    "offsets.topic.num.partitions": "12",
    "transaction.state.log.num.partitions": "12",
    "share.coordinator.state.topic.num.partitions": "4",
    "log.cleaner.dedupe.buffer.size": "8388608",  # the default, 128 MiB, is half of the heap
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


def properties(names: tuple[str, ...], index: int, directory: str) -> dict[str, str]:
    """The configuration of one broker of a cluster of nodes with these names."""
    voters = ",".join(f"{number}@{name}:{CONTROLLER_PORT}" for number, name in enumerate(names))
    copies = min(3, len(names))
    kept = {
        "node.id": str(index),
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://:{PORT},CONTROLLER://:{CONTROLLER_PORT}",
        "advertised.listeners": f"PLAINTEXT://{names[index]}:{PORT},CONTROLLER://{names[index]}:{CONTROLLER_PORT}",
        "log.dirs": directory,
        "default.replication.factor": str(copies),
        "min.insync.replicas": str(max(1, copies - 1)),
    }
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        kept[f"{topic}.replication.factor"] = str(copies)
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        kept[f"{topic}.min.isr"] = str(max(1, copies - 1))
    return _SETTINGS | kept


def java_command(kafka: Tool, java: Tool, *flags: str) -> tuple[str, ...]:
    """The JVM with everything up to the main class."""
    logging = f"-Dlog4j2.configurationFile={kafka.home / 'log4j2.properties'}"
    return (str(java.programs["java"]), *JVM_FLAGS, *flags, logging, "-cp", kafka.env["CLASSPATH"])


def format_directory(kafka: Tool, java: Tool, cluster: str, config: Path) -> None:
    """Formats the log directories that a configuration names.  Raises ResourceError."""
    command = (*java_command(kafka, java), "kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(config))
    run(command, what="formatting Kafka's log directory", env={"PATH": PATH, **java.env})


def write_properties(path: Path, settings: Mapping[str, str]) -> None:
    """Writes a configuration in Java's properties format."""
    path.write_text(f"{in_java_format(settings)}\n")


def in_java_format(settings: Mapping[str, str]) -> str:
    """One property a line, as `java.util.Properties` reads it: what JSON escapes is escaped there in the same way."""
    return "\n".join(f"{key}={json.dumps(value)[1:-1]}" for key, value in sorted(settings.items()))
