"""What a fault's walk leaves in the record."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from envctl.faults import acting
from envctl.faults.base import Blast, Effect
from envctl.model.environment import Node
from envctl.model.event import FaultEdge, Log, Op
from envctl.model.scenario import Condition, FaultSpec, Scenario, Traffic
from envctl.model.topology import Topology
from envctl.runner import faulting
from envctl.runner.faulting import FaultRun, Field
from envctl.runner.live import Live
from envctl.spec.conditions import parse_condition
from envctl.waiting import until

STEADY = (parse_condition("p95(traffic) < 400 ms"), parse_condition("lag(payments) < 200"))


class Nothing:
    """A fault that acts as far as anyone can see."""

    name = "nothing"
    instantaneous = True

    def probe(self) -> Blast:
        return Blast((), "nothing")

    def undo(self) -> dict[str, Any]:
        return {}

    def apply(self, lease_s: float) -> None:
        """Done."""

    def verify(self) -> Effect:
        return Effect(shown=True, summary="it acts")

    absent = verify

    def heal(self) -> None:
        """Done."""


class Kept:
    """The record, in memory."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    write = property(lambda self: self.events.append)

    def sync(self) -> None:
        """Nothing to do."""


def recovery(tmp_path: Path, latency_s: float, within_s: float, steady: tuple[Condition, ...] = STEADY[:1], hung: int = 0) -> FaultEdge:
    """The end of a fault under operations that take so long; one of `hung` is never answered."""
    kept, over, begun = Kept(), threading.Event(), time.monotonic_ns()
    now_ns = lambda: time.monotonic_ns() - begun  # noqa: E731
    live = Live(now_ns, patience_s=0.5)

    def operate() -> None:
        number = random.Random(1).randrange(1000)
        while not over.wait(0.01):
            number, due = number + 1, now_ns()
            live.operation(Op(at_ns=due, op=number, process="c", type="invoke", f="buy", due_ns=due))
            if hung and number % hung == 0:
                continue
            live.operation(Op(at_ns=due + int(latency_s * 1e9), op=number, process="c", type="ok", f="buy", value={}))

    traffic = threading.Thread(target=operate)
    traffic.start()
    scenario = Scenario("s", tmp_path / "s.yaml", Traffic(tmp_path / "t", "g", None, None), steady=steady,
                        recover_within_s=within_s)
    field = Field(None, Topology("t", tmp_path / "t.yaml", (), {}), scenario, "", tmp_path, kept, live, now_ns, threading.Event())  # type: ignore[arg-type]
    run = FaultRun(field, FaultSpec("n", "nothing", 0.0, (), None, {}), Nothing())
    run.run()
    over.set()
    traffic.join()
    last: FaultEdge = kept.events[-1]
    assert last.edge == "recover"
    return last


def test_a_recovery_tells_the_values_it_was_believed_by(tmp_path: Path) -> None:
    edge = recovery(tmp_path, 0.1, 60)
    assert edge.ok
    assert edge.detail["conditions"] == [{"text": "p95(traffic) < 400 ms", "value": pytest.approx(0.1), "ok": True}]


def test_one_that_was_given_up_tells_what_it_was_given_up_at(tmp_path: Path) -> None:
    edge = recovery(tmp_path, 0.5, 3)
    assert not edge.ok
    assert edge.summary == "not recovered: p95(traffic) < 400 ms: it was 500 ms"
    assert edge.detail["conditions"] == [{"text": "p95(traffic) < 400 ms", "value": pytest.approx(0.5), "ok": False}]


def test_what_was_never_sampled_is_unknown(tmp_path: Path) -> None:
    edge = recovery(tmp_path, 0, 3, STEADY)
    assert edge.summary == "recovery could not be measured: lag(payments) < 200"
    assert [answer["ok"] for answer in edge.detail["conditions"]] == [True, None]


def test_a_system_half_of_which_hangs_has_not_recovered(tmp_path: Path) -> None:
    edge = recovery(tmp_path, 0.01, 2, (parse_condition("success_rate(traffic) >= 99 %"),), hung=2)
    assert not edge.ok
    assert edge.detail["conditions"][0]["ok"] is False


class Renewed(Nothing):
    """It is held, and renewals do something."""

    instantaneous = False
    applied = healed = 0

    def apply(self, lease_s: float) -> None:  # noqa: ARG002
        self.applied += 1
        if self.applied > 1:
            self.renew()

    def renew(self) -> None:
        """Done."""

    def heal(self) -> None:
        self.healed += 1


def walked(tmp_path: Path, fault: Renewed, monkeypatch: pytest.MonkeyPatch, for_s: float) -> list[Any]:
    """The events of a fault whose lease is renewed all the time."""
    monkeypatch.setattr(faulting, "RENEW_S", 0.01)
    monkeypatch.setattr(faulting, "RENEWED_S", 0.5)
    kept = Kept()
    scenario = Scenario("s", tmp_path / "s.yaml", Traffic(tmp_path / "t", "g", None, None), recover_within_s=1)
    field = Field(None, Topology("t", tmp_path / "t.yaml", (), {}), scenario, "", tmp_path, kept, Live(time.monotonic_ns, patience_s=0.1),  # type: ignore[arg-type]
                  time.monotonic_ns, threading.Event())
    FaultRun(field, FaultSpec("n", "nothing", 0.0, (), for_s, {}), fault).run()
    return kept.events


def test_a_renewal_that_hangs_keeps_no_fault_from_being_healed_and_is_told_and_healed_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, hangs = threading.Event(), threading.Event()

    class Hanging(Renewed):
        def renew(self) -> None:
            hangs.set()
            goes_on.wait()

        def verify(self) -> Effect:
            hangs.wait(10)
            return super().verify()

    fault = Hanging()
    events = walked(tmp_path, fault, monkeypatch, 0.1)
    assert fault.healed == 1
    (hold,) = [event for event in events if isinstance(event, FaultEdge) and event.edge == "hold"]
    assert not hold.ok
    assert hold.summary == "a renewal of its lease hung for 0.5 s, and it was healed meanwhile"
    goes_on.set()
    assert until(lambda: fault.healed == 2, 10), "what it did after the healing is healed as well"


def test_a_refused_renewal_is_told_once_and_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = threading.Event()

    class Refusing(Renewed):
        def renew(self) -> None:
            if self.applied < 5:
                raise OSError(5, "server-0 is away")
            again.set()

        def verify(self) -> Effect:
            return Effect(again.wait(10), "it acts")

    events = walked(tmp_path, Refusing(), monkeypatch, 0.1)
    assert [event.message for event in events if isinstance(event, Log)] == ["fault n: a renewal was refused: [Errno 5] server-0 is away"]
    assert all(event.ok for event in events if isinstance(event, FaultEdge) and event.edge in ("verify", "hold"))


def test_a_fault_waits_for_a_node_that_another_one_has_to_itself_and_is_refused_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopping(Renewed):
        claims = frozenset({"processes"})

        def probe(self) -> Blast:
            return Blast((Node("db-0", "db", "postgres", "a", "", "ready", 1, 0.0, 1, None),), "db-0")

    monkeypatch.setattr(faulting, "READY_TO_HURT_S", 0.3)
    monkeypatch.setattr(faulting, "PROBE_AGAIN_S", 0.05)
    other = tmp_path / "faults" / "other"
    acting.begin(other, Stopping().probe(), {"processes"})
    refused = Stopping()
    (probed, *_) = walked(tmp_path, refused, monkeypatch, 0.1)
    assert (probed.edge, probed.ok) == ("probe", False)
    assert "other acts on db-0 still" in probed.summary
    assert (refused.applied, refused.healed) == (0, 0)
    monkeypatch.setattr(faulting, "READY_TO_HURT_S", 20.0)
    threading.Timer(0.2, acting.end, [other]).start()
    (probed, *_) = walked(tmp_path, Stopping(), monkeypatch, 0.1)
    assert (probed.edge, probed.ok) == ("probe", True)
    acting.begin(other, Stopping().probe(), {"processes"})


class Full:
    """The record on a disk without room, once a fault acts."""

    def __init__(self) -> None:
        self.wrote = 0

    def write(self, _: object) -> None:
        self.wrote += 1
        if self.wrote > 2:  # probed, journalled
            raise OSError(28, "No space left on device")

    def sync(self) -> None:
        """Nothing to do."""


def test_a_record_that_can_not_be_written_keeps_no_fault_from_being_healed_and_no_run_waiting(tmp_path: Path) -> None:
    class Held(Nothing):
        healed = 0

        def heal(self) -> None:
            self.healed += 1

    scenario = Scenario("s", tmp_path / "s.yaml", Traffic(tmp_path / "t", "g", None, None), recover_within_s=1)
    field = Field(None, Topology("t", tmp_path / "t.yaml", (), {}), scenario, "", tmp_path, Full(), Live(time.monotonic_ns, patience_s=0.1),  # type: ignore[arg-type]
                  time.monotonic_ns, threading.Event())
    fault = Held()
    run = FaultRun(field, FaultSpec("n", "nothing", 0.0, (), None, {}), fault)
    run.start()
    assert run.done.wait(20)
    assert fault.healed
