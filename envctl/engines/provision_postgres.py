"""Run beside the nodes: makes missing databases and roles, applies migrations, waits for the standbys.

Migrations are the `*.sql` files of a database's directory in the order of their names.  Each is applied once, in one
transaction together with its record in the table `envctl_migrations`, as the role that owns the database.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envctl.engines.provisioning import main
from envctl.errors import DeadlineError, ResourceError

_WITHIN_S = 60.0
_RECORD = """
create table if not exists envctl_migrations (
    name text primary key, sha256 text not null, applied_at timestamptz not null default now()
)"""


@dataclass(frozen=True, slots=True)
class Work:
    """What there is to do."""

    nodes: tuple[str, ...]
    port: int
    standbys: int
    databases: tuple[str, ...]
    migrations: Mapping[str, str]  # database → directory


def provision(work: Work) -> None:
    """Does it all; what is done already is left alone.  Raises ResourceError and DeadlineError."""
    _await_standbys(work)
    _make_databases(work)
    for database, directory in work.migrations.items():
        with _connect(work, database, database) as connection:
            migrate(database, Path(directory), connection)


def migrate(database: str, directory: Path, connection: Any) -> tuple[str, ...]:
    """Applies what is new in a directory of migrations and returns the names of those files.

    Raises ResourceError for a file that fails, and for one that was applied and has changed since.
    """
    import psycopg

    files = sorted(directory.glob("*.sql"))
    applied: list[str] = []
    connection.execute(_RECORD)
    known = dict(connection.execute("select name, sha256 from envctl_migrations").fetchall())
    for file in files:
        text = file.read_bytes()
        sha256 = hashlib.sha256(text).hexdigest()
        if file.name in known:
            _unchanged(database, file.name, known[file.name], sha256)
            continue
        try:
            with connection.transaction():
                connection.execute(text)
                connection.execute("insert into envctl_migrations (name, sha256) values (%s, %s)", (file.name, sha256))
        except psycopg.Error as error:
            raise ResourceError(f"{_where(database, file.name, text, error)}: {error}".rstrip()) from error
        applied.append(file.name)
    return tuple(applied)


def statements(databases: tuple[str, ...]) -> tuple[str, ...]:
    """SQL that makes each database and the role that owns it."""
    made: list[str] = []
    for name in databases:
        quoted = '"' + name.replace('"', '""') + '"'
        made += [f"create role {quoted} login", f"create database {quoted} owner {quoted} strategy file_copy"]
    return tuple(made)


def _unchanged(database: str, name: str, then: str, now: str) -> None:
    if then != now:
        raise ResourceError(
            f"migration {name} of database {database} was applied as {then[:12]} and is {now[:12]} now",
            hint="add a new migration instead, or take the environment down and up again",
        )


def _where(database: str, name: str, text: bytes, error: Any) -> str:
    """The place of an error in a migration, as far as the server says it."""
    position = error.diag.statement_position
    line = f":{text.decode(errors='replace')[: int(position)].count(chr(10)) + 1}" if position else ""
    return f"migration {name}{line} of database {database}"


def _connect(work: Work, database: str, user: str) -> Any:
    import psycopg

    nodes = ",".join(work.nodes)
    try:
        return psycopg.connect(
            host=nodes, port=work.port, dbname=database, user=user, target_session_attrs="read-write", connect_timeout=5,
            autocommit=True,
        )
    except psycopg.Error as error:
        raise ResourceError(f"no connection to database {database} on {nodes}: {error}") from error


def _make_databases(work: Work) -> None:
    with _connect(work, "postgres", "postgres") as connection:
        roles = {row[0] for row in connection.execute("select rolname from pg_roles")}
        there = {row[0] for row in connection.execute("select datname from pg_database")}
        for name in work.databases:
            role, database = statements((name,))
            if name not in roles:
                connection.execute(role)
            if name not in there:
                connection.execute(database)


def _await_standbys(work: Work) -> None:
    """Waits until every standby follows: from then on a commit is on two disks."""
    deadline = time.monotonic() + _WITHIN_S
    with _connect(work, "postgres", "postgres") as connection:
        while True:
            row = connection.execute("select count(*) from pg_stat_replication where state = 'streaming'").fetchone()
            if row[0] >= work.standbys:
                return
            if time.monotonic() > deadline:
                raise DeadlineError(f"{row[0]} of {work.standbys} standbys follow {work.nodes[0]} after {_WITHIN_S:.0f} s")
            time.sleep(0.05)


if __name__ == "__main__":
    main(Work, provision)
