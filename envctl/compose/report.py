"""What of Compose files was not carried over, and why: everything that nobody has read, and what was told besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from envctl.compose.values import Cursor, Value, dotted

_SAFE = "the rights of containers are the substrate's business: environments run no privileged container of the user's"
_HOST = "a container shares nothing with the host"
_NETWORK = "an environment has one network of its own in which every component reaches every other by its name"
_BUILD = "images are built from context, dockerfile, target and args alone"
_SWARM = "it tells an orchestrator where and how to place and replace containers; envctl does that itself"
_LIMITS = "nodes are limited by CPU and memory only"
_TIMING = "envctl asks several times a second and waits as long as `--timeout` says"
_DNS = "names are resolved by the environment's own resolver, and nothing outside of it is reached"
_SHOWN = "it has no effect on what runs"

REASONS = {
    "networks": _NETWORK, "aliases": _NETWORK, "hostname": _NETWORK, "domainname": _NETWORK, "links": _NETWORK,
    "external_links": "what is outside of an environment is not reached from within", "network_mode": _NETWORK, "mac_address": _NETWORK,
    "container_name": "nodes are called COMPONENT-INDEX, so that several environments fit on one machine",
    "privileged": _SAFE, "cap_add": _SAFE, "cap_drop": _SAFE, "security_opt": _SAFE, "devices": _SAFE, "device_cgroup_rules": _SAFE,
    "userns_mode": _SAFE, "group_add": _SAFE, "gpus": _SAFE, "runtime": _SAFE, "credential_spec": _SAFE, "use_api_socket": _SAFE,
    "pid": _HOST, "ipc": _HOST, "uts": _HOST, "cgroup": _HOST, "cgroup_parent": _HOST, "isolation": _HOST,
    "sysctls": _SAFE, "ulimits": _LIMITS, "shm_size": _LIMITS, "pids_limit": _LIMITS, "oom_kill_disable": _LIMITS,
    "oom_score_adj": _LIMITS, "mem_swappiness": _LIMITS, "memswap_limit": _LIMITS, "mem_reservation": _LIMITS, "reservations": _LIMITS,
    "blkio_config": _LIMITS, "cpu_shares": _LIMITS, "cpuset": _LIMITS, "cpu_quota": _LIMITS, "cpu_period": _LIMITS, "pids": _LIMITS,
    "cpu_count": _LIMITS, "cpu_percent": _LIMITS, "cpu_rt_period": _LIMITS, "cpu_rt_runtime": _LIMITS, "storage_opt": _LIMITS,
    "logging": "envctl keeps what nodes say itself (`envctl logs`)", "log_driver": "envctl keeps what nodes say itself (`envctl logs`)",
    "attach": "envctl keeps what nodes say itself (`envctl logs`)",
    "labels": _SHOWN, "annotations": _SHOWN, "label_file": _SHOWN, "stdin_open": "nodes have no terminal", "tty": "nodes have no terminal",
    "interval": _TIMING, "timeout": _TIMING, "retries": _TIMING, "start_period": _TIMING, "start_interval": _TIMING,
    "dns": _DNS, "dns_search": _DNS, "dns_opt": _DNS, "extra_hosts": _DNS,
    "restart": "envctl starts a node again whenever it ends", "restart_policy": "envctl starts a node again whenever it ends",
    "stop_signal": "a node is asked to stop by the signal that its image names",
    "init": "the substrate decides what the first process of a container is", "read_only": "a node may write to its own files",
    "platform": "images are of the machine's own platform", "pull_policy": "the substrate decides when an image is got",
    "placement": _SWARM, "update_config": _SWARM, "rollback_config": _SWARM, "endpoint_mode": _SWARM, "mode": _SWARM,
    "develop": "an environment is brought up to date by `envctl up`", "volumes_from": "components share no files",
    "volume_driver": "data is kept with the environment", "driver": "data is kept with the environment",
    "driver_opts": "data is kept with the environment", "post_start": "a node runs one command", "pre_stop": "a node runs one command",
    "provider": "envctl has no providers", "models": "envctl has no models", "scale": "this kind of component has no replicas",
    "build": _BUILD, "app_protocol": "a port has one name", "replicas": "this kind of component has no replicas",
    "external": "it is kept elsewhere, and not carried over", "name": "envctl names what it makes itself",
    "tmpfs": "a directory of the container takes its place; it is not in memory",
    **dict.fromkeys(("uid", "gid"), "a file has the owner and mode that it has on the host"),
}
_OPENED = ("deploy", "resources", "limits", "build", "volumes", "secrets", "configs")  # what is in them is told one by one
UNKNOWN = "envctl knows no such field"


@dataclass(frozen=True, slots=True)
class Left:
    """Something that was not carried over, or not as it was."""

    file: Path
    line: int
    field: str
    reason: str


@dataclass(slots=True)
class Report:
    """Collects what was not carried over."""

    left: list[Left] = field(default_factory=list)
    reasons: dict[tuple[str, ...], str] = field(default_factory=dict)  # of all that nobody reads below a place

    def note(self, cursor: Cursor, reason: str) -> None:
        """Something is to be said about a value."""
        entry = Left(cursor.value.file, cursor.value.line, dotted(cursor.at), reason)
        if entry not in self.left:
            self.left.append(entry)

    def tell(self, cursor: Cursor, reason: str) -> None:
        """A value was not carried over, and neither was anything in it."""
        self.note(cursor, reason)
        cursor.mark()

    def unset(self, value: Value, name: str) -> None:
        """A variable that nobody set was used."""
        self.note(Cursor(value, (name,)), "the variable is not set; an empty text takes its place, as Compose does it")

    def finish(self, model: Cursor) -> tuple[Left, ...]:
        """Everything that was told or that nobody has read, in the order of the files."""
        for (_, reason), group in groupby(_unread(model), key=lambda cursor: (cursor.at[:-1], self._reason(cursor))):
            found = list(group)
            for cursor in found:
                cursor.mark()
            if len(found) == 1:
                self.note(found[0], reason)
            else:
                names = ", ".join(cursor.name for cursor in found)
                first = min(found, key=lambda cursor: cursor.value.line)
                self.note(Cursor(first.value, (*first.at[:-1], f"{{{names}}}")), reason)
        return tuple(sorted(self.left, key=lambda left: (str(left.file), left.line, left.field)))

    def _reason(self, cursor: Cursor) -> str:
        """The one that is nearest to the value."""
        for length in range(len(cursor.at), 0, -1):
            here = cursor.at[:length]
            if here in self.reasons:
                return self.reasons[here]
            if here[-1] in REASONS and here[-2:-1] != ("environment",):
                return REASONS[here[-1]]
        return UNKNOWN


def _unread(cursor: Cursor) -> Iterator[Cursor]:
    """The largest parts of a value that nobody has read any of.  Extension fields (`x-…`) are no part of the model."""
    if cursor.name.startswith("x-"):
        return
    read = {scalar.read for scalar in cursor.value.scalars()}
    if read == {False} and cursor.at and not (cursor.name in _OPENED and cursor.kind == "mapping" and cursor.value.data):
        yield cursor
    elif False in read:
        below = cursor.entries().values() if cursor.kind == "mapping" else cursor.items()
        for each in below:
            yield from _unread(each)
