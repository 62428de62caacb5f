"""A seed for an environment that holds another one is refused before anything is brought up or changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "stack"))

from stack_bench import Bench, make_bench

from envctl import plugins, session
from envctl.errors import ResourceError, UsageError
from envctl.model.project import Project
from envctl.model.seed import Seed, TableLoad
from envctl.seeding import check_mixing
from envctl.seeding.files import digest
from envctl.seeding.seeds import BEGUN, MARKER, load_seed_into


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


LEFT = '{"loaded": {"tables": {"db/shop.products": {"rows": %d, "checksum": 0}}, "topics": {}}}'


class Loader:
    """A reach whose loader says what it is told to."""

    own = (sys.executable,)

    def __init__(self, bench: Bench) -> None:
        self.environment = bench.world.environment
        self.says: dict[bool, str] = {}  # whether it only verifies → its lines

    def popen(self, _node: None, argv: list[str], *, stdout: int, **_: Any) -> SimpleNamespace:
        code = "import sys; said = sys.argv[1]; print(said); sys.exit(0 if 'loaded' in said else 129)"
        process = subprocess.Popen([sys.executable, "-c", code, self.says["--verify" in argv]], stdout=stdout)
        return SimpleNamespace(wait=process.wait, signal=process.send_signal, note="")


@pytest.fixture
def loads(bench: Bench) -> Loader:
    return Loader(bench)


def load(bench: Bench, loader: Any, name: str = "small") -> str:
    return load_seed_into(loader, bench.plan.topology, Seed(name, Path(f"{name}.yaml"), ()), (), print).source


def test_what_a_lost_loader_may_have_left_is_looked_for_before_the_same_seed_is_loaded_again(bench: Bench, loads: Loader) -> None:
    loads.says = {False: "{}", True: LEFT % 2}
    with pytest.raises(ResourceError, match="129"):
        load(bench, loads)
    loads.says[False] = LEFT % 2
    with pytest.raises(UsageError, match="may hold data of the seed small") as refused:
        load(bench, loads)
    assert "envctl down" in refused.value.hint
    loads.says[True] = LEFT % 0
    assert load(bench, loads) == "loaded"
    assert bench.ground.notebook(bench.world.directory).read(BEGUN) is None


@pytest.mark.parametrize("taken_back", [False, True])
def test_another_seed_than_that_of_a_lost_loader_is_refused_unless_that_said_that_nothing_is_left(bench: Bench, loads: Loader, taken_back: bool) -> None:
    loads.says = {False: '{"taken_back": true}' if taken_back else "{}"}
    with pytest.raises(ResourceError):
        load(bench, loads)
    other = seed("big")
    if taken_back:
        assert check_mixing(bench.world.environment(), other) is None
    else:
        with pytest.raises(UsageError, match="may hold data of the seed small"):
            check_mixing(bench.world.environment(), other)
