"""Files between a client and a keeper that do not share a file system; they have the same paths on both sides."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from envctl.errors import EnvctlError
from envctl.substrates.keeper.client import KeeperClient, checked
from envctl.substrates.keeper.wire import Message, Peer

_CHUNK = 1 << 18
_ANSWER = 4 << 20  # bytes of growing files in one answer
_POLL_S = 0.4
_FILTER: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 has it
Known = dict[str, tuple[int, int]]
"""Path below a directory → how much of which file (inode) the client has."""


# --- the keeper's side ---


async def put(peer: Peer, path: str) -> None:
    """Takes a tar of a file or directory, in place of what is there."""
    with tempfile.TemporaryFile() as packed:
        while (message := await peer.hear()) is not None and "data" in message:
            packed.write(base64.b64decode(message["data"]))
        packed.seek(0)
        await asyncio.to_thread(_unpack, packed, Path(path))


async def get(peer: Peer, path: str, most: int | None) -> Message:
    """Sends a tar of a file or directory; nothing when it has more bytes than `most`, or is not there."""
    with tempfile.TemporaryFile() as packed:
        if not await asyncio.to_thread(_packed, Path(path), packed, most):
            return {"missing": True}
        packed.seek(0)
        while data := packed.read(_CHUNK):
            await peer.tell({"data": base64.b64encode(data).decode()})
    return {"whole": True}


def _packed(path: Path, packed: IO[bytes], most: int | None) -> bool:
    """Packs a file or directory, or nothing where it is too large; whether it is there."""
    if path.exists() and (most is None or _size(path) <= most):
        _pack(path, packed)
    return path.exists()


def grown(directory: Path, known: Mapping[str, list[int]]) -> Message:
    """What is new in the files below a directory; `more` when it does not fit into one answer."""
    found: dict[str, Any] = {}
    room = _ANSWER
    for file in sorted(_files(directory)):
        name = str(file.relative_to(directory))
        with contextlib.suppress(FileNotFoundError), file.open("rb") as content:
            status = os.fstat(content.fileno())
            size, inode = known.get(name, (0, 0))
            start = size if inode == status.st_ino and size <= status.st_size else 0
            if status.st_size == start and inode == status.st_ino:
                continue
            content.seek(start)
            data = content.read(room)
            room -= len(data)
            found[name] = {"at": start, "inode": status.st_ino, "data": base64.b64encode(data).decode()}
        if room <= 0:
            break
    return {"files": found, "more": room <= 0}


# --- the client's side ---


def send(client: KeeperClient, path: Path) -> None:
    """Shows the keeper a file or directory."""
    with _conversation(client, {"do": "put", "path": str(path)}) as lines, tempfile.TemporaryFile() as packed:
        _pack(path, packed)
        packed.seek(0)
        while data := packed.read(_CHUNK):
            lines.send({"data": base64.b64encode(data).decode()})
        lines.send({"end": True})
        checked(lines.receive())


def fetch(client: KeeperClient, path: Path, target: Path, most: int | None) -> None:
    """Brings a file or directory.  Raises FileNotFoundError."""
    with _conversation(client, {"do": "get", "path": str(path), "most": most}) as lines, tempfile.TemporaryFile() as packed:
        while "data" in (message := checked(lines.receive())):
            packed.write(base64.b64decode(message["data"]))
        if message.get("missing"):
            raise FileNotFoundError(f"there is no {path} beside the nodes of {client.directory.name}")
        if packed.tell():
            packed.seek(0)
            _unpack(packed, target)


class Mirror:
    """Brings back what grows in a directory, every moment and once more at the end; what was brought is kept whatever happens."""

    def __init__(self, client: KeeperClient, directory: Path) -> None:
        self._client, self._directory = client, directory
        self._known: Known = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="mirror", daemon=True)

    def __enter__(self) -> None:
        """Begins."""
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """The rest; an environment that has gone has none."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(EnvctlError):
            while self._bring():
                pass

    def _follow(self) -> None:
        while not self._over.wait(_POLL_S):
            with contextlib.suppress(EnvctlError, OSError):
                while self._bring():
                    pass

    def _bring(self) -> bool:
        known = {name: list(each) for name, each in self._known.items()}
        answer = self._client.ask("grown", path=str(self._directory), known=known)
        for name, part in answer["files"].items():
            data = base64.b64decode(part["data"])
            self._keep(self._directory / name, part["at"], data)
            self._known[name] = (part["at"] + len(data), part["inode"])
        return bool(answer["more"])

    @staticmethod
    def _keep(file: Path, at: int, data: bytes) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("r+b" if file.exists() else "wb") as content:
            content.truncate(at)
            content.seek(at)
            content.write(data)


@contextlib.contextmanager
def _conversation(client: KeeperClient, request: Message) -> Iterator[Any]:
    lines = client.opened()
    try:
        lines.send({**request, **client.credentials})
        yield lines
    except ConnectionError as error:
        raise client.ended(request["do"]) from error
    finally:
        lines.close()


# --- both ---


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in _files(path))


def _pack(path: Path, packed: IO[bytes]) -> None:
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(path.resolve(), arcname=".")


def _unpack(packed: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=packed, mode="r") as tar:
        members = tar.getmembers()
        if len(members) == 1 and members[0].isfile():
            members[0].name = path.name
            tar.extract(members[0], path.parent, **_FILTER)
        else:
            tar.extractall(path, members, **_FILTER)  # noqa: S202 - packed by ourselves, and filtered
