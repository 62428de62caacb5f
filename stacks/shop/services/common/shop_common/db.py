"""PostgreSQL: pools that survive a failover, transactions that are traced."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry.trace import SpanKind
from psycopg import Connection, DataError, OperationalError
from psycopg.conninfo import make_conninfo
from psycopg.errors import CheckViolation, NotNullViolation
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from shop_common import retry, telemetry

waits = telemetry.meter.create_histogram("db.client.connection.wait_time", "s")
timeouts = telemetry.meter.create_counter("db.client.connection.timeouts")
SAFE = {
    "connect_timeout": 2,
    "tcp_user_timeout": 5000,  # ms until a silent server counts as gone
    "keepalives_idle": 5,
    "options": "-c statement_timeout=2000 -c lock_timeout=1000 -c idle_in_transaction_session_timeout=10000",
}


def url(variable: str = "DATABASE_URL") -> str:
    """A database address from the environment.  It lists all hosts; the driver finds the primary, or a standby to read from."""
    return make_conninfo(os.environ[variable], **SAFE)


def pool(variable: str = "DATABASE_URL", size: int = 8) -> ConnectionPool:
    """A pool of connections, each checked before it is lent: after a failover the dead ones are replaced unnoticed."""
    return ConnectionPool(
        url(variable), name=variable.lower(), min_size=1, max_size=size, timeout=2, max_lifetime=600, reconnect_timeout=5,
        check=ConnectionPool.check_connection, kwargs={"row_factory": dict_row}, open=True,
    )


@contextmanager
def transaction(connections: ConnectionPool, summary: str) -> Iterator[Connection]:
    """A connection inside one transaction, committed at the end of the block, rolled back by an exception.

    Raises ConnectionError when the database can't do it now; whether it was committed may then be unknown.  Raises
    retry.Hopeless when it will never take these values.
    """
    attributes = {"db.system.name": "postgresql", "db.namespace": connections.name, "db.query.summary": summary}
    with telemetry.span(summary, SpanKind.CLIENT, attributes):
        try:
            connection = _lend(connections)
            try:
                with connection:
                    yield connection
            finally:
                connections.putconn(connection)
        except OperationalError as error:
            raise ConnectionError(f"{summary}: {error}") from error
        except (DataError, CheckViolation, NotNullViolation) as error:
            raise retry.Hopeless(f"{summary}: {error}") from error


def _lend(connections: ConnectionPool) -> Connection:
    name = {"db.client.connection.pool.name": connections.name}
    try:
        with telemetry.timed(waits, name):
            return connections.getconn()
    except PoolTimeout:
        timeouts.add(1, name)
        raise


def alive(connections: ConnectionPool) -> bool:
    """Whether the database answers."""
    try:
        with connections.connection(timeout=1) as connection:
            connection.execute("select 1")
    except OperationalError:
        return False
    return True
