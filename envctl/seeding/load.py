"""Loads a seed, as a process inside the environment: `python -m envctl.seeding.load`, with the job as JSON on its standard input.

Everything is loaded or nothing is: tables of all databases are copied in open transactions, whose deferred constraints are
asked for and whose message files are read through before the first message is sent; the transactions are committed last.
What was sent is deleted when something fails.  Only a database that is lost between two commits leaves a part, and is told so.
Told to end before the first commit it takes back what it has begun; from then on it goes on to its end.
Prints JSON lines: {"progress": …}, {"taken_back": true}, {"problem": {file, line, message}} and at last {"loaded": …}.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envctl.engines.topics import ends_of, messages_of
from envctl.errors import ResourceError
from envctl.waiting import end_when_done, end_when_told

CHUNK = 1 << 18
PRODUCE_S = 60.0
MASK = (1 << 64) - 1
CONTEXT_LINE = re.compile(r"\bline (\d+)(?:, column ([^:]+))?")


class NotTakenBackError(ResourceError):
    """Something that was sent is still there."""


class BadDataError(Exception):
    """A line of a data file that can't be loaded."""

    def __init__(self, file: Path, line: int, message: str) -> None:
        super().__init__(message)
        self.file, self.line, self.message = file, line, message


@dataclass(frozen=True, slots=True)
class Job:
    """What to load: tables as (url, table, file, rows), topics as (bootstrap, topic, file, messages, key field)."""

    tables: tuple[Mapping[str, Any], ...]
    topics: tuple[Mapping[str, Any], ...]


class Meter:
    """Prints progress with rate and time left, a few times a second."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total, self._begun, self._said = label, total, time.monotonic(), 0.0

    def at(self, done: int) -> None:
        """`done` of the total are done."""
        now = time.monotonic()
        if now - self._said < 0.25 and done < self._total:
            return
        self._said = now
        rate = done / max(now - self._begun, 1e-9)
        left = (self._total - done) / rate if rate else 0.0
        _say({"progress": f"{self._label} {done:,} of {self._total:,}, {rate:,.0f}/s, {left:.0f} s left"})


def load(job: Job, committing: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Loads everything; returns counts and checksums.  `committing` is called when there is no way back any more.

    Raises BadDataError, or ResourceError where a commit fails.
    """
    with ExitStack() as stack:
        telling = stack.enter_context(ExitStack())
        telling.push(lambda _kind, error, _trace: None if isinstance(error, NotTakenBackError) else _say({"taken_back": True}))
        keyed = [list(_messages(topic)) if topic["messages"] < 100_000 else None for topic in job.topics]
        for topic, kept in zip(job.topics, keyed, strict=True):
            if kept is None:
                for _ in _messages(topic):  # too many to keep in memory: read through now, and once more when sending
                    pass
        connections = {url: stack.enter_context(_connect(url)) for url in dict.fromkeys(t["url"] for t in job.tables)}
        rows = {f"{t['component']}/{t['database']}.{t['table']}": _copy(connections[t["url"]], t) for t in job.tables}
        for url, connection in connections.items():
            _check_deferred(connection, [table for table in job.tables if table["url"] == url])
        undo = stack.enter_context(ExitStack())
        sent = [_produce(topic, kept, undo) for topic, kept in zip(job.topics, keyed, strict=True)]
        committing()
        telling.pop_all()
        _commit({f"{t['component']}/{t['database']}": connections[t["url"]] for t in job.tables})
        undo.pop_all()
    return {"tables": rows, "topics": {f"{t['component']}/{t['topic']}": s for t, s in zip(job.topics, sent, strict=True)}}


def _connect(url: str) -> Any:
    import psycopg

    return psycopg.connect(url, connect_timeout=10)


def _check_deferred(connection: Any, tables: Sequence[Mapping[str, Any]]) -> None:
    """Has the database say now what it would say at the commit."""
    import psycopg

    try:
        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    except psycopg.Error as error:
        refused = [table for table in tables if table["table"].rpartition(".")[2] == error.diag.table_name]
        raise _located(Path((refused or tables)[0]["file"]), error) from error


def _commit(databases: Mapping[str, Any]) -> None:
    import psycopg

    done: list[str] = []
    for name, connection in databases.items():
        try:
            connection.commit()
        except psycopg.Error as error:
            partly = f"; {done[0]} is already, so start anew: `envctl down`" if done else ""
            raise ResourceError(f"{name} could not be committed: {error}{partly}") from error
        done.append(name)


def _copy(connection: Any, table: Mapping[str, Any]) -> dict[str, int]:
    """COPY of one file; the header names the columns."""
    import psycopg

    file = Path(table["file"])
    try:
        with file.open("rb") as source:
            columns = ", ".join(f'"{name}"' for name in source.readline().decode().strip().split(","))
            with connection.cursor() as cursor:
                with cursor.copy(f'COPY {_quoted(table["table"])} ({columns}) FROM STDIN WITH (FORMAT csv)') as copy:
                    _feed(copy, source, file, table)
                copied = cursor.rowcount
    except psycopg.Error as error:
        raise _located(file, error) from error
    if copied != table["rows"]:
        raise BadDataError(file, 0, f"holds {copied:,} rows, the seed says {table['rows']:,}")
    return checksum_of_table(connection, table["table"])


def _feed(copy: Any, source: Any, file: Path, table: Mapping[str, Any]) -> None:
    meter, size, done = Meter(f"{table['table']} rows", table["rows"]), file.stat().st_size, 0
    while chunk := source.read(CHUNK):
        copy.write(chunk)
        done += len(chunk)
        meter.at(min(table["rows"], round(table["rows"] * done / size)))


def _located(file: Path, error: Any) -> BadDataError:
    """PostgreSQL says at which line of the data it stopped; the header is a line of the file too."""
    found = CONTEXT_LINE.search(error.diag.context or "")
    line = int(found[1]) + 1 if found else 0
    column = f" (column {found[2]})" if found and found[2] else ""
    detail = f": {error.diag.message_detail}" if error.diag.message_detail else ""
    return BadDataError(file, line, f"{error.diag.message_primary or error}{column}{detail}")


def _quoted(table: str) -> str:
    return ".".join(f'"{part}"' for part in table.split("."))


def checksum_of_table(connection: Any, table: str) -> dict[str, int]:
    """Row count and the sum of all rows' 64-bit hashes, which does not depend on their order."""
    query = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {_quoted(table)} t"  # noqa: S608
    count, total = connection.execute(query).fetchone()
    return {"rows": count, "checksum": int(total) & MASK}


def _messages(topic: Mapping[str, Any]) -> Iterator[tuple[bytes | None, bytes]]:
    """(key, value) of every line.  Raises BadDataError for a line that is no JSON object or lacks the key's field."""
    file, key, count = Path(topic["file"]), topic["key"], 0
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except ValueError as error:
                raise BadDataError(file, number, f"is not valid JSON: {error}") from error
            if key and (not isinstance(value, dict) or key not in value):
                raise BadDataError(file, number, f"has no field {key!r}, which is the message key")
            count += 1
            yield (str(value[key]).encode() if key else None), line.strip()
    if count != topic["messages"]:
        raise BadDataError(file, 0, f"holds {count:,} messages, the seed says {topic['messages']:,}")


def _produce(topic: Mapping[str, Any], kept: list[tuple[bytes | None, bytes]] | None, undo: ExitStack) -> dict[str, int]:
    """Sends all messages, each acknowledged by all replicas; `undo` takes them back when anything fails."""
    from confluent_kafka import KafkaError, Producer

    refused: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": topic["bootstrap"], "acks": "all", "enable.idempotence": True, "linger.ms": 20,
                         "compression.type": "lz4", "queue.buffering.max.messages": 200_000})
    if not any(True for _ in messages_of(topic["bootstrap"], topic["topic"], within_s=PRODUCE_S)):
        undo.push(lambda _kind, error, _trace: _take_back(topic, producer, error))
    meter, total, count = Meter(f"{topic['topic']} messages", topic["messages"]), 0, 0
    for key, value in kept if kept is not None else _messages(topic):
        while True:
            try:
                producer.produce(topic["topic"], value, key, on_delivery=lambda e, _: refused.append(e) if e else None)
                break
            except BufferError:
                producer.poll(0.1)
        total += _hash(key, value)
        count += 1
        if count % 1000 == 0:
            producer.poll(0)
            meter.at(count)
    left = producer.flush(PRODUCE_S)
    meter.at(count)
    if refused or left:
        raise BadDataError(Path(topic["file"]), 0, f"{len(refused) + left} messages were not acknowledged: {refused[:1] or 'timed out'}")
    return {"messages": count, "checksum": total & MASK}


def _take_back(topic: Mapping[str, Any], producer: Any, cause: BaseException | None) -> None:
    """Deletes what was sent: all records before the end as of now, which is safe in a topic that was empty before."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient

    producer.purge(in_flight=False)  # what is not sent yet must not follow
    producer.flush(PRODUCE_S)
    try:
        admin = AdminClient({"bootstrap.servers": topic["bootstrap"]})
        ends = ends_of(topic["bootstrap"], topic["topic"])
        for future in admin.delete_records([TopicPartition(topic["topic"], p, end) for p, end in ends.items()]).values():
            future.result(PRODUCE_S)
    except (KafkaException, ResourceError, TimeoutError) as error:
        raise NotTakenBackError(f"{cause}; and the messages in {topic['topic']} could not be taken back: {error}") from error


def _hash(key: bytes | None, value: bytes) -> int:
    import hashlib

    return int.from_bytes(hashlib.blake2b(value, digest_size=8, key=(key or b"")[:64]).digest(), "big")


def verify(job: Job) -> dict[str, Any]:
    """What is in the environment now, counted and summed as `load` does it."""
    tables = {}
    for table in job.tables:
        with _connect(table["url"]) as connection:
            tables[f"{table['component']}/{table['database']}.{table['table']}"] = checksum_of_table(connection, table["table"])
    topics = {f"{t['component']}/{t['topic']}": _checksum_of_topic(t["bootstrap"], t["topic"]) for t in job.topics}
    return {"tables": tables, "topics": topics}


def _checksum_of_topic(bootstrap: str, topic: str) -> dict[str, int]:
    """Reads a topic from its start to its end as of now."""
    count = total = 0
    for message in messages_of(bootstrap, topic, within_s=PRODUCE_S):
        count, total = count + 1, total + _hash(message.key(), message.value() or b"")
    return {"messages": count, "checksum": total & MASK}


def _say(message: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def main(argv: list[str], committing: Callable[[], None] = lambda: None) -> int:
    """Loads (or with `--verify` only counts) what the job file says; `committing` as with `load`."""
    import psycopg
    from confluent_kafka import KafkaException

    job = json.load(sys.stdin)
    wanted = Job(tuple(job["tables"]), tuple(job["topics"]))
    try:
        if "--verify" not in argv:
            loaded = load(wanted, committing)
        found = verify(wanted)
    except BadDataError as error:
        _say({"problem": {"file": str(error.file), "line": error.line, "message": error.message}})
        return 2
    except (ResourceError, psycopg.Error, KafkaException) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if "--verify" not in argv and found != loaded:
        sys.stderr.write(f"loaded {loaded}, but found {found}\n")
        return 1
    _say({"loaded": found})
    return 0


if __name__ == "__main__":
    end_when_told(143)
    sys.exit(main(sys.argv[1:], end_when_done))
