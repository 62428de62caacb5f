from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envctl.engines.base import Site
from envctl.engines.postgres import PostgresEngine
from envctl.engines.postgres_start import START
from envctl.errors import CapabilityError
from envctl.model.topology import Postgres, Topology
from envctl.toolchain import find
from envctl.waiting import until

MakeSite = Callable[..., Site]
DB = Postgres(name="db", version="15", standbys=1, databases=("orders", "my-stock"), migrations="{database}/migrations")
URL = PostgresEngine().endpoints(DB)["orders.url"]


@pytest.fixture
def site(stack: Path, prepared: Path) -> MakeSite:
    migrations = stack / "orders" / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "001-orders.sql").write_text("create table orders (id int primary key);\n")

    def make(component: Postgres = DB) -> Site:
        topology = Topology("test", stack / "topology.yaml", ("a", "b"), {component.name: component})
        return Site(topology, "env", (component.name,), (), prepared)

    return make


def sql(cell: Any, query: str, url: str = URL) -> str:
    return cell.python(f"import psycopg; c = psycopg.connect({url!r}, autocommit=True).execute({query!r}); "
                       "print(c.fetchall() if c.description else c.rowcount)")


@pytest.mark.engines
@pytest.mark.cell
def test_a_version_that_is_not_there_is_never_replaced_by_another(site: MakeSite) -> None:
    wanted = replace(DB, version="9")
    with pytest.raises(CapabilityError, match="postgres 9 is not here; there is"):
        PostgresEngine().realise(wanted, site(wanted))


def test_the_start_of_a_node_means_the_same_in_a_pod() -> None:
    assert "$$" not in START, "Kubernetes makes one dollar of two"


@pytest.mark.engines
@pytest.mark.cell
def test_settings_and_standbys_replace_the_nodes_and_databases_do_not(site: MakeSite) -> None:
    def nodes(component: Postgres) -> tuple[str, ...]:
        return tuple(node.digest for node in PostgresEngine().realise(component, site(component)).nodes)

    assert nodes(replace(DB, databases=("orders",))) == nodes(DB)
    assert nodes(replace(DB, settings={"work_mem": "8MB"}))[0] != nodes(DB)[0]
    assert nodes(replace(DB, standbys=0))[0] != nodes(DB)[0]


@pytest.mark.engines
@pytest.mark.cell
@pytest.mark.slow
def test_what_is_committed_is_on_the_standby_too_and_outlives_the_primary(cell: Any, site: MakeSite, stack: Path) -> None:
    realisation = PostgresEngine().realise(DB, site())
    cell.up(realisation)
    owned = sql(cell, "select tableowner from pg_tables where tablename = 'orders'")
    assert owned == "[('orders',)]", "a migration is applied as the owner of its database"
    assert sql(cell, "select current_user, current_database()", PostgresEngine().endpoints(DB)["my-stock.url"]) == "[('my-stock', 'my-stock')]"
    assert sql(cell, "select sync_state, state from pg_stat_replication", PostgresEngine().endpoints(DB)["url"]) == "[('quorum', 'streaming')]"

    assert sql(cell, "insert into orders select generate_series(1, 100)") == "100"
    cell.reach.hold("db-0", 60)
    cell.reach.signal("db-0", signal.SIGKILL)
    counted = ("select count(*) from orders", "postgresql://orders@db-1/orders")
    assert until(lambda: sql(cell, *counted) == "[(100,)]", 30), "the standby has it, though it may still have to replay it"
    cell.reach.release("db-0")
    cell.reach.wait_ready("db-0", 60)
    assert sql(cell, "insert into orders values (101)") == "1"

    cell.reach.signal("db-1", signal.SIGKILL)
    assert sql(cell, "insert into orders values (102)") == "1", "it waits for the standby, which its supervisor restarts"
    cell.reach.wait_ready("db-1", 60)
    assert sql(cell, "select pg_is_in_recovery()", "postgresql://orders@db-1/orders") == "[(True,)]"


MEASURED = """
from pathlib import Path
from types import SimpleNamespace
from envctl.model.environment import Node
from envctl.model.scenario import Measure
from envctl.model.topology import Postgres, Topology
from envctl.runner.measuring import MeasureSampler
from envctl.telemetry.processes import PostgresSampler

topology = Topology("t", Path("t.yaml"), (), {"db": Postgres(name="db", version="15", standbys=1, databases=("orders",))})
for query in ("select 7.5", "select count(*) from pg_class where false", "select pg_sleep(30)", "select 1, 2", "select 1 where false", "select 'a lot'", "create table t ()"):
    try:
        print(*(reading.value for reading in MeasureSampler(Measure("m", sql=query, component="db", database="orders", timeout_s=3.0), None, topology).sample()))
    except Exception as error:
        print(type(error).__name__)
node = Node("db-0", "db", "postgres", "a", "db-0", "ready", 1, None, 1, None, {"postgres": 5432})
found = {r.measure: r.value for r in PostgresSampler(SimpleNamespace(environment=lambda: SimpleNamespace(nodes=(node,)))).sample()}
print(0 <= found["postgres.connections_used"] == found["postgres.connections"] / LIMIT)
"""


@pytest.mark.engines
@pytest.mark.cell
@pytest.mark.slow
def test_a_query_measures_one_number_in_its_time_and_connections_are_a_share(cell: Any, site: MakeSite) -> None:
    cell.up(PostgresEngine().realise(DB, site()))
    limit = sql(cell, "select current_setting('max_connections')::int").strip("[](),")
    said = cell.python(MEASURED.replace("LIMIT", limit)).splitlines()
    assert said == ["7.5", "0.0", "QueryCanceled", "ResourceError", "ResourceError", "ValueError", "ReadOnlySqlTransaction", "True"]


@pytest.mark.engines
@pytest.mark.cell
@pytest.mark.slow
def test_provisioning_again_applies_what_is_new_and_refuses_what_has_changed(cell: Any, site: MakeSite, stack: Path) -> None:
    cell.up(PostgresEngine().realise(DB, site()))
    migrations = stack / "orders" / "migrations"
    first = PostgresEngine().realise(DB, site()).provision
    more = replace(DB, databases=(*DB.databases, "later"))
    (migrations / "002-more.sql").write_text("alter table orders add column note text;\ncreate index on orders (note);\n")
    second = PostgresEngine().realise(more, site(more))
    assert first
    assert second.provision
    assert first.digest != second.provision.digest
    cell.up(second)
    cell.up(second)
    assert sql(cell, "select name from envctl_migrations order by name") == "[('001-orders.sql',), ('002-more.sql',)]"
    assert sql(cell, "select 1", PostgresEngine().endpoints(more)["later.url"]) == "[(1,)]"

    (migrations / "003-broken.sql").write_text("create table half (id int);\nselect * from\n  nowhere;\n")
    with pytest.raises(Exception, match=r"migration 003-broken.sql:3 of database orders: relation \"nowhere\" does not exist"):
        cell.up(PostgresEngine().realise(more, site(more)))
    assert sql(cell, "select to_regclass('half')") == "[(None,)]", "nothing of a failed migration stays"

    (migrations / "003-broken.sql").unlink()
    (migrations / "001-orders.sql").write_text("create table orders (id bigint primary key);\n")
    with pytest.raises(Exception, match=r"migration 001-orders.sql of database orders was applied as \w{12} and is \w{12} now\nhint: "):
        cell.up(PostgresEngine().realise(more, site(more)))


@pytest.mark.engines
@pytest.mark.cell
def test_one_server_alone_needs_no_standby_to_be_ready(cell: Any, site: MakeSite) -> None:
    alone = Postgres(name="alone", version=find("postgres").version.split(".")[0], databases=("x",), settings={"work_mem": "5MB"})
    cell.up(PostgresEngine().realise(alone, site(alone)))
    assert sql(cell, "show work_mem", PostgresEngine().endpoints(alone)["x.url"]) == "[('5MB',)]"
