"""Where a Docker engine is expected nobody answers, or somebody else does: no command hangs or fails with it, and `doctor` says so.

And where one is expected: as the docker command does.
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from envctl.substrates.docker import Docker, engine


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
        listening.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/sock")
        monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path / "cache"))
        engine.version.cache_clear()
        yield listening
        engine.version.cache_clear()


def problem() -> str:
    ((what, _),) = Docker.lacks()
    return what


@pytest.mark.timeout(60)  # an engine that works on something may take longer than that
def test_one_that_never_answers_is_told_and_passed_over(listener: socket.socket) -> None:
    assert Docker.environments() == ()
    assert "does not answer" in problem()


def test_what_is_no_engine_is_told_in_its_own_words_and_passed_over(listener: socket.socket) -> None:
    def answer() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 11\r\n\r\nno upstream")

    answering = threading.Thread(target=answer)
    answering.start()
    assert Docker.environments() == ()
    assert "does not answer: no upstream" in problem()
    answering.join()


def test_one_of_another_machine_is_refused_and_passed_over(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    assert Docker.environments() == ()
    assert "tcp://192.0.2.1:2375 is not on this machine" in problem()
    engine.remember_use()  # then something may be there
    with pytest.raises(engine.CapabilityError, match="not on this machine"):
        Docker.environments()


@pytest.mark.docker
def test_the_context_of_the_docker_command_says_where_the_engine_is(docker_engine: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    without = engine.host()
    for name in ("laptop", "other"):
        subprocess.run(["docker", "context", "create", name, "--docker", f"host=unix:///run/{name}.sock"], check=True, capture_output=True)
    assert engine.host() == without
    subprocess.run(["docker", "context", "use", "laptop"], check=True, capture_output=True)
    assert engine.host() == "unix:///run/laptop.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert engine.host() == "unix:///run/other.sock"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert engine.host() == without
