"""Published ports: `python -m envctl.substrates.kubernetes.forward DIRECTORY`, a process on the user's machine for each environment.

It listens on loopback and leads each connection through the cluster's API to a node.  It ends with the environment.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.errors import EnvctlError, ResourceError
from envctl.substrates.keeper.wire import Lines
from envctl.substrates.locked import locked
from envctl.waiting import until

_MODULE = "envctl.substrates.kubernetes.forward"
_START_S = 10.0
_LOOK_S, _LOST_S = 2.0, 20.0  # how often it looks whether the environment lives; how long a keeper may be away
_LAST_S = 10.0  # for an answer that is still under way when the client has said its last
_CHUNK = 1 << 16


def _note(directory: Path) -> Path:
    return directory.parent.parent / "kubernetes" / "forward" / directory.name


def _known(directory: Path) -> dict[str, Any]:
    """What a living forwarder of that environment says; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        known: dict[str, Any] = json.loads(_note(directory).read_text(encoding="utf-8"))
        if str(directory).encode() in Path(f"/proc/{known['pid']}/cmdline").read_bytes().split(b"\0") or not Path("/proc").exists():
            return known
    return {}


def published(directory: Path) -> Mapping[str, str]:
    """Name → address on loopback."""
    found: Mapping[str, str] = _known(directory).get("published", {})
    return found


def publish(directory: Path, name: str, node: str, port: int) -> str:
    """Has a port led to a node's; starts the process where there is none."""
    note = _note(directory)
    note.parent.mkdir(parents=True, exist_ok=True)
    with locked(note.parent):
        known = _known(directory)
        if name in known.get("published", {}):
            return str(known["published"][name])
        if not known:
            note.unlink(missing_ok=True)
            subprocess.Popen(
                [sys.executable, "-P", "-m", _MODULE, str(directory)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )
            if not until(lambda: bool(_known(directory)), _START_S):
                raise ResourceError(f"the process that leads ports to {directory.name} did not start")
            known = _known(directory)
        lines = Lines(socket.create_connection(("127.0.0.1", known["port"]), timeout=_START_S))
        with contextlib.closing(lines):
            lines.send({"token": known["token"], "name": name, "node": node, "port": port})
            return str(lines.receive()["address"])


def end(directory: Path) -> None:
    """Ends the process of an environment."""
    if known := _known(directory):
        with contextlib.suppress(ProcessLookupError):
            os.kill(known["pid"], signal.SIGTERM)
        until(lambda: not _known(directory), _START_S)
    _note(directory).unlink(missing_ok=True)


def left(directory: Path) -> tuple[str, ...]:
    """The process, while it runs."""
    known = _known(directory)
    return (f"process {known['pid']} (published ports)",) if known else ()


class _Forwarder:
    def __init__(self, directory: Path) -> None:
        import secrets

        from envctl.substrates.kubernetes.reach import PodReach

        self._directory, self._reach = directory, PodReach(directory)
        self._token = secrets.token_hex(16)
        self._published: dict[str, str] = {}
        self._control = socket.create_server(("127.0.0.1", 0))

    def live(self) -> None:
        threading.Thread(target=self._hear, daemon=True).start()
        self._say()
        seen = time.monotonic()
        while time.monotonic() - seen < _LOST_S:
            time.sleep(_LOOK_S)
            with contextlib.suppress(EnvctlError):
                seen = time.monotonic() if self._reach.is_alive() else seen
        _note(self._directory).unlink(missing_ok=True)

    def _say(self) -> None:
        note = _note(self._directory)
        said = {"pid": os.getpid(), "port": self._control.getsockname()[1], "token": self._token, "published": self._published}
        temporary = note.with_name(f".{note.name}.{os.getpid()}")
        temporary.touch(mode=0o600)
        temporary.write_text(json.dumps(said), encoding="utf-8")
        temporary.replace(note)

    def _hear(self) -> None:
        while True:
            lines = Lines(self._control.accept()[0])
            with contextlib.closing(lines), contextlib.suppress(ConnectionError, ValueError, KeyError):
                request = lines.receive()
                if request["token"] == self._token:
                    lines.send({"address": self._publish(request["name"], request["node"], request["port"])})

    def _publish(self, name: str, node: str, port: int) -> str:
        if name not in self._published:
            listener = socket.create_server(("127.0.0.1", 0))
            self._published[name] = f"127.0.0.1:{listener.getsockname()[1]}"
            threading.Thread(target=self._serve, args=(listener, node, port), daemon=True).start()
            self._say()
        return self._published[name]

    def _serve(self, listener: socket.socket, node: str, port: int) -> None:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=self._carry, args=(client, node, port), daemon=True).start()

    def _carry(self, client: socket.socket, node: str, port: int) -> None:
        with contextlib.closing(client):
            try:
                far = self._reach.dialled(node, port)
            except EnvctlError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, as from a node that refuses
                return
            with contextlib.closing(far):
                back = threading.Thread(target=_pump, args=(far, client), daemon=True)
                back.start()
                _pump(client, far, half=True)
                back.join(_LAST_S)
                with contextlib.suppress(OSError):
                    far.shutdown(socket.SHUT_RDWR)  # a close alone would not be seen by who still reads from it


def _pump(source: socket.socket, target: socket.socket, *, half: bool = False) -> None:
    """Carries bytes until the source ends.  Through the API of a cluster no half of a connection can be closed."""
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        if not half:
            target.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _Forwarder(Path(sys.argv[1])).live()
