"""A stub in a cell that fails on purpose, while it is called."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.program import stub_realisation
from envctl.errors import ResourceError, UsageError
from envctl.faults.base import World
from envctl.faults.failing_dependency import WAYS, FailingDependency
from envctl.model.topology import Service, Source, Topology
from envctl.substrates.base import Reach
from envctl.waiting import until

pytestmark = pytest.mark.cell

EXAMPLES = "envctl: examples/v1\nhttp:\n  - {request: {path: /price}, response: {body: {price: 5}}}\n"
CALL = """
import http.client, itertools, sys
for number in itertools.count():
    link = http.client.HTTPConnection("pricing", 8080, timeout=0.05)
    try:
        link.request("GET", "/price")
        status = link.getresponse().status
    except OSError as error:
        status = type(error).__name__
    print(status, flush=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _stub(realiser: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    place = tmp_path_factory.mktemp("stack")
    (place / "examples.yaml").write_text(EXAMPLES)
    pricing = Service(name="pricing", source=Source("tree", "."), command=("none",), ports={"http": 8080}, stub="examples.yaml")
    site = Site(Topology("t", place / "topology.yaml", ("a",), {"pricing": pricing}), "faults", (), ("pricing",), place / "cache")
    realiser.start_node(stub_realisation(pricing, site).nodes[0], ready_timeout_s=30)


@contextmanager
def called(reach: Reach) -> Iterator[None]:
    null = os.open(os.devnull, os.O_RDWR)
    process = reach.popen(None, [*reach.own, "-c", CALL], stdin=null, stdout=null, stderr=null)
    os.close(null)
    try:
        yield
    finally:
        process.signal(signal.SIGKILL)


@pytest.mark.parametrize("how", WAYS)
def test_it_acts_is_counted_by_the_stub_itself_and_goes(world: Callable[..., World], reach: Reach, how: str) -> None:
    fault = FailingDependency.build({"stub": "pricing", "how": how, "share": "50 %"}, world())
    blast = fault.probe()
    assert (blast.summary, [node.name for node in blast.nodes]) == (f"pricing fails with {how}, 50 %", ["pricing-0"])
    with called(reach):
        assert not fault.verify().shown
        fault.apply(60)
        effect = fault.verify()
        assert effect.shown, effect
        assert effect.detail["asked"] >= 20
        assert not fault.absent().shown
        with pytest.raises(UsageError, match="fails already"):
            FailingDependency.build({"stub": "pricing", "how": "errors"}, world("other")).probe()
        fault.heal()
        fault.heal()
        assert fault.absent().shown
        fault.apply(1)
        assert until(lambda: fault.absent().shown, 20), "the lease ends it when nobody does"


def test_without_a_call_it_is_not_shown(world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envctl.faults.failing_dependency.OBSERVE_S", 0.5)
    fault = FailingDependency.build({"stub": "pricing", "how": "errors"}, world())
    fault.apply(60)
    assert not fault.verify().shown
    fault.heal()


def test_a_stub_that_is_started_again_fails_anew_with_the_next_renewal(world: Callable[..., World], reach: Reach) -> None:
    fault = FailingDependency.build({"stub": "pricing", "how": "errors"}, world())
    fault.apply(60)
    starts = reach.node("pricing-0").starts
    reach.signal("pricing-0", signal.SIGKILL)
    assert until(lambda: reach.node("pricing-0").starts > starts, 20)
    reach.wait_ready("pricing-0", 30)
    fault.apply(60)
    with called(reach):
        assert fault.verify().shown
    fault.heal()
    assert fault.absent().shown


def test_what_is_no_stub_is_refused(world: Callable[..., World]) -> None:
    with pytest.raises(ResourceError, match="client-0 can't be told to fail: no stub listens here"):
        FailingDependency.build({"stub": "client", "how": "errors"}, world()).probe()
    with pytest.raises(UsageError, match="healthy"):
        FailingDependency.build({"stub": "pricing", "how": "errors", "share": "0 %"}, world())
