"""Partitions in real network namespaces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from held import world_of

from envctl.errors import UsageError
from envctl.faults.base import World
from envctl.faults.links import Link
from envctl.faults.partition import Partition
from envctl.faults.probes import measure
from envctl.substrates.base import Reach
from envctl.toolchain import find

pytestmark = pytest.mark.cell


def heard(reach: Reach, sender: str, receiver: str) -> bool:
    measured = measure(world_of(reach, Path("/nowhere/probing")), [Link(reach.node(receiver), (reach.node(sender),))], 20)[0]
    assert measured.lost in (0, 20)
    return not measured.lost


def test_a_link_may_be_cut_one_way_or_both(world: Callable[..., World], reach: Reach) -> None:
    for direction, there, back in (("forward", False, True), ("reverse", True, False), ("both", False, False)):
        fault = Partition.build({"from": "client", "to": "server-0", "direction": direction}, world())
        fault.apply(60)
        assert (heard(reach, "client-0", "server-0"), heard(reach, "server-0", "client-0")) == (there, back)
        assert heard(reach, "client-0", "server-1")
        effect = fault.verify()
        assert effect.shown, effect
        assert (effect.detail["other_way_sent"] > 0) == (direction != "both")
        fault.heal()


def test_an_isolated_node_hears_nobody_and_nobody_hears_it_but_telemetry(world: Callable[..., World], reach: Reach) -> None:
    fault = Partition.build({"isolate": "server", "pick": 1}, world())
    blast = fault.probe()
    (name,) = (node.name for node in blast.nodes)
    assert blast.summary == f"{name} cut off from all others"
    fault.apply(60)
    for other in ("client-0", "other-0", "trio-1", {"server-0": "server-1", "server-1": "server-0"}[name]):
        assert not heard(reach, other, name)
        assert not heard(reach, name, other)
    assert heard(reach, "client-0", "other-0")
    assert fault.verify().shown
    fault.heal()
    assert fault.absent().shown


def test_a_minority_is_cut_off_from_its_majority_and_heard_by_everybody_else(world: Callable[..., World], reach: Reach) -> None:
    fault = Partition.build({"split": "trio"}, world())
    (minority,) = (node.name for node in fault.probe().nodes)
    first, second = (f"trio-{number}" for number in range(3) if f"trio-{number}" != minority)
    fault.apply(60)
    for other in (first, second):
        assert not heard(reach, minority, other)
        assert not heard(reach, other, minority)
    assert heard(reach, first, second)
    assert heard(reach, "client-0", minority)
    fault.heal()


@pytest.mark.parametrize(("params", "words"), [
    ({"split": "server"}, "can't be a minority"),
    ({"split": "trio", "minority": 2}, "can't be a minority"),
    ({"isolate": "server", "pick": 3}, "asked to pick 3 of 2"),
    ({"from": "client", "to": "client-0"}, "no link"),
])
def test_what_is_no_partition_is_refused(world: Callable[..., World], params: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Partition.build(params, world()).probe()


def test_one_rule_that_lets_something_through_is_enough_to_be_unproved(world: Callable[..., World], reach: Reach) -> None:
    fault = Partition.build({"isolate": "server-0"}, world("leak"))
    fault.apply(60)
    tool = find("nft")
    argv = [str(tool.programs["nft"]), "delete", "table", "inet", "envctl_cut_leak"]
    assert reach.run("trio-1", argv, where="netns", env=dict(tool.env)).status == 0
    effect = fault.verify()
    assert not effect.shown
    assert "got through" in effect.summary
    fault.heal()
