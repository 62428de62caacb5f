"""Snapshots are kept under everything that decides what they hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from envctl.engines.base import Site
from envctl.engines.postgres import PostgresEngine
from envctl.errors import UsageError
from envctl.model.plan import Plan, Selection
from envctl.model.seed import Seed, TableLoad
from envctl.model.topology import Postgres, Service, Source, Topology
from envctl.seeding.snapshots import key_of
from envctl.toolchain import find

DB = Postgres(name="db", version="15", databases=("shop",))
TOPOLOGY = Topology("t", Path("/t/topology.yaml"), ("a",), {"db": DB, "api": Service(name="api", source=Source("tree", "api"), command=("run",))})
SELECTED = (Selection("db", "full"), Selection("api", "full"))
PLAN = Plan("e", Path("/t"), TOPOLOGY, "embedded", SELECTED, (), (), 60.0, {}, {"db": "migrations", "api": "source"}, "digest")
SEED = Seed("s", Path("seed.yaml"), (TableLoad("db", "shop", "products", Path("p.csv"), 2, "0" * 64, 1),))
VERSIONS = {"db": "15.14", "api": ""}


def test_a_snapshot_is_of_one_version_of_the_engine_one_schema_and_one_seed() -> None:
    key = key_of(PLAN, SEED, VERSIONS)
    keys = {
        key,
        key_of(PLAN, SEED, VERSIONS | {"db": "16.2"}),
        key_of(PLAN, SEED, VERSIONS | {"db": "15.15"}),
        key_of(replace(PLAN, source_digests={"db": "another migration", "api": "source"}), SEED, VERSIONS),
        key_of(PLAN, replace(SEED, loads=(replace(SEED.loads[0], rows=3),)), VERSIONS),  # type: ignore[type-var]
    }
    assert len(keys) == 5
    changed_service = replace(PLAN, source_digests={"db": "migrations", "api": "changed"})
    assert key_of(changed_service, SEED, VERSIONS | {"api": "3"}) == key, "a service is no part of the data"


@pytest.mark.engines
def test_kept_data_of_another_major_version_is_refused_before_anything_starts(tmp_path: Path) -> None:
    topology = replace(TOPOLOGY, components={"db": DB}, file=tmp_path / "topology.yaml")
    kept = tmp_path / "snapshots" / "key" / "db-0" / "pg"
    kept.mkdir(parents=True)
    site = Site(topology, "e", ("db",), (), tmp_path, seed_key="key")
    major = find("postgres", "15").version.partition(".")[0]
    (kept / "PG_VERSION").write_text(f"{major}\n")
    assert PostgresEngine().realise(DB, site).nodes[0].data == kept.parent
    (kept / "PG_VERSION").write_text("14\n")
    with pytest.raises(UsageError, match=r"db-0 would start PostgreSQL 15\.\d+ with seeded data of PostgreSQL 14") as refused:
        PostgresEngine().realise(DB, site)
    assert "envctl down" in refused.value.hint
