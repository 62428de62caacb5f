"""Ports of containers, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from envctl.compose.report import Report
from envctl.compose.values import Cursor

_SHORT = re.compile(
    r"(?:(?P<ip>\[[^\]]*\]|\d+(?:\.\d+){3}|localhost):)?(?:(?P<published>\d*(?:-\d+)?):)?(?P<first>\d+)(?:-(?P<last>\d+))?(?:/(?P<protocol>\w+))?\Z"
)
_KNOWN = {
    22: "ssh", 25: "smtp", 443: "https", 1025: "smtp", 1433: "mssql", 1883: "mqtt", 2181: "zookeeper", 3306: "mysql", 4222: "nats",
    4317: "otlp-grpc", 4318: "otlp-http", 5432: "postgres", 5672: "amqp", 6379: "redis", 7687: "bolt", 8443: "https", 9042: "cql",
    9092: "kafka", 11211: "memcached", 15672: "management", 27017: "mongo", 50051: "grpc",
}
_HTTP = {80, 4000, 4200, 5000, 5001, 5173, 5601, 9000, 9090, 9200, 16686, *range(3000, 3100), *range(8000, 9000)} - set(_KNOWN)
_MOST = 20  # ports of a range that are carried over
LAST = 65535
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class Port:
    """One port of a container."""

    name: str
    number: int


def ports_of(service: Cursor, probe: Mapping[str, Any], report: Report) -> list[Port]:
    """The TCP ports of a service: published ones, exposed ones, and that of its probe."""
    numbers: dict[int, str] = {}  # number → the name that it was given
    published: list[str] = []
    for entry in service.listed("ports"):
        _add(entry, numbers, published, report)
    for entry in service.listed("expose"):
        _add(entry, numbers, [], report)
    if published and (found := service.find("ports")):
        report.note(found, f"not published as {', '.join(published)}: envctl publishes under free ports of the loopback, which `envctl status` shows")
    asked: int = probe.get("tcp") or probe.get("port") or 0
    if asked:
        numbers.setdefault(asked, "grpc" if "grpc" in probe else "")
    return named(numbers, asked if "http" in probe else 0)


def _add(entry: Cursor, numbers: dict[int, str], published: list[str], report: Report) -> None:
    if entry.kind == "mapping":
        _add_long(entry, numbers, published, report)
        return
    match = _SHORT.match(entry.text())
    if match is None:
        raise entry.error(f"found {entry.text()!r}, allowed: [[IP:]PUBLISHED:]PORT[/PROTOCOL]")
    first, last = int(match["first"]), int(match["last"] or match["first"])
    if match["protocol"] not in (None, "tcp"):
        report.tell(entry, f"components have TCP ports only, not {match['protocol'].upper()}")
    elif last - first >= _MOST:
        report.tell(entry, f"a range of more than {_MOST} ports is not carried over")
    else:
        if not 0 < first <= last <= LAST:
            raise entry.error(f"found {entry.text()!r}, allowed: ports from 1 to {LAST}")
        numbers.update({number: numbers.get(number, "") for number in range(first, last + 1)})
        if match["published"]:
            published.append(match["published"])


def _add_long(entry: Cursor, numbers: dict[int, str], published: list[str], report: Report) -> None:
    protocol = entry.get("protocol")
    if protocol not in ("", "tcp"):
        report.tell(entry, f"components have TCP ports only, not {protocol.upper()}")
        return
    target = entry.find("target")
    if target is None:
        raise entry.error("it has no `target`", "the port inside the container")
    name = entry.get("name")
    given = name or entry.get("app_protocol")
    if not 0 < target.number() <= LAST:
        raise target.error(f"found {target.text()!r}, allowed: a port from 1 to {LAST}")
    numbers[target.number()] = given if _NAME.match(given) else ""
    if text := entry.get("published"):
        published.append(text)
    entry.get("host_ip")
    entry.get("mode")


def named(numbers: Mapping[int, str], http: int) -> list[Port]:
    """Each with a name of its own; `http` is the one that is asked whether it is ready, or looks most like it."""
    found: list[Port] = []
    likely = sorted((number for number in numbers if number in _HTTP and not numbers[number]), key=lambda number: (number != 80, number != 8080))
    if not http and "http" not in numbers.values() and likely:
        http = likely[0]
    for number, given in numbers.items():
        name = given or ("http" if number == http else _KNOWN.get(number, f"port-{number}"))
        if name in (port.name for port in found) or (name == "http" and number != http and http in numbers and not given):
            name = f"port-{number}"
        found.append(Port(name, number))
    return found
