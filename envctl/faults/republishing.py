"""Faults that have records of a topic produced again; what was produced stays.  `republisher` does it, in a process of its own that ends by itself."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from envctl.engines.cluster import admin, cluster, partitions
from envctl.engines.topics import messages_of
from envctl.errors import ResourceError, UsageError
from envctl.faults.base import Blast, Effect, World
from envctl.faults.programs.republisher import Copy, Orders, read_told
from envctl.faults.statistics import ALPHA, binomial_p_value
from envctl.faults.targets import ratio
from envctl.model.topology import Topology
from envctl.substrates.base import Process
from envctl.waiting import until

COPIES = 5  # that a measurement waits for
OBSERVE_S = 20.0  # and how long
MOST = 500  # copies that are read back in one measurement
READ_S = 20.0  # how long the topic may take to be read back
END_S = 15.0  # how long the process may take to end
POLL_S = 0.1


class Republishing:
    """Common to the kinds: `{topic: orders.placed, share: 10 %}`."""

    tools: ClassVar[tuple[str, ...]] = ()
    schema: ClassVar[Mapping[str, Any]] = {
        "type": "object",
        "required": ["topic"],
        "additionalProperties": False,
        "properties": {
            "topic": {"type": "string", "description": "topic"},
            "share": {"type": ["string", "number"], "description": "share of the records that are produced again, such as 10 %; default: all"},
        },
    }
    way: ClassVar[str]  # of `republisher`
    _again: ClassVar[str]  # what happened to records, in words
    instantaneous = False

    def __init__(self, params: Mapping[str, Any], world: World) -> None:
        self._topic: str = params["topic"]
        self._share = self._share_of(params)
        self._world = world
        self._orders = Orders(world.scratch / "orders")
        self._told = world.scratch / "told.txt"
        self._process: Process | None = None
        self._measured = 0  # copies

    @classmethod
    def references(cls, params: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The topic."""
        return [("topic", params["topic"])] if isinstance(params.get("topic"), str) else []

    @classmethod
    def unfit(cls, params: Mapping[str, Any], topology: Topology) -> Sequence[tuple[str, str, str]]:  # noqa: ARG003
        """See `FaultKind.unfit`: a share that can be seen."""
        try:
            cls._share_of(params)
        except UsageError as error:
            return [("share", error.message, error.hint or "")]
        return []

    @staticmethod
    def _share_of(params: Mapping[str, Any]) -> float:
        share = ratio(params.get("share", 1.0))
        if not share:
            raise UsageError("0 % of the records can't be seen twice", hint="ask for a larger share")
        return share

    def probe(self) -> Blast:
        """See `Fault.probe`: the topic must be there.  It touches the brokers that lead its partitions."""
        if not self._world.bootstrap:
            raise UsageError("records can't be produced again without a kafka component in the environment")
        with admin(self._world.bootstrap) as client:
            try:
                leaders = {one.leader for one in partitions(client, [self._topic]).values()}
            except ResourceError as error:
                raise UsageError(error.message) from error
            names = {cluster(client).names.get(leader) for leader in leaders}
        nodes = tuple(node for node in self._world.reach.environment().nodes if node.name in names)
        return Blast(nodes, f"{self._topic}, {self._share * 100:g} %")

    def undo(self) -> Mapping[str, Any]:
        """See `Fault.undo`: the process ends when its orders are gone; records stay."""
        return {"orders": str(self._orders.path)}

    def apply(self, lease_s: float) -> None:
        """See `Fault.apply`.  Returns when the process reads; one whose lease ran out is followed by another."""
        self._orders.renew(lease_s)
        if self._process is not None and self._process.poll() is None:
            return
        self._world.scratch.mkdir(parents=True, exist_ok=True)
        self._told.unlink(missing_ok=True)
        self._measured = 0
        self._process = self._world.reach.popen(None, [
            *self._world.reach.own, "-m", "envctl.faults.programs.republisher", self._world.bootstrap, self._topic, self.way, str(self._share),
            str(self._world.rng.random()), str(self._orders.path), str(self._told)])
        if not until(lambda: read_told(self._told)[0] or self._ended(), OBSERVE_S, poll_s=POLL_S) or self._ended():
            raise ResourceError(f"records of {self._topic} can't be produced again: the process did not begin")

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def verify(self) -> Effect:
        """Since it was measured last records were produced again, as many as asked (exact binomial test); each of them was read back, twice."""
        if self._process is None:
            return Effect(False, "nothing is produced again")
        until(lambda: len(self._copies()) >= self._measured + COPIES or self._ended() or self._world.stopping.is_set(), OBSERVE_S, poll_s=POLL_S)
        copies = self._copies()
        fresh, self._measured = copies[self._measured :][-MOST:], len(copies)
        wrong = self._not_found(fresh)
        seen = copies[-1].seen if copies else 0
        fits = bool(copies) and binomial_p_value(len(copies), seen, self._share) >= ALPHA
        summary = f"{len(copies):,} of {seen:,} records {self._again}"
        if self._ended():
            summary += ", and then no more"
        if wrong:
            summary += f"; {len(wrong)} copies were not found where they were written"
        return Effect(bool(fresh) and fits and not wrong and not self._ended(), summary,
                      {"copies": len(copies), "seen": seen, "asked": self._share, "read_back": len(fresh), "sample": [asdict(one) for one in fresh[:COPIES]]})

    def _copies(self) -> list[Copy]:
        return read_told(self._told)[2]

    def _not_found(self, copies: Sequence[Copy]) -> list[Copy]:
        """Those that are not where they were written, as what they were to be."""
        starts: dict[int, int] = {}
        for one in copies:
            starts[one.partition] = min(one.original, starts.get(one.partition, one.original))
        found = {
            (message.partition(), message.offset()): message
            for message in messages_of(self._world.bootstrap, self._topic, starts=starts, partitions=tuple(starts), within_s=READ_S)
        } if copies else {}
        return [one for one in copies if not self._is_proof(one, found)]

    def _is_proof(self, copy: Copy, found: Mapping[tuple[int, int], Any]) -> bool:
        """Whether what was read back, by partition and offset, shows it: the same record at a later offset."""
        before, after = found.get((copy.partition, copy.original)), found.get((copy.partition, copy.copy))
        return before is not None and after is not None and copy.copy > copy.original and content(before) == content(after)

    def heal(self) -> None:
        """See `Fault.heal`: without orders the process ends, whoever started it."""
        self._orders.end()
        if not until(self._is_over, END_S, poll_s=POLL_S) and self._process is not None:
            self._process.signal(signal.SIGKILL)

    def _is_over(self) -> bool:
        begun, over, _ = read_told(self._told)
        return self._ended() if self._process is not None else over or not begun

    def absent(self) -> Effect:
        """Nothing is to be produced again, and the process that did has ended."""
        over = self._orders.read() is None and until(self._is_over, END_S, poll_s=POLL_S)
        return Effect(over, "no more records again" if over else "still produced again", {"copies": len(self._copies())})


def content(message: Any) -> tuple[Any, ...]:
    """What makes two records the same."""
    return message.key(), message.value(), message.headers()
