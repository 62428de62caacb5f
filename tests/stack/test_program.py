from __future__ import annotations

import runpy
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stack_bench import Bench

from envctl.model.environment import Mount, Node, NodeSpec
from envctl.model.topology import Probe, Resources
from envctl.stack import engine
from envctl.stack_provider.encoding import spec_from_json, spec_to_json
from envctl.stack_provider.provider import EnvctlProvider
from envctl.toolchain import lookup

texts = st.text(max_size=8)
numbers = st.integers(1, 65535)
probes = st.builds(Probe, st.sampled_from(["http", "tcp", "exec"]), numbers, texts, st.lists(texts, max_size=2).map(tuple))
paths = st.sampled_from([Path("/usr"), Path("/a b/ü")])
specs = st.builds(
    NodeSpec, name=texts, component=texts, kind=texts, zone=texts, command=st.lists(texts, max_size=3).map(tuple), digest=texts,
    env=st.dictionaries(texts, texts, max_size=3), mounts=st.lists(st.builds(Mount, paths, texts, st.booleans()), max_size=2).map(tuple),
    data=st.none() | paths, ports=st.dictionaries(texts, numbers, max_size=2), ready=st.none() | probes, one_shot=st.booleans(),
    stop_grace_s=st.floats(0, 60), resources=st.builds(Resources, st.none() | st.floats(0.1, 8), st.none() | numbers),
)


@given(specs)
def test_a_node_spec_survives_the_way_through_the_state(spec: NodeSpec) -> None:
    assert spec_from_json(spec_to_json(spec)) == spec


def test_a_program_without_a_plan_deploys_the_whole_topology_beside_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a plain `pulumi up` with a Python language host does."""
    stack = bench.plan.topology.directory
    (stack / "svc").mkdir()
    service = "{kind: service, source: svc, command: [sleep, '600'], ports: {http: 8080}}"
    (stack / "topology.yaml").write_text(f"envctl: topology/v1\nname: shop\nzones: [a]\ncomponents:\n  one: {service}\n  two: {service}\n")
    subprocess.run(["git", "init", "-q"], cwd=bench.root, check=True)
    monkeypatch.chdir(stack)

    def program() -> None:
        runpy.run_path(str(stack / "__main__.py"), run_name="__main__")

    provider = EnvctlProvider(bench.ground)
    pulumi = lookup.find("pulumi").programs["pulumi"]
    engine.update(pulumi, bench.state, provider, program, cwd=stack, cache=bench.ground.cache)
    assert sorted(provider.tally.started) == ["one-0", "two-0"]
    assert bench.world.environment().stack == "shop"


def test_needs_in_a_circle_are_an_error_and_nothing_is_started(bench: Bench) -> None:
    from stack_bench import node

    from envctl.engines.base import Realisation
    from envctl.errors import ResourceError

    circle = [Realisation("a", ("b",), (node("a-0"),)), Realisation("b", ("a",), (node("b-0"),))]
    with pytest.raises(ResourceError, match="components need each other in a circle: a, b"):
        bench.up(circle)
    assert bench.world.environment().nodes == ()


def test_a_node_that_ends_again_and_again_is_told_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node("web-0", "web", "service", "a", "198.18.1.1", "backoff", None, 1.0, 1, 3)

    class Reach:
        lives = iter((1, 2, 3, 3, 7))

        def node(self, name: str) -> Node:
            assert name == "web-0"
            return replace(node, starts=next(self.lives))

        def log(self, name: str, *, tail: int) -> Iterator[str]:
            return iter([f"no configuration for {name}"] * tail)

    said: list[str] = []
    over, reach = threading.Event(), Reach()

    def tell(text: str) -> None:
        said.append(text)
        if "7" in text:
            over.set()

    provider = EnvctlProvider(progress=tell)
    monkeypatch.setattr("envctl.stack_provider.provider._LOOK_S", 0.01)
    monkeypatch.setattr(provider, "_reach", lambda _: reach)
    provider._tell_ends({}, "web-0", over)
    assert said == [f"web-0 ends again and again (exit 3, {starts} starts): no configuration for web-0" for starts in (3, 7)]
