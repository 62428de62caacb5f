"""A seed for an environment that holds another one is refused before anything is brought up or changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent / "stack"))

from stack_bench import Bench, make_bench

from envctl import plugins, session
from envctl.errors import UsageError
from envctl.model.project import Project
from envctl.model.seed import Seed, TableLoad
from envctl.seeding import check_mixing
from envctl.seeding.files import digest
from envctl.seeding.seeds import MARKER


def seed(name: str, rows: int = 1) -> Seed:
    return Seed(name, Path("seed.yaml"), (TableLoad("db", "shop", "products", Path("products.csv"), rows, "0" * 64, 1),))


class Quiet:
    def step(self, _: str) -> nullcontext[SimpleNamespace]:
        return nullcontext(SimpleNamespace(update=print, note=print, done=lambda *_, **__: None))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    making = make_bench(tmp_path, monkeypatch)
    bench = next(making)
    bench.up()
    monkeypatch.setattr(plugins, "load", lambda *_: bench.ground)
    yield bench
    next(making, None)


def hold(bench: Bench, held: Seed, snapshot: str = "") -> None:
    """What is noted when a seed has been loaded."""
    nodes = {node.name: node.digest for node in bench.world.environment().nodes if node.component == "db"}
    held_as = {"seed": held.name, "digest": digest(held), "found": {}, "snapshot": snapshot, "nodes": nodes}
    bench.ground.notebook(bench.world.directory).write(MARKER, json.dumps(held_as))


@pytest.mark.parametrize("wanted", ["big", "small, but changed"])
def test_a_run_with_another_seed_touches_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    hold(bench, seed("small"))
    asked = seed("big") if wanted == "big" else seed("small", rows=2)
    scenario = SimpleNamespace(seed=asked.name)
    monkeypatch.setattr(session, "make_plan", lambda *_: (bench.plan, scenario))
    monkeypatch.setattr(session, "seed_named", lambda *_: asked)
    before = bench.world.journal()
    for keep in (True, False):
        with pytest.raises(UsageError, match=r"shop-main-1 holds the seed small.*seeds don't mix") as refused:
            session.ci(Project(bench.root, bench.root), Path(), session.Asked(keep=keep), Quiet(), session.Interrupts())
        assert "envctl down" in refused.value.hint
    assert bench.world.journal() == before


def test_the_same_seed_is_already_there_and_a_dead_environment_holds_none(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    hold(bench, seed("small"))
    assert (check_mixing(bench.world.environment(), seed("small")) or {})["seed"] == "small"
    bench.world.die()
    monkeypatch.setattr(session, "seed_named", lambda *_: seed("big"))
    session.check_seed(Project(bench.root, bench.root), bench.plan, "big")


def test_a_seed_whose_database_was_replaced_is_lost_unless_it_came_from_a_snapshot(bench: Bench) -> None:
    hold(bench, seed("small"))
    environment = bench.world.environment()
    nodes = tuple(replace(node, digest="other") if node.name == "db-0" else node for node in environment.nodes)
    replaced = replace(environment, nodes=nodes)
    with pytest.raises(UsageError, match="has lost data of the seed small: db-0 was replaced"):
        check_mixing(replaced, seed("small"))
    hold(bench, seed("small"), snapshot="key")
    assert check_mixing(replaced, seed("small"))
