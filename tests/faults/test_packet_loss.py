"""Packet loss in real network namespaces, with real rules."""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.errors import ResourceError, UsageError
from envctl.faults.base import World
from envctl.faults.packet_loss import PacketLoss
from envctl.faults.statistics import binomial_p_value
from envctl.faults.targets import ratio
from envctl.substrates.base import Reach
from envctl.toolchain import find

LINK = {"from": "client", "to": "server", "loss": "30 %"}


def nft(reach: Reach, node: str, *words: str) -> str:
    tool = find("nft")
    done = reach.run(node, [str(tool.programs["nft"]), *words], where="netns", env=dict(tool.env))
    assert done.status == 0, done.stderr
    return done.stdout


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.data())
def test_the_p_value_is_that_of_the_exact_test(trials: int, probability: float, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    masses = [comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(trials + 1)]
    exact = sum(mass for mass in masses if mass <= masses[hits] * (1 + 1e-7))
    assert binomial_p_value(hits, trials, probability) == pytest.approx(min(1.0, exact), rel=1e-5, abs=1e-12)


def test_no_packets_prove_nothing() -> None:
    assert binomial_p_value(0, 0, 0.3) == 0.0


@pytest.mark.parametrize("wrong", ["120 %", "-1 %", "a lot", 1.5])
def test_a_share_outside_of_all_and_nothing_is_refused(wrong: str | float) -> None:
    with pytest.raises(UsageError):
        ratio(wrong)


@pytest.mark.cell
def test_it_acts_is_measured_spares_others_and_goes(world: Callable[..., World], reach: Reach) -> None:
    fault = PacketLoss.build(LINK, world())
    assert fault.probe().summary == "client → server 30 %"
    assert {node.name for node in fault.probe().nodes} == {"server-0", "server-1"}
    assert nft(reach, "server-0", "list", "tables") == ""
    fault.apply(20)
    effect = fault.verify()
    assert effect.shown, effect
    assert effect.detail["canary_sent"] > 0
    assert effect.detail["canary_lost"] == 0
    assert 0.2 < effect.detail["probes_lost"] / effect.detail["probes_sent"] < 0.4
    fault.heal()
    fault.heal()
    assert fault.absent().shown
    assert nft(reach, "server-1", "list", "tables") == ""


@pytest.mark.cell
def test_a_rule_that_somebody_deletes_is_not_proved_and_not_made_again(world: Callable[..., World], reach: Reach) -> None:
    fault = PacketLoss.build(LINK, world("deleted"))
    fault.apply(20)
    for node in ("server-0", "server-1"):
        nft(reach, node, "delete", "table", "inet", "envctl_loss_deleted")
    with pytest.raises(ResourceError):
        fault.apply(20)
    assert not fault.verify().shown
    fault.heal()
    assert fault.absent().shown


@pytest.mark.cell
def test_one_link_without_its_rule_is_enough_to_be_unproved(world: Callable[..., World], reach: Reach) -> None:
    fault = PacketLoss.build(LINK, world("half"))
    fault.apply(20)
    nft(reach, "server-1", "delete", "table", "inet", "envctl_loss_half")
    assert not fault.verify().shown
    fault.heal()


@pytest.mark.cell
def test_the_reverse_direction_loses_at_the_other_end(world: Callable[..., World], reach: Reach) -> None:
    fault = PacketLoss.build({**LINK, "to": "server-0", "direction": "reverse"}, world("reverse"))
    fault.apply(20)
    assert "envctl_loss_reverse" in nft(reach, "client-0", "list", "tables")
    assert nft(reach, "server-0", "list", "tables") == ""
    assert fault.verify().shown
    fault.heal()


@pytest.mark.cell
def test_two_at_once_on_one_link_both_heal(world: Callable[..., World]) -> None:
    first, second = PacketLoss.build(LINK, world("one")), PacketLoss.build({**LINK, "from": "other"}, world("two"))
    first.apply(20)
    second.apply(20)
    assert first.verify().shown
    first.heal()
    assert second.verify().shown
    second.heal()
    assert first.absent().shown


@pytest.mark.cell
def test_a_target_that_is_not_there_is_refused_with_the_known_ones(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError) as refused:
        PacketLoss.build({**LINK, "to": "nobody"}, world("missing")).probe()
    assert "client" in refused.value.hint


def test_a_loss_too_rare_to_be_shown_is_refused(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match="can't be told from none"):
        PacketLoss.build({**LINK, "loss": "0.004 %"}, world("rare"))


@pytest.mark.cell
def test_a_small_loss_that_drops_nothing_is_not_proved(world: Callable[..., World], reach: Reach) -> None:
    fault = PacketLoss.build({**LINK, "to": "server-0", "loss": "1 %"}, world("small"))
    fault.apply(30)
    assert fault.verify().shown
    chain = nft(reach, "server-0", "--handle", "list", "chain", "inet", "envctl_loss_small", "arriving")
    handle = next(line.rpartition(" ")[2] for line in chain.splitlines() if "drop" in line and "handle" in line)
    nft(reach, "server-0", "delete", "rule", "inet", "envctl_loss_small", "arriving", "handle", handle)
    assert not fault.verify().shown
    fault.heal()
    assert fault.absent().shown


@pytest.mark.cell
def test_a_node_that_is_at_both_ends_loses_nothing_of_its_own(world: Callable[..., World], reach: Reach) -> None:
    fault = PacketLoss.build({"from": "server", "to": "server", "loss": "50 %"}, world("inner"))
    assert {node.name for node in fault.probe().nodes} == {"server-0", "server-1"}
    fault.apply(30)
    for name, peer in (("server-0", "server-1"), ("server-1", "server-0")):
        rules = nft(reach, name, "list", "table", "inet", "envctl_loss_inner")
        assert reach.node(name).address not in rules
        assert reach.node(peer).address in rules
        assert 'iifname != "lo"' in rules
    assert fault.verify().shown
    fault.heal()
    assert fault.absent().shown


@pytest.mark.cell
def test_a_link_from_a_node_to_itself_alone_is_refused(world: Callable[..., World]) -> None:
    with pytest.raises(UsageError, match="no link"):
        PacketLoss.build({"from": "client", "to": "client-0", "loss": "50 %"}, world("itself")).probe()
