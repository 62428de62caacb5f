"""What a command in a container says arrives whole, however the engine's answer comes."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from envctl.substrates.docker import engine
from envctl.substrates.docker.exec import Executed
from envctl.substrates.docker.identity import Identity

SAID = b"one\ntwo\n"


def answers(request: str) -> bytes:
    """An engine's, all of it in one packet."""
    if re.search(r"^POST \S+/exec/e1/start", request):
        return b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n\x01\0\0\0\0\0\0" + bytes([len(SAID)]) + SAID
    found = {"Id": "e1"} if "/containers/" in request else {"Running": False, "ExitCode": 0, "Pid": 7, "ApiVersion": "1.44", "Version": "28"}
    body = json.dumps(found).encode()
    return b"HTTP/1.1 200 OK\r\nApi-Version: 1.44\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


@pytest.fixture
def engine_in_one_packet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/sock")
        monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path / "cache"))
        forget()
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield
        forget()
        listening.shutdown(socket.SHUT_RDWR)


def forget() -> None:
    engine.version.cache_clear()
    engine.client.cache_clear()


def serve(listening: socket.socket) -> None:
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection:
            connection.sendall(answers(connection.recv(1 << 16).decode()))


@pytest.mark.usefixtures("engine_in_one_packet")
def test_what_comes_with_the_head_of_the_engines_answer_is_not_lost(tmp_path: Path) -> None:
    said, stdout = os.pipe()
    command = Executed(Identity("shop", tmp_path), "a-0", "shop-a-0", ["say"], {}, (None, stdout, None))
    os.close(stdout)
    with os.fdopen(said, "rb") as lines:
        assert lines.read() == SAID
    assert command.wait(10) == 0
