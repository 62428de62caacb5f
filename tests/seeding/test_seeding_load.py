"""Loading seeds into a real PostgreSQL and a real Kafka: everything or nothing, with the line that is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from loopback_broker import make_topic

from envctl.engines.topics import ends_of, messages_of
from envctl.errors import ResourceError, SpecError
from envctl.model.seed import Generator, Seed, TableLoad, TopicLoad
from envctl.seeding import load as loader
from envctl.seeding.files import digest, ready_files
from envctl.seeding.load import BadDataError, Job, load, main, verify
from envctl.toolchain import find
from envctl.waiting import end_when_told, until

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


@pytest.fixture
def orders(products: str) -> str:
    """A second database, whose orders must name an item of it; asked only at the commit."""
    url = products.replace("dbname=postgres", "dbname=orders")
    with psycopg.connect(products, autocommit=True) as connection:
        connection.execute("drop database if exists orders with (force)")
        connection.execute("create database orders")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table items (sku text primary key)")
        connection.execute("create table orders (id int primary key, sku text references items deferrable initially deferred)")
    return url


def everything(products: str, orders: str, place: Path, topics: tuple[dict[str, Any], ...], orders_rows: str = "1,a1") -> Job:
    """Two databases and some topics; of the orders' tables, the one that refers to the other comes first."""
    for name, text in (("products", ROWS), ("orders", f"id,sku\n{orders_rows}\n"), ("items", "sku\na1\n")):
        (place / f"{name}.csv").write_text(text)
    common = {"component": "db", "database": "orders", "url": orders, "rows": 1}
    tables = tuple({**common, "table": name, "file": str(place / f"{name}.csv")} for name in ("orders", "items"))
    return Job((*job(products, place / "products.csv", 2).tables, *tables), topics)


def topic(broker: Any, name: str, place: Path, text: str = LINES) -> dict[str, Any]:
    file = place / f"{name}.jsonl"
    file.write_text(text)
    return {"component": "bus", "topic": name, "bootstrap": broker.bootstrap, "file": str(file), "key": "", "messages": text.count("\n")}


def held(broker: Any, name: str) -> int:
    return sum(1 for _ in messages_of(broker.bootstrap, name, within_s=30))


@pytest.mark.engines
def test_a_row_that_only_the_commit_would_refuse_is_named_before_anything_is_sent(
    products: str, orders: str, tmp_path: Path, broker: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_topic(broker, "deferred", [0])
    bad = everything(products, orders, tmp_path, (topic(broker, "deferred", tmp_path),), orders_rows="1,lost")
    with pytest.raises(BadDataError, match=r"foreign key.*\(lost\) is not present") as wrong:
        load(bad)
    assert wrong.value.file == tmp_path / "orders.csv"
    assert (count(products), ends_of(broker.bootstrap, "deferred")) == (0, {0: 0})
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"tables": bad.tables, "topics": bad.topics}))
    monkeypatch.setattr("sys.stdin", file.open())
    assert main([]) == 2
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["problem"]["file"] == str(tmp_path / "orders.csv")


@pytest.mark.engines
def test_a_commit_that_fails_takes_all_messages_back_and_says_what_is_not_whole(
    products: str, orders: str, tmp_path: Path, broker: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_topic(broker, "uncommitted", [0, 0])
    whole = everything(products, orders, tmp_path, (topic(broker, "uncommitted", tmp_path),))
    produce = loader._produce

    def then_the_server_ends_the_connection(*arguments: Any) -> Any:
        sent = produce(*arguments)
        with psycopg.connect(products, autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = 'orders'")
        return sent

    with monkeypatch.context() as patch:
        patch.setattr(loader, "_produce", then_the_server_ends_the_connection)
        for _ in range(2):  # also where the topic's first offset is no longer 0
            with pytest.raises(ResourceError, match="db/orders could not be committed") as failed:
                load(whole)
            assert "db/shop is already" in failed.value.message
            assert held(broker, "uncommitted") == 0
            with psycopg.connect(products, autocommit=True) as connection:
                connection.execute("delete from products")
    assert load(whole) == verify(whole)


@pytest.mark.engines
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_loader_that_is_told_to_end_takes_back_what_it_has_sent(number: signal.Signals, tmp_path: Path, broker: Any) -> None:
    topic = f"cancelled-{number.name}"
    make_topic(broker, topic, [0, 0])
    lines = tmp_path / "cancelled.jsonl"
    lines.write_text("".join(f'{{"customer": "c{n % 9}", "n": {n}}}\n' for n in range(300_000)))
    one = {"component": "bus", "topic": topic, "bootstrap": broker.bootstrap, "file": str(lines), "key": "customer", "messages": 300_000}
    process = subprocess.Popen([sys.executable, "-m", "envctl.seeding.load"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    process.stdin.write(json.dumps({"tables": [], "topics": [one]}).encode())
    process.stdin.close()
    assert until(lambda: any(ends_of(broker.bootstrap, topic).values()), 60)
    process.send_signal(number)
    assert process.wait(60) == 143
    assert process.stdout
    assert json.loads(process.stdout.read().splitlines()[-1]) == {"taken_back": True}
    assert held(broker, topic) == 0


@pytest.mark.engines
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_loader_that_is_told_to_end_when_it_commits_goes_on_to_its_end(number: signal.Signals, products: str, tmp_path: Path) -> None:
    (tmp_path / "products.csv").write_text(ROWS)
    code = (
        "import signal, sys; from envctl.seeding import load; from envctl.waiting import end_when_done, end_when_told\n"
        f"verify = load.verify; load.verify = lambda job: (signal.raise_signal({number:d}), verify(job))[1]\n"
        "end_when_told(143); sys.exit(load.main([], end_when_done))"
    )
    given = json.dumps({"tables": job(products, tmp_path / "products.csv", 2).tables, "topics": []})
    ended = subprocess.run([sys.executable, "-c", code], input=given, stdout=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, list(json.loads(ended.stdout.splitlines()[-1]))) == (0, ["loaded"])
    assert "taken_back" not in ended.stdout
    assert count(products) == 2


@pytest.mark.engines
def test_being_told_to_end_is_heard_in_a_callback_of_the_client_too(broker: Any) -> None:
    from confluent_kafka import Producer

    make_topic(broker, "heard", [0])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        for ask in (lambda producer: producer.flush(60), lambda producer: producer.poll(60)):
            end_when_told(143)
            producer = Producer({"bootstrap.servers": broker.bootstrap})
            producer.produce("heard", b"1", on_delivery=lambda *_: signal.raise_signal(signal.SIGTERM))
            with pytest.raises(SystemExit) as ended:
                ask(producer)
            assert ended.value.code == 143
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.engines
def test_a_topic_that_refuses_its_messages_has_those_of_the_others_taken_back(products: str, tmp_path: Path, broker: Any) -> None:
    from confluent_kafka.admin import AdminClient, NewTopic

    make_topic(broker, "first", [0])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("narrow", 1, 1, config={"max.message.bytes": "100"})])["narrow"].result(30)
    wide = json.dumps([list(range(1000))]) + "\n"
    (tmp_path / "products.csv").write_text(ROWS)
    with pytest.raises(BadDataError, match="1 messages were not acknowledged"):
        load(job(products, tmp_path / "products.csv", 2, (topic(broker, "first", tmp_path), topic(broker, "narrow", tmp_path, wide))))
    assert (held(broker, "first"), held(broker, "narrow"), count(products)) == (0, 0, 0)


@pytest.mark.engines
def test_a_database_that_cannot_be_reached_is_told_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "job.json"
    file.write_text(json.dumps({"tables": job(f"host={tmp_path}", tmp_path / "products.csv", 2).tables, "topics": []}))
    monkeypatch.setattr("sys.stdin", file.open())
    assert main([]) == 1
    assert "connection to server on socket" in capsys.readouterr().err


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
