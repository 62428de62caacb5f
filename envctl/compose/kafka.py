"""Services that are brokers of Apache Kafka → one component for each cluster; its ZooKeeper is not needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from envctl.compose.engines import Draft, StaysError, image_of
from envctl.compose.hosts import Host, clash
from envctl.compose.report import Report
from envctl.compose.storage import mounts_of
from envctl.compose.values import Cursor

PORT = 9092
_OWN_WAY = "envctl sets up its brokers itself (KRaft, one listener on port 9092)"
_QUORUM = ("ZOOKEEPER_CONNECT", "CONTROLLER_QUORUM_VOTERS", "CONTROLLER_QUORUM_BOOTSTRAP_SERVERS", "CLUSTER_ID", "KRAFT_CLUSTER_ID")
_TOPIC = re.compile(r"(?P<name>[A-Za-z0-9._-]+):(?P<partitions>\d+):(?P<replication>\d+)(?::(?P<policy>[a-z,]+))?\Z")


@dataclass(frozen=True, slots=True)
class Broker:
    """One service that runs Kafka, with its environment."""

    service: Cursor
    environment: Mapping[str, str]

    @property
    def roles(self) -> set[str]:
        """The KRaft roles; none are said in a cluster with ZooKeeper."""
        return {role.strip() for role in self.setting("PROCESS_ROLES").split(",") if role.strip()}

    def setting(self, name: str) -> str:
        """A broker setting by the name behind the image's prefix."""
        found = (self.environment.get(f"{prefix}{name}") for prefix in ("KAFKA_CFG_", "KAFKA_", ""))
        return next((value for value in found if value), "")

    def cluster(self) -> object:
        """What is the same for all brokers of a cluster."""
        return next((value for name in _QUORUM if (value := self.setting(name))), self.service.name)

    def ports(self) -> set[int]:
        """The ports that it listens on."""
        listeners = f"{self.setting('LISTENERS')},{self.setting('ADVERTISED_LISTENERS')}"
        return {int(port) for port in re.findall(r"://[^:,]*:(\d+)", listeners)} or {PORT}


@dataclass(frozen=True, slots=True)
class Clusters:
    """What became of the services that run Kafka and ZooKeeper."""

    drafts: list[Draft] = field(default_factory=list)
    hosts: dict[str, Host] = field(default_factory=dict)  # service → where it leads now
    gone: dict[str, str] = field(default_factory=dict)  # service → the component in its place; empty: none


def check(broker: Broker) -> None:
    """Raises StaysError for one whose clients speak to it in a way that envctl's brokers don't know."""
    protocols = " ".join(value for name, value in broker.environment.items() if "PROTOCOL" in name or "SASL" in name)
    if re.search(r"SASL|SSL", protocols):
        raise StaysError("its listeners ask for SASL or TLS")


def clusters_of(brokers: list[Broker], names: Mapping[str, str], report: Report) -> Clusters:
    """One component for each cluster of brokers."""
    grouped: dict[object, list[Broker]] = {}
    for broker in brokers:
        grouped.setdefault(broker.cluster(), []).append(broker)
    found = Clusters()
    for members in grouped.values():
        serving = [each for each in members if each.roles != {"controller"}] or members
        name = _name([names[each.service.name] for each in serving], set(names.values()))
        count = sum(_replicas(each.service) for each in serving)
        draft = Draft(name, serving[0].service, "kafka", image_of(serving[0].service, report))
        for each in members:
            _member(each, each in serving, draft, report)
        if count > 1:
            draft.fields["brokers"] = count
        if topics := _topics(serving, report):
            draft.fields["topics"] = topics
        else:
            report.note(draft.service, "the Compose file does not say which topics there are: name them under `topics:`, and who `publishes` and `consumes` them")
        found.drafts.append(draft)
        for index, each in enumerate(serving):
            host = name if len(serving) == 1 else f"{name}-{index}"
            found.hosts[each.service.name] = Host(name, host, dict.fromkeys(each.ports(), PORT))
        found.gone.update({each.service.name: name for each in members})
    return found


def _name(brokers: list[str], taken: set[str]) -> str:
    """The broker's own name; of several, what their names have in common."""
    if len(brokers) == 1:
        return brokers[0]
    common = brokers[0]
    while not all(name.startswith(common) for name in brokers):
        common = common[:-1]
    name = re.sub(r"[^a-z]+$", "", common) or "kafka"
    while any(clash(name, other) for other in taken - set(brokers)):
        name = f"{name}-cluster"
    return name


def _replicas(service: Cursor) -> int:
    found = service.find("deploy", "replicas") or service.find("scale")
    return max(1, found.number()) if found else 1


def _member(broker: Broker, serving: bool, draft: Draft, report: Report) -> None:
    """Tells what a broker's own fields come to; marks what the component stands for."""
    service = broker.service
    for name, variable in service.mapped("environment").items():
        if name.endswith("CREATE_TOPICS") and "AUTO" not in name:
            variable.mark()
    report.reasons[(*service.at, "environment")] = _OWN_WAY
    for mount in mounts_of(service):
        if mount.kind == "volume":
            mount.cursor.mark()
        else:
            report.tell(mount.cursor, _OWN_WAY)
    if not serving:
        report.tell(service, f"every broker of {draft.name} is a controller too")
    elif service is not draft.service:
        report.note(service, f"it is one of the brokers of {draft.name}")
        if image := service.find("image"):
            image.mark()


def _topics(brokers: list[Broker], report: Report) -> dict[str, Any]:
    topics: dict[str, Any] = {}
    for broker in brokers:
        for entry in re.split(r"[,\s]+", broker.environment.get("KAFKA_CREATE_TOPICS", "").strip()):
            match = _TOPIC.match(entry)
            if match:
                topics[match["name"]] = {"partitions": int(match["partitions"])}
                topics[match["name"]] |= {"config": {"cleanup.policy": match["policy"]}} if match["policy"] else {}
            elif entry:
                report.note(broker.service, f"{entry!r} in KAFKA_CREATE_TOPICS names no topic as NAME:PARTITIONS:REPLICAS")
    return topics
