"""Connections through a cluster's API end as a whole, however they do."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from websocket import WebSocket

from envctl.substrates.kubernetes.api import _carried

PORT = 7413
BEGUN = b"\x82\x03\x01" + PORT.to_bytes(2, "little")  # the first frame of the channel for errors


@pytest.mark.parametrize("said", [b"\x82\x00", b"\x82\x02\x07x", BEGUN + b"\x82\x02\x01\xff", b"\x88\x00", b""], ids=["empty", "unknown channel", "not UTF-8", "close", "cut"])
def test_a_connection_ends_on_both_sides_whatever_the_api_says(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    tracebacks: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    near, far = socket.socketpair()
    websocket = WebSocket()
    websocket.sock, websocket.connected = near, True
    carried = _carried(websocket, PORT)
    for end in (carried, far):
        end.settimeout(20)
    far.sendall(said)
    if not said:
        far.shutdown(socket.SHUT_WR)
    assert carried.recv(1) == b""
    while far.recv(100):
        pass
    assert tracebacks == []
    carried.close()
    far.close()
