"""How a stub fails on purpose, and how it is told to.

A stub listens on an abstract Unix socket, which only processes in its own network can reach.  `python -m envctl.replay.failing REQUEST` sends a
request, a JSON object, and prints the answer: what share of the calls fails how, and how many were asked and failed since that began.
`{"how": "errors", "share": 0.5, "lease_s": 8}` begins (the same again renews the lease), `{"how": ""}` ends, `{}` only looks.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import grpc.aio
    from aiohttp import web

SOCKET = "\0envctl-stub"
WAYS = ("errors", "timeouts", "malformed")
BROKEN = b'{"broken": '  # no JSON
BROKEN_WIRE = b"\xff\xff\xff"  # no message of any type: a tag without an end
LOOK_S = 0.05
_LIMIT_S = 10.0


class Failing:
    """Which calls of a stub fail, and how."""

    def __init__(self) -> None:
        self._how, self._share, self._until = "", 0.0, 0.0
        self._asked = self._failed = 0
        self._random = random.Random()

    @property
    def how(self) -> str:
        """The way in which calls fail now; empty when none does."""
        return self._how if time.monotonic() < self._until else ""

    def draw(self) -> str:
        """The way in which the call that has come now fails; empty when it does not."""
        how = self.how
        if not how:
            return ""
        self._asked += 1
        if self._random.random() >= self._share:
            return ""
        self._failed += 1
        return how

    def told(self, request: dict[str, Any]) -> dict[str, Any]:
        """Does what a request asks for; returns how things are."""
        if request.get("how"):
            if (request["how"], request["share"]) != (self.how, self._share):
                self._asked = self._failed = 0
            self._how, self._share, self._until = request["how"], request["share"], time.monotonic() + request["lease_s"]
        elif "how" in request:
            self._how = ""
        return {"how": self.how, "asked": self._asked, "failed": self._failed}

    async def http(self, how: str) -> web.Response:
        """A failure in the words of HTTP."""
        from aiohttp import web

        if how == "timeouts":
            await self._hang()
        if how == "malformed":
            return web.Response(body=BROKEN, content_type="application/json")
        return web.json_response({"error": "this stub fails on purpose", "stub": True}, status=504 if how == "timeouts" else 503)

    async def grpc(self, how: str, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        """A failure in the words of gRPC."""
        import grpc

        if how == "timeouts":
            await self._hang()
        if how == "malformed":
            return BROKEN_WIRE
        await context.abort(grpc.StatusCode.UNAVAILABLE, "this stub fails on purpose")
        raise AssertionError("abort raises")

    async def _hang(self) -> None:
        """Gives no answer as long as calls time out; who has waited so long has given up."""
        while self.how == "timeouts":  # noqa: ASYNC110 - its lease ends without an event
            await asyncio.sleep(LOOK_S)

    async def serve(self) -> asyncio.Server:
        """Listens to requests, one a connection."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(json.dumps(self.told(json.loads(await reader.readline()))).encode() + b"\n")
            await writer.drain()
            writer.close()

        return await asyncio.start_unix_server(answer, SOCKET)


def main() -> int:
    """The command line."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_LIMIT_S)
        try:
            link.connect(SOCKET)
        except OSError as error:
            sys.stderr.write(f"no stub listens here: {error}\n")
            return 1
        link.sendall(f"{sys.argv[1]}\n".encode())
        sys.stdout.write(link.makefile().readline())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
