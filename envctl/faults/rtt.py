"""Round trips over links, and of senders that no rule names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from envctl.errors import ResourceError
from envctl.faults.base import World
from envctl.faults.companion import Companion
from envctl.faults.links import Link
from envctl.faults.probes import untargeted
from envctl.model.environment import Node

CANARY_PROBES = 50
_PING = "envctl.faults.programs.ping"


@dataclass(frozen=True, slots=True)
class Trips:
    """Round trips between one sender and one receiver, in seconds, and those of canaries to the same receiver, which all its senders share."""

    took: Sequence[float]
    lost: int
    ways: int  # at how many of the two ends the fault delays what arrives
    canaries: Mapping[str, Sequence[float | None]]  # "sender → receiver" of each flow that no rule names; None: lost


def round_trips(world: World, links: Sequence[Link], probes: int) -> list[Trips]:
    """One entry for each pair of a sender and a receiver, over all links at once.  Raises ResourceError when it can't be measured."""
    both = {(sender.name, link.receiver.name) for link in links for sender in link.senders}
    with ThreadPoolExecutor(len(links)) as pool:
        found = pool.map(lambda link: _of_link(world, link, probes, both), links)
    return [trips for each in found for trips in each]


def _of_link(world: World, link: Link, probes: int, both: set[tuple[str, str]]) -> list[Trips]:
    reach = world.reach
    link = link.now(reach)
    here = link.receiver
    with ExitStack() as stack:
        answerer = stack.enter_context(Companion(reach, here.name, _PING, "answer", here.address))
        if not (port := answerer.line()):
            raise ResourceError(f"nothing could answer probes in {here.name}")

        def asker(name: str | None, address: str, count: int) -> Companion:
            return stack.enter_context(Companion(reach, name, _PING, "ask", address, here.address, port, str(count)))

        asked = [(sender, asker(sender.name, sender.address, probes)) for sender in link.senders]
        canaries = {f"{name or 'beside the nodes'} → {here.name}": _read(asker(name, address, CANARY_PROBES)) for name, address in untargeted(world, link).items()}
        return [_trips(sender, here, _read(companion), both, canaries) for sender, companion in asked]


def _trips(sender: Node, here: Node, took: list[float | None], both: set[tuple[str, str]], canaries: Mapping[str, Sequence[float | None]]) -> Trips:
    ways = 2 if (here.name, sender.name) in both else 1
    return Trips([each for each in took if each is not None], took.count(None), ways, canaries)


def _read(asker: Companion) -> list[float | None]:
    if not (said := asker.line()):
        raise ResourceError("round trips could not be measured")
    took: list[float | None] = json.loads(said)
    return took
