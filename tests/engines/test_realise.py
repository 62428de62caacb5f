from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envctl.engines.base import Site
from envctl.engines.realise import in_order, realise_all
from envctl.errors import SpecError
from envctl.model.topology import Redis, Service, Source, Topology

MakeSite = Callable[..., Site]


def topology(needs: dict[str, tuple[str, ...]]) -> Topology:
    parts = {name: Redis(name=name, version="7", needs=needed, line=5) for name, needed in needs.items()}
    return Topology("test", Path("topology.yaml"), (), parts)


@given(st.integers(1, 9).flatmap(lambda size: st.permutations(range(size))), st.data())
def test_what_a_component_needs_stands_before_it(order: list[int], data: st.DataObject) -> None:
    needs = {
        str(number): tuple(str(earlier) for earlier in order[:place] if data.draw(st.booleans()))
        for place, number in enumerate(order)
    }
    names = data.draw(st.permutations(sorted(needs)))
    wanted = [name for name in names if data.draw(st.booleans())]
    found = in_order(topology(needs), wanted)
    assert sorted(found) == sorted(wanted)
    for place, name in enumerate(found):
        assert not set(needs[name]) & set(found[place:])


def test_a_circle_is_shown_as_one() -> None:
    with pytest.raises(SpecError, match=r"topology.yaml:5: components.a.needs: a circle: a → b → a"):
        in_order(topology({"x": ("a",), "a": ("b",), "b": ("a",)}), ["x", "a", "b"])


def test_nothing_is_prepared_before_all_references_are_right(site: MakeSite, stack: Path, cache: Path) -> None:
    (stack / "web").mkdir()
    web = Service(name="web", source=Source("tree", "web"), command=("x",), env={"A": "${nobody.url}"})
    one = site(web)
    with pytest.raises(SpecError, match="no component 'nobody'"):
        realise_all(one.topology, ("web",), (), one)
    assert not cache.exists()


def test_a_node_starts_from_its_snapshot_of_the_seed_where_there_is_one(site: MakeSite, cache: Path) -> None:
    snapshot = cache / "snapshots" / "key" / "db-0"
    snapshot.mkdir(parents=True)
    seeded, empty = site(seed_key="key"), site()
    assert seeded.data("db-0", cache / "prepared") == snapshot
    assert seeded.data("db-1", cache / "prepared") == cache / "prepared"
    assert empty.data("db-0", cache / "prepared") == cache / "prepared"
