"""Loading seeds into a real PostgreSQL and a real Kafka: everything or nothing, with the line that is wrong."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from loopback_broker import make_topic

from envctl.errors import ResourceError, SpecError
from envctl.model.seed import Generator, Seed, TableLoad, TopicLoad
from envctl.seeding.files import digest, ready_files
from envctl.seeding.load import BadDataError, Job, ends_of, load, verify
from envctl.toolchain import find

ROWS = 'sku,name\na1,"a, quoted"\nb2,plain\n'
LINES = '{"customer": "c1", "n": 1}\n{"customer": "c2", "n": 2}\n'


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of the module's own, reached by a Unix socket only."""
    postgres = find("postgres")
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if Path("/proc/self").stat().st_uid == 0 else []
    with tempfile.TemporaryDirectory(prefix="pg-") as place:
        Path(place).chmod(0o777)
        env = dict(postgres.env)

        def run(*argv: str) -> None:
            subprocess.run([*user, *argv], check=True, capture_output=True, env={**env, "PATH": "/usr/bin:/bin"})

        data = f"{place}/data"
        run(str(postgres.programs["initdb"]), "-D", data, "-U", "postgres", "--auth=trust", "--no-sync")
        run(str(postgres.programs["pg_ctl"]), "-D", data, "-w", "-l", f"{place}/log", "-o", f"-k {place} -c listen_addresses=''", "start")
        try:
            yield f"host={place} user=postgres dbname=postgres"
        finally:
            run(str(postgres.programs["pg_ctl"]), "-D", data, "-m", "immediate", "stop")


@pytest.fixture
def products(database: str) -> str:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("drop table if exists products; create table products (sku text primary key, name text not null, price int)")
    return database


def job(url: str, file: Path, rows: int, topics: tuple[dict[str, Any], ...] = ()) -> Job:
    table = {"component": "db", "database": "shop", "url": url, "table": "products", "file": str(file), "rows": rows}
    return Job((table,), topics)


def count(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from products").fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.engines
def test_rows_are_copied_counted_and_summed(products: str, tmp_path: Path) -> None:
    file = tmp_path / "products.csv"
    file.write_text(ROWS)
    loaded = load(job(products, file, 2))
    assert loaded["tables"]["db/shop.products"]["rows"] == 2
    assert verify(job(products, file, 2)) == loaded


@pytest.mark.engines
def test_a_changed_row_changes_the_checksum_and_its_place_does_not(products: str, tmp_path: Path) -> None:
    file = tmp_path / "products.csv"
    file.write_text(ROWS)
    before = load(job(products, file, 2))
    with psycopg.connect(products, autocommit=True) as connection:
        connection.execute("delete from products where sku = 'a1'; insert into products (sku, name) values ('a1', 'a, quoted')")
    assert verify(job(products, file, 2)) == before
    with psycopg.connect(products, autocommit=True) as connection:
        connection.execute("update products set name = 'other' where sku = 'a1'")
    assert verify(job(products, file, 2)) != before


@pytest.mark.engines
@pytest.mark.parametrize(("text", "line", "said"), [
    ("sku,name,price\na,x,1\nb,y,cheap\n", 3, "integer"),
    ("sku,name\na,x\na,y\n", 0, "duplicate key"),
    ("sku,name\na,x\nb\n", 3, "missing data"),
    ("sku,colour\na,red\n", 0, "colour"),
])
def test_a_wrong_row_is_named_and_nothing_is_left(products: str, tmp_path: Path, text: str, line: int, said: str) -> None:
    file = tmp_path / "products.csv"
    file.write_text(text)
    with pytest.raises(BadDataError) as wrong:
        load(job(products, file, text.count("\n") - 1))
    assert wrong.value.file == file
    assert said in wrong.value.message
    assert wrong.value.line in (line, line or wrong.value.line)
    assert count(products) == 0


@pytest.mark.engines
def test_fewer_rows_than_the_seed_says_are_refused(products: str, tmp_path: Path) -> None:
    file = tmp_path / "products.csv"
    file.write_text(ROWS)
    with pytest.raises(BadDataError, match="holds 2 rows, the seed says 3"):
        load(job(products, file, 3))
    assert count(products) == 0


@pytest.mark.engines
def test_messages_and_rows_come_together_or_not_at_all(products: str, tmp_path: Path, broker: Any) -> None:
    make_topic(broker, "history", [0, 0])
    rows, lines = tmp_path / "products.csv", tmp_path / "history.jsonl"
    rows.write_text(ROWS)
    lines.write_text(LINES + "{broken\n")
    topic = {"component": "bus", "topic": "history", "bootstrap": broker.bootstrap, "file": str(lines), "key": "customer", "messages": 3}
    with pytest.raises(BadDataError) as wrong:
        load(job(products, rows, 2, (topic,)))
    assert wrong.value.line == 3
    assert count(products) == 0
    assert not any(ends_of(broker.bootstrap, "history").values())
    lines.write_text(LINES)
    good = job(products, rows, 2, ({**topic, "messages": 2},))
    assert load(good) == verify(good)
    assert sum(ends_of(broker.bootstrap, "history").values()) == 2


@pytest.mark.engines
def test_a_message_without_its_key_is_named(tmp_path: Path, broker: Any) -> None:
    lines = tmp_path / "history.jsonl"
    lines.write_text('{"customer": "c1"}\n{"client": "c2"}\n')
    topic = {"component": "bus", "topic": "keyless", "bootstrap": broker.bootstrap, "file": str(lines), "key": "customer", "messages": 2}
    with pytest.raises(BadDataError) as wrong:
        load(Job((), (topic,)))
    assert (wrong.value.line, "customer" in wrong.value.message) == (2, True)


def seed(tmp_path: Path, text: str = ROWS, **changes: Any) -> Seed:
    file = tmp_path / "products.csv"
    file.write_text(text)
    checksum = changes.pop("sha256", sha256(text.encode()).hexdigest())
    return Seed("s", tmp_path / "seed.yaml", (TableLoad("db", "shop", "products", file, 2, checksum, 4),), **changes)


def test_an_altered_file_is_refused_with_its_checksum(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as wrong:
        ready_files(seed(tmp_path, sha256="0" * 64), tmp_path / "cache", lambda _: None)
    (problem,) = wrong.value.problems
    assert problem.line == 4
    assert sha256(ROWS.encode()).hexdigest() in problem.message


def test_the_digest_is_that_of_the_data(tmp_path: Path) -> None:
    assert digest(seed(tmp_path)) == digest(seed(tmp_path))
    assert digest(seed(tmp_path)) != digest(seed(tmp_path, ROWS + "c3,third\n"))


def test_generated_files_are_made_once(tmp_path: Path) -> None:
    program = tmp_path / "generate.sh"
    program.write_text(f"printf x >> {tmp_path}/runs; printf '{{}}\\n' > $OUT/events.jsonl\n")
    checksum = sha256(b"{}\n").hexdigest()
    made = Seed("g", tmp_path / "seed.yaml", (TopicLoad("bus", "t", Path("events.jsonl"), 1, checksum),),
                Generator(("sh", str(program)), (program,)))
    for _ in range(2):
        found = ready_files(made, tmp_path / "cache", lambda _: None)
        assert json.loads(found[Path("events.jsonl")].read_text()) == {}
    assert (tmp_path / "runs").read_text() == "x"


def test_a_generator_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    program = tmp_path / "generate.sh"
    program.write_text("echo the reason; exit 3\n")
    made = Seed("g", tmp_path / "seed.yaml", (TopicLoad("bus", "t", Path("e"), 1, "0" * 64),), Generator(("sh", str(program)), (program,)))
    with pytest.raises(ResourceError, match="the reason"):
        ready_files(made, tmp_path / "cache", lambda _: None)
    assert not list((tmp_path / "cache" / "seeds").glob("g-*"))
