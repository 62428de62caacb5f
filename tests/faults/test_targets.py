"""What is done at every node of a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from held import HELD, NODES, traces, world_of

from envctl import plugins
from envctl.errors import ResourceError
from envctl.faults.base import Fault, World
from envctl.faults.targets import aimed_at, all_of, at_each, nodes_named
from envctl.faults.time_skew import TimeSkew
from envctl.model import environment as model
from envctl.substrates.base import Reach


class Node:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize("at_once", [False, True])
def test_what_is_refused_at_some_nodes_is_done_at_the_others_and_every_refusal_is_told(at_once: bool) -> None:
    done = []

    def do(node: Node) -> None:
        if node.name != "b-0":
            raise ResourceError(f"{node.name} is away" if node.name == "a-0" else "no answer")
        done.append(node.name)

    with pytest.raises(ResourceError, match=r"^a-0 is away; c-0: no answer$"):
        at_each([Node("a-0"), Node("b-0"), Node("c-0")], do, at_once=at_once)
    assert done == ["b-0"]


def test_what_alone_was_refused_is_raised_as_it_was() -> None:
    def refuse() -> None:
        raise ProcessLookupError(3)

    with pytest.raises(ProcessLookupError):
        all_of([("", refuse), ("", lambda: None)])


class Refusing:
    """A reach that does nothing at one node."""

    def __init__(self, reach: Reach) -> None:
        self._reach, self.refused = reach, ""

    def __getattr__(self, name: str) -> Any:
        def told(node: Any, *args: Any, **options: Any) -> Any:
            if node == self.refused:
                raise ResourceError(f"{node} can't be reached")
            return getattr(self._reach, name)(node, *args, **options)

        return told if name in ("run", "node", "release", "resume", "unlimit") else getattr(self._reach, name)


def test_the_same_seed_picks_the_same_nodes_in_whatever_order_they_were_started(tmp_path: Path) -> None:
    def picked(*names: str) -> list[str]:
        nodes = [model.Node(name, "web", "service", "a", "", "ready", 1, 0.0, 1, None) for name in names]
        reach: Any = SimpleNamespace(environment=lambda: SimpleNamespace(nodes=nodes))
        assert [node.name for node in nodes_named(world_of(reach, tmp_path), "web")] == ["web-0", "web-1", "web-2", "web-10"]
        return [node.name for node in aimed_at(world_of(reach, tmp_path), {"zone": "a", "pick": 2})]

    assert picked("web-0", "web-1", "web-2", "web-10") == picked("web-2", "web-10", "web-0", "web-1")


@pytest.mark.cell
@pytest.mark.parametrize("kind", ["packet-loss", "dns-failure", "node-pause", "memory-pressure", "time-skew", "zone-outage"])
def test_where_one_node_refuses_the_others_are_renewed_and_healed_all_the_same(kind: str, world: Callable[..., World], reach: Reach) -> None:
    refusing, before = Refusing(reach), traces(reach)
    params = {"time-skew": {"target": "server", "jump": "+1h"}, "zone-outage": {"zone": "b"}}.get(kind) or HELD[kind]
    fault: Fault = plugins.load("envctl.faults", kind).build(params, replace(world(), reach=refusing))
    fault.probe()
    fault.apply(60)
    first = "client-0" if kind == "zone-outage" else "server-0"
    refusing.refused = first
    with pytest.raises(ResourceError, match=f"{first} can't be reached"):
        fault.apply(60)
    with pytest.raises(ResourceError, match=f"{first} can't be reached"):
        fault.heal()
    ready = [node for node in NODES if node != first]
    for node in ready:
        reach.wait_ready(node, 20)
    assert [left for left in traces(reach) if left[0] in ready] == [was for was in before if was[0] in ready]
    if isinstance(fault, TimeSkew):
        main = reach.node("server-1").pid
        assert main is not None
        assert not fault._look(main)["skewed"]
    refusing.refused = ""
    fault.heal()
    assert fault.absent().shown
    assert traces(reach) == before
