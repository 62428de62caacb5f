"""Names by which services reach each other, and where texts use them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

LONGEST = 50  # characters of a component's name
_KEY = re.compile(r"HOST|SERVER|ADDR|ENDPOINT|UR[LI]|BROKER|NODE|PEER|UPSTREAM|BOOTSTRAP|CONTACT|SEED|PROXY|BACKEND|TARGET", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Host:
    """Where a name leads: a component, the name to write for it, and ports that are other ones there."""

    component: str
    name: str
    ports: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Use:
    """A text's use of a host."""

    host: Host
    port: int = 0  # as it was written; 0: none was
    was: str = ""
    now: str = ""


def component_names(services: Iterable[str], taken: frozenset[str] = frozenset({"telemetry"})) -> dict[str, str]:
    """Service → component: itself where that is a possible name."""
    found: dict[str, str] = {}
    services = list(services)
    for service in sorted(services, key=lambda name: (not _possible(name), services.index(name))):
        name = re.sub(r"[^a-z0-9]+", "-", service.lower()).strip("-")[:LONGEST].strip("-")
        name = name if name[:1].isalpha() else f"service-{name}"[:LONGEST].strip("-")
        while name in taken or any(clash(name, other) for other in found.values()):
            name = f"{name[:LONGEST - 2]}-x"
        found[service] = name
    return {service: found[service] for service in services}


def _possible(name: str) -> bool:
    return re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", name) is not None


def clash(name: str, other: str) -> bool:
    """Whether two components can't both be called so: a node of one could be called as the other."""
    return name == other or any(re.fullmatch(rf"{re.escape(one)}-\d+", two) for one, two in ((name, other), (other, name)))


def rewrite(text: str, hosts: Mapping[str, Host], key: str = "") -> tuple[str, list[Use]]:
    """The text with the names and ports that are right here, and what it uses.

    A name is one where it is the host of a URL or stands before a port; the whole text is one (or several with commas), where
    its `key` says that it is an address.
    """
    uses: list[Use] = []
    if not hosts:
        return text, uses
    if key and _KEY.search(key) and all(part.strip() in hosts for part in text.split(",")):
        parts = [part.strip() for part in text.split(",")]
        uses += [Use(hosts[part], was=part, now=hosts[part].name) for part in parts]
        return ",".join(hosts[part].name for part in parts), uses
    names = "|".join(re.escape(name) for name in sorted(hosts, key=len, reverse=True))

    def replaced(match: re.Match[str]) -> str:
        host = hosts[match["name"]]
        port = int(match["port"] or 0)
        now = f"{host.name}:{host.ports.get(port, port)}" if port else host.name
        uses.append(Use(host, port, match[0], now))
        return now

    pattern = rf"(?:(?<=//)|(?<=@)|(?<![\w.@/-])(?=[\w.-]+:\d)|(?<=,)(?=[\w.-]+:\d))(?P<name>{names})(?![\w.-])(?!(?::[^/@\s,]*)?@)(?::(?P<port>\d{{1,5}})(?!\d))?"
    return re.sub(pattern, replaced, text), uses
