"""How an operation goes out: HTTP, gRPC or a Kafka message.  Each sender is made only when the traffic needs it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from envctl.errors import UsageError
from envctl.replay.grpcjson import Method, compile_protos
from envctl.replay.outcomes import MAX_BODY, Outcome, of_grpc_code, of_http_status, of_lost_connection
from envctl.spec.traffic import Line


@dataclass(frozen=True, slots=True)
class Request:
    """An operation with its templates filled in."""

    target: str
    method: str
    path: str
    key: str | None
    headers: Mapping[str, str]
    body: Any


class Sender(Protocol):
    """Sends requests of one protocol."""

    async def send(self, request: Request, traceparent: str, timeout_s: float) -> Outcome:
        """The outcome; a time-out is raised as TimeoutError, here or by the caller."""

    async def close(self) -> None:
        """Gives everything back."""


def _rounds(addresses: Mapping[str, Sequence[str]]) -> dict[str, Iterator[str]]:
    return {name: itertools.cycle(found) for name, found in addresses.items() if found}


def parsed(text: str) -> Any:
    """A JSON answer as its value, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def kept(answer: Any, size: int) -> Any:
    """What the record keeps of an answer of `size` characters."""
    return answer if size <= MAX_BODY else {"left_out": f"{size} characters"}


class HttpSender:
    """HTTP/1.1 over kept-alive connections; replicas of a component take turns."""

    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        import aiohttp

        self._aiohttp = aiohttp
        self._rounds = _rounds(addresses)
        # Idle connections are dropped before common servers drop them (5 s), so that a request seldom meets a closing one.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0, ttl_dns_cache=1)
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
        )

    async def send(self, request: Request, traceparent: str, timeout_s: float) -> Outcome:
        """Sends it and classifies the answer."""
        from yarl import URL

        url = URL(f"http://{next(self._rounds[request.target])}{request.path}", encoded=True)
        headers, data = {**request.headers, "traceparent": traceparent}, request.body
        if data is not None and not isinstance(data, str):
            data = json.dumps(data, separators=(",", ":"))
            headers = {"Content-Type": "application/json", **headers}
        try:
            async with asyncio.timeout(timeout_s):
                answering = self._session.request(request.method, url, headers=headers, data=data, allow_redirects=False)
                async with answering as response:
                    text = await response.text(errors="replace")
        except self._aiohttp.ClientConnectorError as error:
            return Outcome("fail", {"error": f"no connection: {error}"})
        except (self._aiohttp.ClientError, ConnectionError) as error:
            return Outcome(of_lost_connection(request.method), {"error": f"connection lost: {error or type(error).__name__}"})
        answer = parsed(text) if text else None
        value = {"status": response.status, "body": kept(answer, len(text))}
        return Outcome(of_http_status(request.method, response.status), value, answer)

    async def close(self) -> None:
        """Closes the connections."""
        await self._session.close()

    async def warm(self, requests: int = 30) -> None:
        """Runs the whole path against a server of our own, so that the first operation isn't the slow one."""

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.readuntil(b"\r\n\r\n"):
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self._rounds[""] = itertools.cycle([f"{host}:{port}"])
        for _ in range(requests):
            await self.send(Request("", "GET", "/", None, {}, None), "00-0-0-00", 5.0)
        server.close()


class GrpcSender:
    """Unary gRPC calls with JSON bodies."""

    def __init__(self, addresses: Mapping[str, Sequence[str]], protos: Sequence[str]) -> None:
        import grpc.aio

        self._grpc = grpc
        self.methods: Mapping[str, Method] = compile_protos(Path(file) for file in protos)
        channels = {one: grpc.aio.insecure_channel(one) for found in addresses.values() for one in found}
        self._channels = channels
        self._rounds = _rounds(addresses)

    async def send(self, request: Request, traceparent: str, timeout_s: float) -> Outcome:
        """Calls the method and classifies its status."""
        method = self.methods[request.method]
        call: Any = self._channels[next(self._rounds[request.target])].unary_unary(f"/{method.name}")
        metadata = (("traceparent", traceparent), *((name.lower(), value) for name, value in request.headers.items()))
        wire = method.encode(method.request, request.body or {})
        try:
            async with asyncio.timeout(timeout_s):
                body = cast("bytes", await call(wire, metadata=metadata))
        except self._grpc.aio.AioRpcError as error:
            code, details = error.code().name, error.details() or ""
            return Outcome(of_grpc_code(code, details), {"status": code, "error": details})
        answer = method.decode(method.response, body)
        return Outcome("ok", {"status": "OK", "body": kept(answer, len(body))}, answer)

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels.values():
            await channel.close()


class KafkaSender:
    """Idempotent produces, acknowledged by all in-sync replicas."""

    def __init__(self, bootstrap: str, timeout_s: float) -> None:
        from threading import Thread

        from confluent_kafka import KafkaError, Producer

        self._refusals = {
            KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
            KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD,
        }
        settings = {"acks": "all", "enable.idempotence": True, "linger.ms": 0, "message.timeout.ms": int(timeout_s * 1000), "log_level": 0}
        self._producer = Producer({"bootstrap.servers": bootstrap, **settings})
        self._open = True
        self._thread = Thread(target=self._poll, name="kafka-poll", daemon=True)
        self._thread.start()

    def _poll(self) -> None:
        while self._open:
            self._producer.poll(0.1)

    async def send(self, request: Request, traceparent: str, timeout_s: float) -> Outcome:
        """Produces one message and waits for its delivery report."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        def delivered(error: Any, message: Any) -> None:
            loop.call_soon_threadsafe(settle, self._outcome(error, message))

        body = request.body
        value = body if body is None or isinstance(body, str) else json.dumps(body, separators=(",", ":"))
        headers: list[tuple[str, str | bytes | None]] = [("traceparent", traceparent), *request.headers.items()]
        try:
            self._producer.produce(request.method, value, key=request.key, headers=headers, on_delivery=delivered)
        except BufferError as error:  # the local queue is full: it never left
            return Outcome("fail", {"error": str(error)})
        async with asyncio.timeout(timeout_s):
            return await done

    def _outcome(self, error: Any, message: Any) -> Outcome:
        if error is not None:
            return Outcome("fail" if error.code() in self._refusals else "info", {"error": error.str()})
        value = {"topic": message.topic(), "partition": message.partition(), "offset": message.offset()}
        return Outcome("ok", value, value)

    async def close(self) -> None:
        """Hands over what is queued, for a second at most."""
        self._open = False
        self._thread.join()
        self._producer.flush(1.0)


def make_senders(
    lines: Sequence[Line], to: str, targets: Mapping[str, Mapping[str, Sequence[str]]], *, kafka: str, protos: Sequence[str],
    timeout_s: float,
) -> dict[str, Sender]:
    """The senders that the lines need, by protocol.  Raises UsageError for a line that has nowhere to go."""
    used = {line.protocol for line in lines}
    addresses = {
        protocol: {name: tuple(found[protocol]) for name, found in targets.items() if found.get(protocol)}
        for protocol in ("http", "grpc")
    }
    senders: dict[str, Sender] = {}
    for line in lines:
        if line.protocol != "kafka" and (line.to or to) not in addresses[line.protocol]:
            raise UsageError(f"line {line.number}: {line.to or to!r} has no {line.protocol} port")
    if "http" in used:
        senders["http"] = HttpSender(addresses["http"])
    if "grpc" in used:
        senders["grpc"] = grpc = GrpcSender(addresses["grpc"], protos)
        for line in lines:
            if line.protocol == "grpc" and line.method not in grpc.methods:
                raise UsageError(f"line {line.number}: no .proto file declares {line.method}")
    if "kafka" in used:
        if not kafka:
            raise UsageError("the traffic writes to Kafka, but the environment has none")
        senders["kafka"] = KafkaSender(kafka, timeout_s)
    return senders
