"""Makes and ends environments of containers, through testcontainers."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import secrets
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from envctl.errors import LeakError, NoEnvironmentError, ResourceError
from envctl.model.environment import Node, NodeSpec
from envctl.model.topology import Resources
from envctl.substrates.docker import census, end
from envctl.substrates.docker.engine import SOCKET, api, ask, client, host, remember_use, shares_users, translated
from envctl.substrates.docker.identity import DIGEST, NODE, SPEC, Identity
from envctl.substrates.docker.image import image_of, keeper_image
from envctl.substrates.docker.keeper import FIRST_PORT, PORTS
from envctl.substrates.docker.launch import ALL_BYTES, limits
from envctl.substrates.docker.reach import ContainerReach
from envctl.substrates.keeper.place import DIRECTORY, KEEPER_PORT, PLACE_OF, TOKEN
from envctl.substrates.locked import locked
from envctl.waiting import until

# For benchmarks of network devices (RFC 2544): no network that people work in is there.
_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
_PREFIX = 24
# No way out to other machines, as on every substrate; ports are published on the engine's own loopback.
_CUT_OFF = {"com.docker.network.bridge.enable_ip_masquerade": "false", "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1"}
_KEEPER_S = 30.0
_MORE_PORTS = 4  # to publish than the topology has: it may change while the environment lives
_LOG = {"max-size": "100m", "max-file": "2"}  # what an engine keeps of a container's words, at most


class ContainerRealiser:
    """Makes, adopts and ends the environment of one directory."""

    def __init__(self, directory: Path) -> None:
        self.reach = ContainerReach(directory)
        self.directory = self.reach.directory
        self.identity = Identity.of_directory(self.directory)

    def create_environment(self, env_id: str, *, ttl_s: float, labels: Mapping[str, str]) -> None:
        """Makes the empty environment, or adopts the living one."""
        if env_id != self.directory.name:
            raise ValueError(f"{env_id!r} does not live in {self.directory}")
        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        image = "" if self.reach.is_alive() else keeper_image()  # before the lock of all environments: it may take a minute
        with locked(self.directory.parent):
            if not self.reach.is_alive() and not self._comes_back():
                remember_use()
                end.everything(self.identity)
                self._make(image or keeper_image(), int(labels.get("ports", 0)) + _MORE_PORTS)
        self.reach.renew(ttl_s, labels)

    def _comes_back(self) -> bool:
        """Whether the keeper was killed just now, and the engine is starting it again."""
        keepers = ask("GET", "/containers/json", all=True, filters=self.identity.filters("keeper"))
        return any(map(census.keeps, keepers)) and until(self.reach.is_alive, _KEEPER_S)

    def _make(self, image: str, count: int) -> None:
        _network(self.identity)
        ports = {f"{port}/tcp": ("127.0.0.1", None) for port in (KEEPER_PORT, *range(FIRST_PORT, FIRST_PORT + count))}
        environment = {TOKEN: secrets.token_hex(16), DIRECTORY: str(self.directory), PLACE_OF: self.identity.place, PORTS: str(count)}
        _start(
            image, self.identity.keeper, ["python3", "-P", "-m", "envctl.substrates.docker.keeper"], environment,
            labels=self.identity.labels("keeper"), ports=ports, init=True, restart_policy={"Name": "always"},
            volumes={_socket_path(): SOCKET}, **_joined(self.identity, ["telemetry"]),
        )
        if not until(self.reach.is_alive, _KEEPER_S):
            said = api().logs(self.identity.keeper, tail=5).decode(errors="replace")
            raise ResourceError(f"the keeper of {self.identity.env_id} does not answer\n{said}")

    def start_node(self, spec: NodeSpec, *, ready_timeout_s: float) -> Node:
        """Starts a node, or adopts or replaces the one of that name; waits until ready."""
        if not spec.image:
            raise ResourceError(f"{spec.name} has no image, and nodes of this substrate are containers")
        address = ""
        found = self.reach.ask("found", name=spec.name, digest=spec.digest)
        if not found["adopted"] and (found["known"] or not self._is_there(spec)):
            image = image_of(spec)  # while the old one still runs
            self._remove(spec.name)
            address = self._run(spec, image)
        return self.reach.start(spec, ready_timeout_s, address=address or self._address(spec.name))

    def _is_there(self, spec: NodeSpec) -> bool:
        """Whether its container was made by somebody who was killed before the keeper knew."""
        with translated(f"looking for {spec.name}"):
            found = api().containers(all=True, filters=self.identity.filters("node", spec.name))
        return any(each["Labels"].get(DIGEST) == spec.digest and each["State"] != "created" for each in found)

    def _address(self, node: str) -> str:
        with translated(f"looking at {node}"):
            (network,) = api().inspect_container(self.identity.container(node))["NetworkSettings"]["Networks"].values()
        return str(network["IPAMConfig"]["IPv4Address"])

    def _run(self, spec: NodeSpec, image: str) -> str:
        address = str(self.reach.ask("address", name=spec.name)["address"])
        labels = self.identity.labels("node", **{NODE: spec.name, DIGEST: spec.digest, SPEC: json.dumps(asdict(spec), default=str)})
        volumes = {self.identity.volume(spec.name, index): path for index, path in enumerate(spec.volumes)}
        for name in volumes:
            self.make_part("volume", name, spec.name)
        options: dict[str, Any] = {
            "labels": labels, "hostname": spec.name, "stop_signal": spec.stop_signal, "init": spec.init, "cap_drop": ["NET_RAW"],
            **_joined(self.identity, [spec.name, spec.component], address), **_limits(spec.resources),
        }
        if spec.entrypoint is not None:
            options["entrypoint"] = list(spec.entrypoint)
        if spec.user:
            options["user"] = spec.user
        if spec.cwd != "/":
            options["working_dir"] = spec.cwd
        _start(image, self.identity.container(spec.name), list(spec.command) or None, spec.env, files=spec.files, volumes=volumes, **options)
        return address

    def make_part(self, kind: str, name: str, node: str) -> None:
        """A network or volume; one that is there is adopted."""
        self.directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if kind == "network":
            with locked(self.directory.parent):
                if not self.has_part(kind, name):
                    _network(self.identity)
            return
        with translated(f"making a volume of {node}"):
            client().volumes.create(name, labels=self.identity.labels("volume", **{NODE: node}))

    def has_part(self, kind: str, name: str) -> bool:
        """Whether a network or volume is there."""
        return bool(self._parts(kind, name))

    def remove_part(self, kind: str, name: str) -> None:
        """Removes a network or volume."""
        for each in self._parts(kind, name):
            with translated(f"removing {name}"):
                each.remove()

    def _parts(self, kind: str, name: str) -> list[Any]:
        engine: Any = client()
        with translated(f"looking for {name}"):
            found = (engine.networks if kind == "network" else engine.volumes).list(filters=self.identity.filters())
        return [each for each in found if each.name == name]

    def stop_node(self, name: str) -> None:
        """Ends a node and removes its data; one that is not there (or an environment that is not) is fine."""
        with contextlib.suppress(NoEnvironmentError):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self.reach.ask("stop", name=name)
        end.node(self.identity, name)

    def end_environment(self) -> None:
        """Ends everything and waits until nothing is left.  Raises LeakError with the list of what is."""
        if not self.directory.parent.exists():
            return
        with locked(self.directory.parent):
            end.everything(self.identity)
        if left := census.left(self.directory):
            raise LeakError(f"{self.directory.name} has left something behind:\n  " + "\n  ".join(left))


def _start(
    image: str, name: str, command: list[str] | None, environment: Mapping[str, str], *, files: Mapping[str, Path] | None = None,
    volumes: Mapping[str, str] | None = None, ports: Mapping[str, Any] | None = None, **options: Any,
) -> None:
    """Pulls the image unless it is here, and creates and starts the container; one that was created only is not left behind."""
    from docker.types import LogConfig
    from testcontainers.core.docker_client import DockerClient

    # Not its DockerContainer: that ends what it starts with the process, and an environment outlives whoever made it.
    engine = DockerClient()
    mounted = {source: {"bind": target, "mode": "rw"} for source, target in (volumes or {}).items()}
    with translated(f"starting {name}"):
        try:
            container = engine.create(
                image, command, environment=dict(environment), ports=dict(ports or {}), name=name, volumes=mounted, log_config=LogConfig(type=LogConfig.types.JSON, config=_LOG), **options,
            )
            if files:
                container.put_archive("/", _packed(files, own=shares_users()))
            engine.start(container)
        except BaseException:
            with contextlib.suppress(Exception):
                api().remove_container(name, force=True, v=True)
            raise


def _packed(files: Mapping[str, Path], *, own: bool) -> IO[bytes]:
    """Files and directories as a tar, each at its path in the container.

    `own`: they keep owner and mode, as if they were bound there.  Otherwise they are root's and everybody may read, for where
    the owner's number means nothing (there, too, who opens a bound file is taken for its owner).
    """

    def shown(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uname = entry.gname = ""
        if not own:
            entry.uid = entry.gid = 0
            entry.mode |= 0o555 if entry.isdir() else 0o444
        return entry

    packed = tempfile.TemporaryFile()  # noqa: SIM115 - the engine reads it to its end
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for target, source in files.items():
            tar.add(source, arcname=target.lstrip("/"), filter=shown)
    packed.seek(0)
    return packed


def _limits(resources: Resources) -> dict[str, int]:
    return {name: value for name, value in limits(resources).items() if 0 < value < ALL_BYTES}


def _joined(identity: Identity, aliases: list[str], address: str | None = None) -> dict[str, Any]:
    endpoint = api().create_endpoint_config(aliases=aliases, ipv4_address=address)
    return {"network": identity.network, "networking_config": {identity.network: endpoint}}


def _network(identity: Identity) -> None:
    """A network of its own in the first free part of the range, where the search begins elsewhere for each environment."""
    from docker.types import IPAMConfig, IPAMPool

    parts = list(_RANGE.subnets(new_prefix=_PREFIX))
    start = int(identity.key, 16)
    for offset in range(len(parts)):
        part = parts[(start + offset) % len(parts)]
        pool = IPAMConfig(driver="default", pool_configs=[IPAMPool(subnet=str(part), gateway=str(part[1]))])
        try:
            with translated(f"making the network of {identity.env_id}"):
                api().create_network(
                    identity.network, driver="bridge", ipam=pool, check_duplicate=True,
                    labels=identity.labels("network"), options=_CUT_OFF,
                )
        except ResourceError as error:
            if "overlap" not in error.message:
                raise
        else:
            return
    raise ResourceError(f"no part of {_RANGE} is free for the network of {identity.env_id}", hint="`docker network prune` removes unused ones")


def _socket_path() -> str:
    """The engine's socket as its own machine knows it; where the engine is in a virtual machine, it is at the usual place there."""
    path = host().removeprefix("unix://")
    return path if sys.platform == "linux" and path.startswith("/") else SOCKET
