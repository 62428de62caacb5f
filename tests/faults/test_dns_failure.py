"""Names that can't be looked up, in real network namespaces."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from envctl.errors import DeadlineError
from envctl.faults.base import World
from envctl.faults.dns_failure import DnsFailure
from envctl.substrates.base import Reach
from envctl.toolchain import find

pytestmark = pytest.mark.cell


def test_lookups_that_hang_are_told_from_those_that_fail(world: Callable[..., World], reach: Reach) -> None:
    asks = ["getent", "ahostsv4", "other-0"]
    fault = DnsFailure.build({"target": "server-0", "lookups": "hang"}, world("hang"))
    fault.apply(60)
    with pytest.raises(DeadlineError):
        reach.run("server-0", asks, timeout_s=1)
    effect = fault.verify()
    assert effect.shown, effect
    assert effect.detail["canary_sent"] == 2
    fault.heal()
    assert fault.absent().shown
    fault = DnsFailure.build({"target": "server-0"}, world("fail"))
    fault.apply(60)
    assert reach.run("server-0", asks, timeout_s=20).status
    assert not reach.run("server-1", asks).status
    assert not reach.run("server-0", ["getent", "hosts", "localhost"]).status, "its own hosts file is as it was"
    fault.heal()


def test_a_rule_that_somebody_removed_is_noticed(world: Callable[..., World], reach: Reach) -> None:
    fault = DnsFailure.build({"target": "server"}, world("gone"))
    fault.apply(60)
    tool = find("nft")
    argv = [str(tool.programs["nft"]), "delete", "table", "inet", "envctl_dns_gone"]
    assert reach.run("server-1", argv, where="netns", env=dict(tool.env)).status == 0
    effect = fault.verify()
    assert not effect.shown
    assert effect.summary == "1 of 2 look-ups failed; 1 rules counted nothing"
    fault.heal()
