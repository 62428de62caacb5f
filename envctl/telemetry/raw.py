"""Raw OTLP requests in a file: appended whole, readable up to the last whole record whatever happened to the writer.

A record is a 4-byte length, an 8-byte receive time (Unix nanoseconds), both big-endian, and that many bytes: the protobuf
request as it was sent, after decompression.  `docs/record.md` describes the files for other readers.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

Signal = Literal["traces", "metrics", "logs"]
SIGNALS: tuple[Signal, ...] = ("traces", "metrics", "logs")
_HEADER = struct.Struct(">IQ")


def path_of(directory: Path, signal: Signal) -> Path:
    """The file of one signal inside a telemetry directory."""
    return directory / f"{signal}.bin"


class RawWriter:
    """Appends to one file.  There is one writer; a torn tail left by a killed one is cut off first."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = whole_size(path)
        os.ftruncate(self._fd, self._size)
        os.lseek(self._fd, self._size, os.SEEK_SET)

    def append(self, body: bytes, received_ns: int) -> None:
        """Writes one record.  Raises OSError (a full disk); the file then ends where it ended before."""
        wanted = _HEADER.size + len(body)
        written = 0
        try:
            written = os.writev(self._fd, (_HEADER.pack(len(body), received_ns), body))
        finally:
            if written != wanted:
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
        if written != wanted:
            raise OSError(f"only {written} of {wanted} bytes could be written")
        self._size += wanted

    def close(self) -> None:
        """Closes the file."""
        os.close(self._fd)


def whole_size(path: Path) -> int:
    """Bytes up to the end of the last whole record; 0 for a file that isn't there."""
    end = 0
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return 0
    with file:
        size = os.fstat(file.fileno()).st_size
        while len(header := os.pread(file.fileno(), _HEADER.size, end)) == _HEADER.size:
            behind = end + _HEADER.size + _HEADER.unpack(header)[0]
            if behind > size:
                break
            end = behind
    return end


def read(path: Path, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(receive time in Unix ns, request) of each whole record from a position on; a torn tail, and a missing file, are the end."""
    try:
        file = path.open("rb", buffering=1 << 20)
    except FileNotFoundError:
        return
    with file:
        file.seek(start)
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, received_ns = _HEADER.unpack(header)
            body = file.read(length)
            if len(body) < length:
                return
            yield received_ns, body


def positions(directory: Path) -> dict[Signal, int]:
    """Where each file ends now, to copy what comes later with `copy_since`."""
    return {signal: whole_size(path_of(directory, signal)) for signal in SIGNALS}


def last_span_at(directory: Path) -> float:
    """When the newest request with spans was written, Unix seconds; 0 where none was."""
    try:
        return path_of(directory, "traces").stat().st_mtime
    except FileNotFoundError:
        return 0.0


def copy_since(directory: Path, since: Mapping[Signal, int], target: Path) -> None:
    """Copies what was appended after `since` into the files of `target` (whole records only; replaces them)."""
    target.mkdir(parents=True, exist_ok=True)
    for signal, end in positions(directory).items():
        begin = since.get(signal, 0)
        with path_of(target, signal).open("wb") as out:
            if end <= begin:
                continue
            with path_of(directory, signal).open("rb") as source:
                source.seek(begin)
                shutil.copyfileobj(source, out, 1 << 20)
                out.truncate(end - begin)
