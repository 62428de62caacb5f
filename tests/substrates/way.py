"""A way to a cluster's API that can be cut."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit


class Way:
    """A port of this machine that leads to the API, and a kubeconfig for it."""

    def __init__(self, kubeconfig: Path, place: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        (cluster,), (context,) = config["clusters"], config["contexts"]
        self._port = urlsplit(cluster["cluster"]["server"]).port
        self._joined: list[tuple[socket.socket, socket.socket]] = []
        self._cut: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        cluster["cluster"]["server"] = f"https://127.0.0.1:{port}"
        self.context = context["name"] = config["current-context"] = f"way-{port}"
        self.kubeconfig = place / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(config))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Resets what is under way, at this end; the other end is told of nothing."""
        for near, _ in self._joined:
            self._cut.add(near)
            with suppress(OSError):
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                near.shutdown(socket.SHUT_RD)
        self._joined.clear()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(("127.0.0.1", self._port))
            self._joined.append((near, far))
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, target, near), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        with suppress(OSError):
            near.close() if near in self._cut else target.shutdown(socket.SHUT_WR)
