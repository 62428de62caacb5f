"""Goodput of bulk transfers over links, and of the same senders to somebody whom no rule names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from envctl.errors import ResourceError
from envctl.faults.companion import ANSWER_S, Companion
from envctl.faults.links import Link
from envctl.model.environment import Node
from envctl.substrates.base import Reach

_BULK = "envctl.faults.programs.bulk"


@dataclass(frozen=True, slots=True)
class Flow:
    """One transfer."""

    sender: str
    receiver: str
    bytes: int  # of payload that arrived
    bits_per_s: float
    canary: bool  # to somebody whom no rule names


def flows(reach: Reach, links: Sequence[Link], seconds: float, offered: float, enough: float) -> list[Flow]:
    """From each sender to one of its receivers and, at the same time, to a bystander; those who receive then send after the others.

    So no transfer's acknowledgements share a limited link with another transfer.  A bystander that is not reached with `enough` bits
    per second may be the target of another fault, so another one is asked.  Raises ResourceError when nothing can be transferred.
    """
    links = [link.now(reach) for link in links]
    pairs: dict[str, tuple[Node, Node]] = {}
    for link in links:
        for sender in link.senders:
            pairs.setdefault(sender.name, (sender, link.receiver))
    later = {here.name for sender, here in pairs.values() if here.name in pairs and sender.name < here.name}
    found: list[Flow] = []
    with ThreadPoolExecutor(2 * len(pairs)) as pool:
        for turn in (False, True):
            now = [pair for name, pair in pairs.items() if (name in later) is turn]
            aimed = [pool.submit(_flow, reach, *pair, seconds, offered, canary=False) for pair in now]
            spared = [pool.submit(_canary, reach, links, sender, seconds, offered, enough) for sender, _ in now]
            found += [each.result() for each in (*aimed, *spared)]
    return found


def _canary(reach: Reach, links: Sequence[Link], sender: Node, seconds: float, offered: float, enough: float) -> Flow:
    """To a node that is at no end of a link, or else to what is beside the nodes."""
    ends = {link.receiver.address for link in links} | {node.address for link in links for node in link.senders}
    others: list[Node | None] = [node for node in reach.environment().nodes if node.address not in ends and node.state == "ready"]
    best = None
    for receiver in [*others[:1], *others[-1:], None] if others else [None]:
        flow = _flow(reach, sender, receiver, seconds, offered, canary=True)
        best = flow if best is None or flow.bits_per_s > best.bits_per_s else best
        if flow.bits_per_s >= enough:
            break
    assert best is not None
    return best


def _flow(reach: Reach, sender: Node, receiver: Node | None, seconds: float, offered: float, *, canary: bool) -> Flow:
    address = str(receiver.address if receiver else reach.address)
    with ExitStack() as stack:
        sink = stack.enter_context(Companion(reach, receiver.name if receiver else None, _BULK, "sink", address))
        if not (port := sink.line()):
            raise ResourceError(f"nothing could take a transfer at {address}")
        pour = stack.enter_context(Companion(reach, sender.name, _BULK, "pour", sender.address, address, port, f"{seconds:g}", f"{offered:.0f}"))
        told = json.loads(sink.line(seconds + ANSWER_S) or "{}") if pour.line(seconds + ANSWER_S) else {}
    if not told:
        raise ResourceError(f"nothing could be transferred from {sender.name} to {address}")
    return Flow(sender.name, receiver.name if receiver else "beside", told["bytes"], told["bits_per_s"], canary)
