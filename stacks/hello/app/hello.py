"""hello: keeps notes.  POST /notes {"text": "…"} and GET /notes/1."""

import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

pool = ConnectionPool(
    os.environ["DATABASE_URL"], min_size=1, max_size=8, timeout=3, check=ConnectionPool.check_connection, open=True,
    kwargs={"row_factory": dict_row, "connect_timeout": 3, "tcp_user_timeout": 5000},
)


def query(sql: str, *values: Any) -> dict[str, Any] | None:
    """The first row; committed."""
    with pool.connection() as connection:
        return connection.execute(sql, values).fetchone()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Reads a note; /ready says whether the database answers."""
        kind, _, number = self.path.removeprefix("/").partition("/")
        if self.path == "/ready":
            self.reply(lambda: (200, query("select true as ready")))
        elif kind == "notes" and number.isdecimal():
            self.reply(lambda: (200, query("select id, text from note where id = %s", int(number))))
        else:
            self.reply(lambda: (404, None))

    def do_POST(self) -> None:
        """Keeps a note."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            text = json.loads(body)["text"] if self.path == "/notes" else None
        except (ValueError, KeyError, TypeError):
            text = None
        if isinstance(text, str):
            self.reply(lambda: (201, query("insert into note (text) values (%s) returning id, text", text)))
        else:
            self.reply(lambda: (400, {"detail": 'send {"text": "…"} to /notes'}))

    def reply(self, work: Any) -> None:
        """Answers with what `work` returns: 404 for nothing, 503 when the database can't do it now."""
        try:
            status, answer = work()
        except psycopg.OperationalError as error:
            status, answer = 503, {"detail": str(error)}
        if answer is None:
            status, answer = 404, {"detail": "not found"}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, *_: Any) -> None:
        """Nothing."""


server = ThreadingHTTPServer(("0.0.0.0", int(os.environ.get("PORT", "8080"))), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
pool.close()
