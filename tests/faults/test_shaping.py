"""Links that are shaped: what their contract does not ask of every fault."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from held import world_of
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import CapabilityError, ResourceError, UsageError
from envctl.faults import latency as latency_module
from envctl.faults.bandwidth import Bandwidth
from envctl.faults.base import Fault, World
from envctl.faults.classes import Classes, Netem
from envctl.faults.corrupt import Corrupt, checksum_errors
from envctl.faults.held import Held
from envctl.faults.latency import Latency
from envctl.faults.programs.bulk import rate
from envctl.faults.programs.nfnetlink import PacketQueue
from envctl.faults.programs.queue_holder import Holder, flipped
from envctl.faults.reorder import Reorder
from envctl.faults.rtt import round_trips
from envctl.substrates.base import Completed, Reach
from envctl.toolchain import find
from envctl.waiting import until

LINK = {"from": "client", "to": "server-0"}
INJECTOR = """
import random, sys, time
from pathlib import Path
from envctl import plugins
from envctl.faults.base import World
from envctl.model.topology import Topology
from envctl.substrates.embedded import Embedded
place, kind, params = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
fault = plugins.load("envctl.faults", kind).build(params, World(Embedded.attach(place), Topology("t", place, ("a",), {}), random.Random(1), Path("killed")))
fault.apply(3)
print("applied", flush=True)
time.sleep(60)
"""
FLOOD = """
import socket, sys
flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(70_000):  # more than a queue holds, whatever the machine lets its reader keep unread
    flood.sendto(b"", (sys.argv[1], 9))
"""


@given(st.binary(max_size=40), st.integers(5, 15), st.integers())
def test_one_bit_of_a_packet_s_payload_is_inverted_and_nothing_of_its_header(payload: bytes, words: int, seed: int) -> None:
    packet = bytes([0x40 | words]) + bytes(words * 4 - 1) + payload
    altered = flipped(packet, random.Random(seed))
    wrong = [(index, old ^ new) for index, (old, new) in enumerate(zip(packet, altered, strict=True)) if old != new]
    assert len(wrong) == (1 if payload else 0)
    assert all(index >= words * 4 and bits.bit_count() == 1 for index, bits in wrong)


class SlowQueue:
    """A queue in which a packet comes ten milliseconds after the other, while all of them are read."""

    def __init__(self) -> None:
        self.accepted: list[int] = []
        self.came: dict[int, float] = {}

    def arrived(self) -> Iterator[tuple[int, bytes]]:
        for number in range(1, 4):
            begun = time.monotonic()
            assert until(lambda begun=begun: time.monotonic() > begun + 0.01, 5)
            self.came[number] = time.monotonic()
            yield number, b""

    def accept(self, numbers: Sequence[int]) -> None:
        self.accepted += numbers


def test_a_packet_that_comes_while_others_are_read_is_held_as_long_as_they() -> None:
    queue = SlowQueue()
    holder = Holder(cast("PacketQueue", queue), 5.0, 0.0, corrupt=False)
    assert holder.take() == 3
    holder.release(queue.came[3] + 5.0 - 0.001)
    assert queue.accepted == [1, 2]


def test_the_goodput_of_a_limited_link_leaves_out_the_burst_that_is_not_paid_for_yet() -> None:
    assert rate([(10.0, 30_000), (10.2, 20_000), (10.4, 60_000), (10.401, 40_000)]) == pytest.approx(50_000 * 8 / 0.401)
    assert rate([]) == rate([(1.0, 5)]) == 0.0


def test_checksum_errors_are_those_of_both_protocols() -> None:
    assert checksum_errors("Ip: A\nIp: 7\nTcp: X InCsumErrors\nTcp: 1 2\nUdp: InDatagrams InCsumErrors Y\nUdp: 9 3 4\n") == 5


def medians(reach: Reach, fault: Latency) -> list[float]:
    return [sorted(each.took)[len(each.took) // 2] for each in round_trips(world_of(reach, Path("/nowhere/probing")), fault.links, 20)]


@pytest.mark.cell
def test_what_varies_both_ways_is_drawn_at_each_end(world: Callable[..., World], reach: Reach) -> None:
    fault = Latency.build({**LINK, "delay": "30ms", "jitter": "10ms", "direction": "both"}, world("jitter"))
    assert fault.probe().summary == "client ↔ server-0 30ms ± 10ms"
    fault.apply(60)
    effect = fault.verify()
    assert effect.shown, effect
    assert all(ms > 58 for ms in effect.detail["median_ms"])
    fault.heal()
    assert fault.absent().shown
    steady = Latency.build({**LINK, "delay": "60ms"}, world("steady"))
    steady.apply(60)
    assert not fault.verify().shown, "it does not vary"
    steady.heal()


@pytest.mark.cell
def test_one_bystander_that_is_slowed_down_is_not_hidden_by_the_others(world: Callable[..., World]) -> None:
    fault = Latency.build({"from": "client", "to": "trio", "delay": "100ms"}, world("wide"))
    fault.apply(60)
    assert not fault.verify().detail["canaries_slowed"]
    beside = Latency.build({"from": "server-0", "to": "trio-0", "delay": "100ms"}, world("beside"))
    beside.apply(60)
    effect = fault.verify()
    beside.heal()
    fault.heal()
    assert not effect.shown
    assert effect.detail["canaries_slowed"] == ["server-0 → trio-0"]
    assert "(server-0 → trio-0)" in effect.summary
    assert fault.absent().shown


@pytest.mark.cell
def test_where_the_holder_is_killed_packets_pass_and_it_is_neither_proved_nor_started_again(world: Callable[..., World], reach: Reach) -> None:
    fault = Latency.build({**LINK, "delay": "100ms"}, world("killed-holder"))
    fault.apply(60)
    assert fault.verify().shown
    assert isinstance(fault.rules, Held)
    fault.rules._holders["server-0"]._process.signal(signal.SIGKILL)
    fault.rules._holders["server-0"]._process.wait(20)
    assert max(medians(reach, fault)) < 0.05
    with pytest.raises(ResourceError):
        fault.apply(60)
    effect = fault.verify()
    assert not effect.shown
    assert effect.detail["gone"] == 1
    fault.heal()
    assert fault.absent().shown


@pytest.mark.cell
def test_what_passes_by_the_queue_makes_it_unproved(world: Callable[..., World], reach: Reach) -> None:
    fault = Latency.build({**LINK, "delay": "50ms"}, world("flooded"))
    fault.apply(60)
    assert isinstance(fault.rules, Held)
    holder = fault.rules._holders["server-0"]._process
    holder.signal(signal.SIGSTOP)
    flood = [*reach.own, "-c", FLOOD, reach.node("server-0").address or ""]
    assert reach.run("client-0", flood, where="netns").status == 0
    holder.signal(signal.SIGCONT)
    effect = fault.verify()
    fault.heal()
    assert not effect.shown
    assert effect.detail["missed"] > 0


@pytest.mark.cell
@pytest.mark.parametrize(("kind", "params"), [("latency", {**LINK, "delay": "80ms"}), ("bandwidth", {**LINK, "rate": "2 Mbit/s"})])
def test_it_ends_when_its_injector_is_killed(kind: str, params: dict[str, Any], world: Callable[..., World], reach: Any) -> None:
    fault: Fault = (Latency if kind == "latency" else Bandwidth).build(params, world("killed"))
    with subprocess.Popen([sys.executable, "-c", INJECTOR, str(reach.directory), kind, repr(params)], stdout=subprocess.PIPE, text=True) as injector:
        assert injector.stdout
        assert injector.stdout.readline() == "applied\n"
        injector.kill()
    if isinstance(fault, Latency):
        assert until(lambda: max(medians(reach, fault)) < 0.04, 30)
    else:
        assert until(lambda: not slow(fault), 30)
    assert not fault.absent().shown, "its rules are still there, and do nothing"
    fault.heal()
    assert fault.absent().shown


def slow(fault: Any) -> bool:
    return any(flow.bits_per_s < 3e6 for flow in fault._flows() if not flow.canary)


@pytest.mark.cell
def test_bandwidth_is_limited_both_ways_and_a_class_that_somebody_deletes_is_not_proved(world: Callable[..., World], reach: Reach) -> None:
    fault = Bandwidth.build({**LINK, "rate": "5 Mbit/s", "direction": "both"}, world("both"))
    assert {node.name for node in fault.probe().nodes} == {"client-0", "server-0"}
    fault.apply(60)
    effect = fault.verify()
    assert effect.shown, effect
    assert set(effect.detail["carried_bps"]) == {"client-0", "server-0"}
    tool = find("ip")
    reach.run("client-0", [str(tool.programs["tc"]), "qdisc", "del", "dev", "eth0", "root"], where="netns", env=dict(tool.env))
    assert not fault.verify().shown
    fault.heal()
    assert fault.absent().shown


@pytest.mark.cell
def test_two_limits_of_one_sender_to_different_peers_don_t_share(world: Callable[..., World]) -> None:
    slower = Bandwidth.build({**LINK, "rate": "2 Mbit/s"}, world("slower"))
    faster = Bandwidth.build({"from": "client", "to": "server-1", "rate": "8 Mbit/s"}, world("faster"))
    slower.apply(60)
    faster.apply(60)
    assert faster.verify().shown
    faster.heal()
    assert slower.verify().shown
    slower.heal()
    assert faster.absent().shown


@pytest.mark.cell
def test_where_the_kernel_can_t_queue_packets_the_probe_names_what_is_missing(
    world: Callable[..., World], reach: Reach, monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = type(reach).run

    def lacking(self: Any, node: str, argv: Any, **options: Any) -> Completed:
        return Completed(0, "None\n", "") if argv[-1] == "try" else run(self, node, argv, **options)

    monkeypatch.setattr(type(reach), "run", lacking)
    with pytest.raises(CapabilityError, match="CONFIG_NFT_QUEUE"):
        Corrupt.build({**LINK, "share": "5 %"}, world("lacking")).probe()


@pytest.mark.cell
def test_where_the_kernel_has_netem_latency_is_its_affair(world: Callable[..., World], reach: Reach, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command is right as far as a kernel without netem tells, which refuses the kind alone: its effect is verified only where there is one."""
    here = latency_module.disciplines(reach, reach.node("server-0"), "netem")["netem"]
    monkeypatch.setattr(latency_module, "disciplines", lambda *_: {"netem": True})
    fault = Latency.build({**LINK, "delay": "50ms", "jitter": "10ms"}, world("netem"))
    assert isinstance(fault.rules, Netem)
    assert fault.rules._leaf == "netem limit 100000 delay 50000us 10000us"
    fault.probe()
    if here:
        fault.apply(60)
        assert fault.verify().shown
    else:
        with pytest.raises(ResourceError, match="qdisc kind is unknown"):
            fault.apply(60)
        assert not fault.verify().shown
    fault.heal()
    assert fault.absent().shown


@pytest.mark.cell
def test_a_class_without_a_limit_of_its_own_passes_traffic_at_full_speed(world: Callable[..., World], reach: Reach) -> None:
    """The way to netem but for its last part."""
    limited = Bandwidth.build({**LINK, "rate": "10 Mbit/s"}, world("unlimited"))
    classes = Classes(world("unlimited"), limited.links, "rate", 100e9, "bfifo limit 10000000")
    classes.set(60)
    assert not slow(limited)
    (sent,) = classes.sent().values()
    assert sent[0] > 100_000
    classes.remove()
    assert limited.absent().shown


@pytest.mark.parametrize(("kind", "params", "wrong"), [
    (Latency, {"delay": "8s"}, "not between"),
    (Latency, {"delay": "20ms", "jitter": "30ms"}, "more than the delay"),
    (Reorder, {"share": "80 %", "by": "20ms"}, "too much"),
    (Corrupt, {"share": "0.01 %"}, "can't be told from none"),
    (Bandwidth, {"rate": "900 Mbit/s"}, "not between"),
])
def test_what_can_t_be_shown_is_refused(kind: Any, params: dict[str, str], wrong: str, world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match=wrong):
        kind.build({**LINK, **params}, world("refused"))
