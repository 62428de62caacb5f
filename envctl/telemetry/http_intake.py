"""Just enough of an HTTP/1.1 server for OTLP exporters.

An intake is on the critical path of every `up`: this costs nothing to import (a web framework takes a quarter of a second of
CPU) and reads bodies with a content length or in chunks, plain or gzipped, on kept-alive and pipelined connections.
RFC 9112 is the source of the grammar, the OTLP specification (section OTLP/HTTP) of the status codes.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Mapping
from http import HTTPStatus

MAX_BODY = 16 << 20  # bytes of one request, before and after decompression
MAX_HEAD = 64 << 10
MAX_PENDING = 48 << 20  # bytes of requests that are being received, over all connections
PROTOBUF = "application/x-protobuf"
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;.*)?")  # a size and its extensions (RFC 9112, section 7.1)

Handler = Callable[[str, bytes], int]
"""Takes (path, decompressed body), returns an HTTP status; 200 is an acknowledgement."""


class RefusalError(Exception):
    """A request that gets a status other than 200."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Pressure:
    """Bytes of requests that are being received, over all connections of a server."""

    def __init__(self, limit: int = MAX_PENDING) -> None:
        self.limit = limit
        self.pending = 0


def gunzip(body: bytes) -> bytes:
    """Decompresses gzip, at most MAX_BODY bytes.  Raises RefusalError."""
    stream = zlib.decompressobj(wbits=31)
    try:
        plain = stream.decompress(body, MAX_BODY)
    except zlib.error as error:
        raise RefusalError(HTTPStatus.BAD_REQUEST, f"not gzip: {error}") from error
    if stream.unconsumed_tail:
        raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large once decompressed")
    if not stream.eof:
        raise RefusalError(HTTPStatus.BAD_REQUEST, "gzip ends early")
    return plain


def take_chunk(data: bytes | bytearray, room: int) -> tuple[bytes, int] | None:
    """(content, bytes consumed) of the chunk that `data` begins with, None when it isn't complete yet; the last one is empty.

    Raises RefusalError, also for a chunk that says it will be larger than `room`.
    """
    end = data.find(b"\r\n", 0, MAX_HEAD)
    if end < 0:
        _refuse_if(len(data) >= MAX_HEAD, "the line of a chunk's size is too long")
        return None
    if not (line := _CHUNK.fullmatch(data, 0, end)):
        raise RefusalError(HTTPStatus.BAD_REQUEST, "bad chunk size")
    at, size = end + 2, int(line[1], 16)
    if size > room:
        raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
    if size == 0:  # trailers, if any, end with an empty line
        stop = data.find(b"\r\n\r\n", end, at + MAX_HEAD)
        _refuse_if(stop < 0 and len(data) >= at + MAX_HEAD, "trailers too large")
        return (b"", stop + 4) if stop >= 0 else None
    if len(data) < at + size + 2:
        return None
    _refuse_if(data[at + size : at + size + 2] != b"\r\n", "a chunk does not end where it said")
    return bytes(data[at : at + size]), at + size + 2


def _refuse_if(wrong: bool, reason: str) -> None:
    if wrong:
        raise RefusalError(HTTPStatus.BAD_REQUEST, reason)


class Connection(asyncio.Protocol):
    """One connection of an exporter."""

    def __init__(self, handler: Handler, pressure: Pressure) -> None:
        self._handler = handler
        self._pressure = pressure
        self._data = bytearray()
        self._chunks = bytearray()  # what has come of a chunked body
        self._head: tuple[str, str, Mapping[str, str]] | None = None
        self._held = 0  # this connection's share of the pressure
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Gives back this connection's share of the pressure."""
        self._hold(0)

    def data_received(self, data: bytes) -> None:
        """Handles every request that is whole by now."""
        self._data += data
        try:
            while not self._transport.is_closing() and self._step():
                pass
            self._hold(len(self._data) + len(self._chunks))
        except RefusalError as refusal:
            self._answer(refusal.status, str(refusal), close=True)

    def _hold(self, size: int) -> None:
        self._pressure.pending += size - self._held
        self._held = size
        if size and self._pressure.pending > self._pressure.limit:
            raise RefusalError(HTTPStatus.SERVICE_UNAVAILABLE, "busy, try again")

    def _step(self) -> bool:
        """Handles one whole request if there is one."""
        if self._head is None and not self._take_head():
            return False
        assert self._head is not None
        method, path, headers = self._head
        body = self._take_body(headers)
        if body is None:
            return False
        self._head = None
        if method != "POST":
            raise RefusalError(HTTPStatus.METHOD_NOT_ALLOWED, "POST only")
        if headers.get("content-type", "").split(";")[0].strip() != PROTOBUF:
            raise RefusalError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"only {PROTOBUF} is taken")
        plain = gunzip(body) if headers.get("content-encoding") == "gzip" else body
        self._answer(self._handler(path, plain), close=headers.get("connection", "").lower() == "close")
        return True

    def _take_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n", 0, MAX_HEAD)
        if end < 0:
            if len(self._data) >= MAX_HEAD:
                raise RefusalError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers too large")
            return False
        lines = self._data[:end].decode("latin-1").split("\r\n")
        del self._data[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            raise RefusalError(HTTPStatus.BAD_REQUEST, "not an HTTP/1.1 request")
        pairs = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        self._head = (words[0], words[1], headers)
        if headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _take_body(self, headers: Mapping[str, str]) -> bytes | None:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._take_chunks()
        length = headers.get("content-length", "0")
        _refuse_if(not re.fullmatch("[0-9]{1,18}", length), "bad content length")
        used = int(length)
        if used > MAX_BODY:
            raise RefusalError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too large")
        if len(self._data) < used:
            return None
        body = bytes(self._data[:used])
        del self._data[:used]
        return body

    def _take_chunks(self) -> bytes | None:
        while (chunk := take_chunk(self._data, MAX_BODY - len(self._chunks))) is not None:
            content, used = chunk
            del self._data[:used]
            self._chunks += content
            if not content:
                body = bytes(self._chunks)
                self._chunks.clear()
                return body
        return None

    def _answer(self, status: int, reason: str = "", *, close: bool = False) -> None:
        text = b"" if status == HTTPStatus.OK else (reason or HTTPStatus(status).phrase).encode()
        kind = PROTOBUF if status == HTTPStatus.OK else "text/plain"  # an empty message means: all was accepted
        retry = "retry-after: 1\r\n" if status == HTTPStatus.SERVICE_UNAVAILABLE else ""
        ending = "connection: close\r\n" if close else ""
        head = f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}\r\ncontent-type: {kind}\r\n{retry}{ending}"
        self._transport.write(f"{head}content-length: {len(text)}\r\n\r\n".encode() + text)
        if close:
            self._transport.close()
