"""A real PostgreSQL with a standby whose primary is fenced, and comes back as a standby, whoever starts it again."""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.postgres import PostgresEngine
from envctl.engines.postgres_start import asked, succeeded_by
from envctl.errors import EnvctlError, UsageError
from envctl.faults.base import World
from envctl.faults.database_failover import OPENED, DatabaseFailover
from envctl.faults.partition import Partition
from envctl.model.environment import NodeSpec
from envctl.model.topology import Postgres, Topology
from envctl.substrates.base import Completed, Reach
from envctl.substrates.embedded import Embedded
from envctl.toolchain import find
from envctl.waiting import until

pytestmark = [pytest.mark.engines, pytest.mark.cell]

DB = Postgres(name="db", version=find("postgres").version.split(".")[0], standbys=1, databases=("orders",))
TOPOLOGY = Topology("t", Path("t.yaml"), ("a", "b"), {"db": DB, "alone": Postgres(name="alone", version="15")})
URL = PostgresEngine().endpoints(DB)["url"]


@pytest.fixture(scope="module")
def realiser() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="envctl-") as place:
        made = Embedded.realiser(Path(place, "envs", "failover"))
        try:
            made.create_environment("failover", ttl_s=300, labels={})
            servers = PostgresEngine().realise(DB, Site(TOPOLOGY, "env", ("db",), (), Path(place, "cache"))).nodes
            nodes = [*(replace(node, env={**node.env, "ENVCTL_PATIENCE_S": "4"}) for node in servers),
                     NodeSpec(name="other-0", component="other", kind="service", zone="a", command=("sleep", "600"), digest="1")]
            with ThreadPoolExecutor(len(nodes)) as pool:
                list(pool.map(lambda node: made.start_node(node, ready_timeout_s=60), nodes))
            yield made
        finally:
            made.end_environment()


@pytest.fixture
def reach(realiser: Any) -> Reach:
    found: Reach = realiser.reach
    return found


@pytest.fixture
def fault(reach: Reach, tmp_path: Path) -> Callable[[], DatabaseFailover]:
    return lambda: DatabaseFailover.build({"target": "db"}, World(reach, TOPOLOGY, random.Random(1), tmp_path / "fault"))


def sql(reach: Reach, node: str, query: str) -> str:
    try:
        return reach.run(node, asked(query)).stdout.strip()
    except EnvctlError:
        return ""


def primaries(reach: Reach) -> list[str]:
    return [name for name in ("db-0", "db-1") if sql(reach, name, "select pg_is_in_recovery()") == "f"]


def follows(reach: Reach, name: str) -> bool:
    return sql(reach, name, "select pg_is_in_recovery() and exists (select from pg_stat_wal_receiver where status = 'streaming')") == "t"


def client(reach: Reach, statement: str) -> str:
    """What a client of the component gets that names all nodes and wants the primary."""
    code = f"import psycopg; c = psycopg.connect({URL!r}, autocommit=True, connect_timeout=5).execute({statement!r}); print(c.fetchall() if c.description else c.rowcount)"
    with tempfile.TemporaryFile() as output:
        assert reach.popen(None, (sys.executable, "-c", code), stdout=output.fileno(), stderr=output.fileno()).wait(60) == 0, output.read()
        output.seek(0)
        return output.read().decode().strip()


def test_a_standby_takes_over_and_the_old_primary_follows_it(reach: Reach, fault: Callable[[], DatabaseFailover]) -> None:
    client(reach, "create table note (id int primary key)")
    client(reach, "insert into note select generate_series(1, 100)")
    first = fault()
    blast = first.probe()
    assert [node.name for node in blast.nodes] == ["db-0"]
    assert blast.summary == "db-0 (zone a) → db-1 (zone b)"
    assert primaries(reach) == ["db-0"], "a dry run changes nothing"
    assert not first.verify().shown, "it has not been applied yet"
    assert first.absent().shown

    first.apply(60)
    first.apply(60)
    effect = first.verify()
    assert effect.shown, effect
    assert (effect.detail["timeline_before"], effect.detail["timeline"]) == (1, 2)
    assert (effect.detail["canary_sent"], effect.detail["canary_lost"]) == (1, 0)
    assert not first.absent().shown
    assert client(reach, "select count(*) from note") == "[(100,)]", "clients find the new primary, and nothing is lost"

    first.heal()
    first.heal()
    gone = first.absent()
    assert gone.shown, gone
    assert gone.summary == "db-1 is primary, 1 follow"
    assert (primaries(reach), follows(reach, "db-0")) == (["db-1"], True)
    assert client(reach, "insert into note values (101)") == "1", "a commit is on two disks again"


def roles(reach: Reach) -> tuple[str, str]:
    """The primary, and the other one."""
    (primary,) = primaries(reach)
    return primary, "db-1" if primary == "db-0" else "db-0"


def whole(reach: Reach, primary: str, standby: str) -> bool:
    """Whether one is primary, and the other one follows it and is waited for."""
    waited_for = "select count(*) from pg_stat_replication where state = 'streaming' and sync_state in ('sync', 'quorum')"
    return primaries(reach) == [primary] and follows(reach, standby) and sql(reach, primary, waited_for) == "1"


def kill(reach: Reach, node: str, *, held: bool = True) -> None:
    if held:
        reach.hold(node, 60)
    reach.signal(node, signal.SIGKILL)


def log(reach: Reach, node: str, words: str) -> int:
    """How many lines with these words a node has written."""
    return sum(words in line for line in reach.log(node))


def test_the_old_primary_stays_down_however_long_the_promotion_takes(
    reach: Reach, fault: Callable[[], DatabaseFailover], monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, (old, new) = fault(), roles(reach)
    slow.probe()
    starts, run = reach.node(old).starts, type(reach).run

    def slowly(self: Any, node: str, argv: Sequence[str], **options: Any) -> Completed:
        if "select pg_promote(false)" in argv:
            until(lambda: reach.node(old).starts > starts, 4)
        return run(self, node, argv, **options)

    monkeypatch.setattr(type(reach), "run", slowly)
    slow.apply(1.5)
    slow.apply(60)
    assert reach.node(old).starts == starts
    assert slow.verify().shown
    slow.heal()
    assert slow.absent().shown
    assert whole(reach, new, old)


def test_who_dies_before_anybody_is_promoted_has_it_done_by_the_old_primary_which_loses_what_only_it_had_written(
    reach: Reach, fault: Callable[[], DatabaseFailover],
) -> None:
    healer, (old, new) = fault(), roles(reach)
    healer.probe()
    kill(reach, new)
    sql(reach, old, "set synchronous_commit = local; create table stray (id int); insert into stray select generate_series(1, 10000)")
    assert sql(reach, old, "select count(*) from stray") == "10000"
    assert reach.run(old, succeeded_by(new)).status == 0
    kill(reach, old)
    reach.release(new)
    assert until(lambda: sql(reach, new, "select pg_is_in_recovery()") == "t", 30)
    healer.heal()
    assert healer.absent().shown
    assert (primaries(reach), follows(reach, old)) == ([new], True)
    assert sql(reach, old, "select to_regclass('stray') is null") == "t", "it has been rewound, or made anew"


def test_who_dies_before_the_old_primary_is_killed_leaves_none_that_is_to_be_succeeded(reach: Reach, fault: Callable[[], DatabaseFailover]) -> None:
    old, new = roles(reach)
    assert reach.run(old, succeeded_by(new)).status == 0
    assert fault().absent().shown
    assert whole(reach, new, old)


def test_when_whoever_did_it_dies_the_lease_ends_and_there_is_still_one_primary(reach: Reach, fault: Callable[[], DatabaseFailover]) -> None:
    dead, (old, new) = fault(), roles(reach)
    dead.probe()
    dead.apply(3)
    assert until(lambda: whole(reach, new, old), 60)
    assert not dead.verify().shown
    healer = fault()  # which remembers nothing
    healer.heal()
    assert healer.absent().shown
    assert dead.absent().shown


def test_who_dies_before_anybody_is_told_to_succeed_it_leaves_the_old_primary(reach: Reach) -> None:
    old, new = roles(reach)
    reach.hold(old, 1)
    reach.signal(old, signal.SIGKILL)
    assert until(lambda: whole(reach, old, new), 60)


def test_nodes_that_start_together_find_out_who_they_are(reach: Reach) -> None:
    primary, standby = roles(reach)
    starts = {name: reach.node(name).starts for name in (primary, standby)}
    for name in starts:
        reach.signal(name, signal.SIGKILL)
    assert until(lambda: all(reach.node(name).starts > starts[name] for name in starts) and whole(reach, primary, standby), 60)


def test_a_primary_that_stood_still_while_another_one_was_promoted_ends_and_follows_it(reach: Reach, fault: Callable[[], DatabaseFailover]) -> None:
    old, new = roles(reach)
    starts = reach.node(old).starts
    reach.pause(old, 60)
    assert sql(reach, new, "select pg_promote(true, 20)") == "t"
    reach.resume(old)
    assert until(lambda: whole(reach, new, old), 60)
    assert reach.node(old).starts > starts
    assert fault().absent().shown


def test_beside_a_partition_the_old_primary_does_not_start_as_one_when_its_lease_ends(reach: Reach, fault: Callable[[], DatabaseFailover], tmp_path: Path) -> None:
    dead, (old, new) = fault(), roles(reach)
    dead.probe()
    cut = Partition.build({"from": old, "to": new}, World(reach, TOPOLOGY, random.Random(1), tmp_path / "cut"))
    cut.probe()
    cut.apply(120)
    opened, waits = log(reach, old, OPENED), f"it waits for {new}"
    dead.apply(2)
    assert primaries(reach) == [new]
    assert until(lambda: log(reach, old, waits) > 0, 60), "it says what for"
    assert (primaries(reach), log(reach, old, OPENED)) == ([new], opened)
    cut.heal()
    assert until(lambda: whole(reach, new, old), 60)
    assert dead.absent().detail["old_primary_opened"] == 0


def test_a_primary_that_nobody_was_to_succeed_starts_although_it_hears_nobody(reach: Reach) -> None:
    primary, standby = roles(reach)
    kill(reach, standby)
    kill(reach, primary, held=False)
    assert until(lambda: primaries(reach) == [primary], 60)
    reach.release(standby)
    assert until(lambda: whole(reach, primary, standby), 60)


def test_who_waits_for_the_primary_of_a_newer_timeline_says_so_and_begins_again(reach: Reach) -> None:
    primary, standby = roles(reach)
    assert reach.run(standby, ("sh", "-c", ': > "$PGDATA/pg_wal/000000F0.history"')).status == 0
    starts = reach.node(primary).starts
    kill(reach, primary, held=False)
    assert until(lambda: log(reach, primary, "it waits for the primary of timeline 000000F0; let the one of") > 0, 30)
    assert until(lambda: reach.node(primary).starts > starts + 1, 30)
    assert primaries(reach) == []
    assert reach.run(standby, ("sh", "-c", 'rm "$PGDATA/pg_wal/000000F0.history"')).status == 0
    assert until(lambda: whole(reach, primary, standby), 60)


def test_who_was_killed_while_it_rewound_its_data_begins_with_a_copy(reach: Reach) -> None:
    new, old = roles(reach)
    assert reach.run(old, ["sh", "-c", "touch /data/pg.rejoining && rm /data/pg/global/pg_control"]).status == 0
    starts = reach.node(old).starts
    reach.signal(old, signal.SIGKILL)
    assert until(lambda: reach.node(old).starts > starts and whole(reach, new, old), 60)


def test_two_at_once_both_heal(reach: Reach, fault: Callable[[], DatabaseFailover]) -> None:
    first, second = fault(), fault()
    for each in (first, second):
        each.probe()
    old, new = roles(reach)
    for each in (first, second):
        each.apply(60)
        assert each.verify().shown
    with pytest.raises(UsageError, match="has 1 primaries and 0 standbys"):
        fault().probe()
    for each in (first, second):
        each.heal()
        assert each.absent().shown
    assert whole(reach, new, old)


@pytest.mark.parametrize(("target", "words"), [("alone", "no standby"), ("db-0", "is a node"), ("other", "is a node")])
def test_what_has_no_standby_can_not_fail_over(reach: Reach, tmp_path: Path, target: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DatabaseFailover.build({"target": target}, World(reach, TOPOLOGY, random.Random(1), tmp_path / "fault")).probe()


def test_of_several_standbys_none_is_chosen_unasked() -> None:
    topology = Topology("t", Path("t.yaml"), ("a",), {"db": replace(DB, standbys=2)})
    ((parameter, why, _),) = DatabaseFailover.unfit({"target": "db"}, topology)
    assert (parameter, why) == ("target", "db has 2 standbys, and which of them has all that was acknowledged is not asked yet")
    assert not DatabaseFailover.unfit({"target": "db"}, TOPOLOGY)
