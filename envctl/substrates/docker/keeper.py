"""The keeper of an environment whose nodes are containers: `python -m envctl.substrates.docker.keeper`, in a container among them.

It supervises the nodes' containers through the engine's socket, and ends all of them, and then itself, when the lease has run
out.  When it is killed the engine starts it again, and it finds everything by labels.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from envctl.errors import ResourceError
from envctl.model.environment import NodeSpec, spec_from
from envctl.substrates.docker import end
from envctl.substrates.docker.engine import api, translated
from envctl.substrates.docker.identity import SPEC, Identity
from envctl.substrates.docker.launch import ContainerLauncher, ContainerLife
from envctl.substrates.keeper.apart import KeeperApart, listener
from envctl.substrates.keeper.helpers import HelperLife
from envctl.substrates.keeper.notes import Notes
from envctl.substrates.keeper.place import DIRECTORY, KEEPER_PORT, PLACE_OF, TOKEN
from envctl.substrates.keeper.ports import Ports
from envctl.substrates.keeper.serve import Keeper
from envctl.substrates.keeper.supervisor import Unit
from envctl.substrates.keeper.wire import Message

FIRST_PORT = 7500  # in the keeper's container: what is published goes through it, and so follows a node that is restarted
PORTS = "ENVCTL_KEEPER_PORTS"  # how many it has for that: each takes an engine a twentieth of a second to make, and again to remove
_KEPT, _EXPIRES = "keeper.json", "expires"
_NOTED_EVERY_S = 10.0  # how often it is noted until when the lease lasts, for the keeper after this one
_THREADS = 64  # each waits for one answer of the engine, such as the end of a probe in a node
Life = ContainerLife | HelperLife


class ContainerKeeper(KeeperApart[Life]):
    """What clients may ask of it, with the right token."""

    looks: ClassVar[tuple[str, ...]] = (*Keeper.looks, "recall")

    def __init__(self, identity: Identity, directory: Path) -> None:
        super().__init__(identity.env_id, directory)
        self.identity = identity
        self.token = os.environ[TOKEN]
        self.launcher = ContainerLauncher(identity, directory)
        self.ports = Ports()
        self._numbers = range(FIRST_PORT, FIRST_PORT + int(os.environ[PORTS]))
        self._notes, self._state = Notes(directory / "notes"), Notes(directory)
        self._leading: dict[int, tuple[str, str, int]] = {}  # port of the keeper's → name under which it is published, node, port
        self._addresses: dict[str, str] = {}  # node → address, for as long as the environment lives

    async def live(self) -> None:
        """Serves until the lease has run out."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, os._exit, 0)
        for name in ("logs", "notes"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        await self._adopt_all()
        self.spawn(self.accept(listener(KEEPER_PORT)))
        self.spawn(self._note_expiry())
        await self.until_over(lambda: None)
        while True:  # the last act; with it goes this container
            with contextlib.suppress(Exception):  # whatever it is, it has to be tried again
                await asyncio.to_thread(end.everything, self.identity)
            await asyncio.sleep(5)

    async def _note_expiry(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # a full disk
                self._state.write(_EXPIRES, str(self.expires_at))
            await asyncio.sleep(_NOTED_EVERY_S)

    async def _adopt_all(self) -> None:
        """After a restart of the keeper: whatever bears its labels, and the lease, helpers and published ports that it had."""
        with contextlib.suppress(ValueError):
            kept = json.loads(self._state.read(_KEPT) or "")
            self.ttl_s, self.labels, self.helpers = kept["ttl_s"], kept["labels"], kept["helpers"]
            self._leading = {int(number): tuple(target) for number, target in kept["leading"].items()}
            self.inherit(float(self._state.read(_EXPIRES) or "") + _NOTED_EVERY_S)
        for container in await asyncio.to_thread(self._containers):
            spec = spec_from(json.loads(container["Labels"][SPEC]))
            self._addresses[spec.name] = _address(container)
            self.units[spec.name] = Unit(spec, self._addresses[spec.name], self.launcher)
        for name, helper in self.helpers.items():
            self.units[name] = Unit(spec_from(helper), self.own_address, self.launcher)
        for number, (name, node, port) in self._leading.items():
            with contextlib.suppress(ResourceError):  # the node has gone
                await self._lead(number, name, node, port)

    def keep(self) -> None:
        """What the next keeper needs to know when this one is killed."""
        kept = {"ttl_s": self.ttl_s, "labels": dict(self.labels), "helpers": self.helpers, "leading": self._leading}
        self._state.write(_KEPT, json.dumps(kept, default=str))

    def _containers(self) -> Any:
        with translated("looking for nodes"):
            found = api().containers(all=True, filters=self.identity.filters("node"))
        return [each for each in found if each["State"] != "created"]  # who made one was killed before it was whole

    def endpoints(self) -> Mapping[str, str]:
        """Ports of the engine's machine."""
        return self.ports.published

    # --- what clients may ask ---

    async def do_recall(self, name: str) -> Message:
        """A note."""
        return {"text": self._notes.read(name)}

    async def do_remember(self, name: str, text: str | None) -> None:
        """Keeps a note; None forgets it."""
        self._notes.write(name, text)

    async def do_address(self, name: str) -> Message:
        """The address that a node has had, or the next free one of the network."""
        first, taken = ipaddress.ip_address(await asyncio.to_thread(self._first)), set(self._addresses.values())
        free = (str(first + number) for number in range(250) if str(first + number) not in taken)
        if name not in self._addresses and (found := next(free, None)):
            self._addresses[name] = found
        if name not in self._addresses:
            raise ResourceError("the network has no address left")
        return {"address": self._addresses[name]}

    def _first(self) -> str:
        """The first address that a node may have: after the gateway's and the keeper's."""
        with translated("looking at the network"):
            pool = api().inspect_network(self.identity.network)["IPAM"]["Config"][0]["Subnet"]
        return str(ipaddress.ip_network(pool)[3])

    def made(self, spec: NodeSpec, address: str) -> Unit[Life]:
        """Every node has an address of its own."""
        return Unit(spec, address, self.launcher)

    async def do_stop(self, name: str) -> None:
        """Ends a node in good order, so that its container may be removed."""
        async with self.locks[name]:
            if unit := self.units.get(name):
                await unit.stop()
                self.ports.withdraw(name)
                self._leading = {number: target for number, target in self._leading.items() if target[1] != name}
                del self.units[name]
                self.keep()

    async def do_publish(self, name: str, node: str, port: int) -> Message:
        """Leads one of the ports that the engine has published for the keeper to a node's."""
        if name in self.ports.published:
            return {"address": self.ports.published[name]}
        number = next((each for each in self._numbers if each not in self._leading), None)
        if number is None:
            hint = "`envctl down` and `envctl up` make as many as the topology has now"
            raise ResourceError(f"all {len(self._numbers)} ports that can be published are in use", hint=hint)
        self._leading[number] = (name, node, port)  # at once: others ask meanwhile
        address = await self._lead(number, name, node, port)
        self.keep()
        return {"address": address}

    async def _lead(self, number: int, name: str, node: str, port: int) -> str:
        target = (node, self.unit(node).address, port)
        with listener(number) as accepting:
            return await self.ports.publish(name, target, await self._outside(number), accepting.fileno())

    async def _outside(self, number: int) -> str:
        """A port of the keeper's container as the engine's machine knows it."""
        with translated("looking at the keeper"):
            found = await asyncio.to_thread(api().inspect_container, self.identity.keeper)
        return f"127.0.0.1:{found['NetworkSettings']['Ports'][f'{number}/tcp'][0]['HostPort']}"


def _address(container: Any) -> str:
    (network,) = container["NetworkSettings"]["Networks"].values()
    return str(network["IPAMConfig"]["IPv4Address"])


async def main() -> None:
    """The life of a keeper."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    directory = Path(os.environ[DIRECTORY])
    await ContainerKeeper(Identity(directory.name, os.environ[PLACE_OF]), directory).live()


if __name__ == "__main__":
    asyncio.run(main())
