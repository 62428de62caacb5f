"""The same failover where nodes are containers, whose start makes their data and asks their peers by name."""

from __future__ import annotations

import random
import signal
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.postgres import PostgresEngine
from envctl.engines.postgres_start import asked
from envctl.faults.base import World
from envctl.faults.database_failover import DatabaseFailover
from envctl.model.topology import Postgres, Topology
from envctl.substrates.base import Reach
from envctl.substrates.docker import Docker
from envctl.waiting import until

pytestmark = [pytest.mark.engines, pytest.mark.docker, pytest.mark.slow]

DB = Postgres(name="db", version="15", standbys=1)
TOPOLOGY = Topology("t", Path("t.yaml"), ("a", "b"), {"db": DB})


@pytest.fixture
def reach(docker_images: Callable[..., None], tmp_path: Path) -> Iterator[Reach]:
    docker_images("python:3.11-slim-bookworm", "postgres:15")
    env_id = f"t-{uuid.uuid4().hex[:8]}"
    realiser: Any = Docker.realiser(tmp_path / "envs" / env_id)
    try:
        realiser.create_environment(env_id, ttl_s=300, labels={})
        nodes = PostgresEngine().realise(DB, Site(TOPOLOGY, env_id, ("db",), (), tmp_path / "cache", packaging="images")).nodes
        with ThreadPoolExecutor(len(nodes)) as pool:
            list(pool.map(lambda node: realiser.start_node(node, ready_timeout_s=120), nodes))
        yield Docker.attach(tmp_path / "envs" / env_id)
    finally:
        realiser.end_environment()


def test_the_old_primary_follows_whether_it_is_healed_or_its_lease_ends(reach: Reach, tmp_path: Path) -> None:
    healed = DatabaseFailover.build({"target": "db"}, World(reach, TOPOLOGY, random.Random(1), tmp_path / "healed"))
    healed.probe()
    healed.apply(60)
    effect = healed.verify()
    assert effect.shown, effect
    assert not healed.absent().shown
    healed.heal()
    absent = healed.absent()
    assert absent.shown, absent
    assert (recovers(reach, "db-0"), recovers(reach, "db-1")) == ("t", "f")

    left = DatabaseFailover.build({"target": "db"}, World(reach, TOPOLOGY, random.Random(1), tmp_path / "left"))
    assert [node.name for node in left.probe().nodes] == ["db-1"]
    left.apply(15)
    assert reach.node("db-1").exit_status == 128 + signal.SIGKILL
    assert until(lambda: left.absent().shown, 90)
    assert (recovers(reach, "db-0"), recovers(reach, "db-1")) == ("f", "t")


def recovers(reach: Reach, node: str) -> str:
    return reach.run(node, asked("select pg_is_in_recovery()")).stdout.strip()
