"""Work in a pod of its own: what the Job is, and what runs in it, told by its own words and by the cluster's."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from envctl.errors import ResourceError
from envctl.substrates.base import LOST
from envctl.substrates.keeper.place import TOKEN
from envctl.substrates.keeper.streams import Streamed
from envctl.substrates.keeper.wire import Lines
from envctl.substrates.kubernetes import work
from envctl.substrates.kubernetes.identity import ENV, PART, Identity
from envctl.substrates.kubernetes.objects import environment_objects
from envctl.substrates.kubernetes.pods import ended_of

HERE = Identity("shop-main-abc", "machine:/somewhere/shop-main-abc")


def keeper(storage: str | None = "") -> Any:
    return environment_objects(HERE, Path("/somewhere/shop-main-abc"), "envctl:1", storage=storage)[-1]


def test_a_job_has_the_keepers_image_files_and_secret_on_its_machine_and_no_right_to_ask_the_api() -> None:
    made = work.work_object(HERE, "envctl-run-1", ["python3", "-c", "$(HOME)"], keeper())
    pod, theirs = made["spec"]["template"]["spec"], keeper()["spec"]["template"]["spec"]
    (container,), (other,) = pod["containers"], theirs["containers"]
    assert (made["kind"], made["spec"]["backoffLimit"], pod["restartPolicy"]) == ("Job", 0, "Never")
    assert made["spec"]["template"]["metadata"]["labels"] == made["metadata"]["labels"] == HERE.labels("work")
    assert made["metadata"]["labels"][ENV] == "shop-main-abc"
    for shared in ("image", "volumeMounts", "securityContext"):
        assert container[shared] == other[shared]
    assert all(each in container["env"] for each in other["env"])
    assert pod["volumes"] == theirs["volumes"]
    assert pod["securityContext"] == theirs["securityContext"]
    assert container["args"] == ["python3", "-c", "$$(HOME)"]
    (near,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert near["labelSelector"]["matchLabels"].items() <= keeper()["spec"]["template"]["metadata"]["labels"].items()
    assert near["labelSelector"]["matchLabels"] == {PART: "keeper"}
    assert "serviceAccountName" not in pod
    assert not pod["automountServiceAccountToken"]
    assert {"requests", "limits"} <= container["resources"].keys()


def test_where_a_cluster_has_no_storage_the_keepers_files_are_its_pods() -> None:
    things = environment_objects(HERE, Path("/somewhere/shop-main-abc"), "envctl:1", storage=None)
    assert not [thing for thing in things if thing["kind"] == "PersistentVolumeClaim"]
    assert things[-1]["spec"]["template"]["spec"]["volumes"] == [{"name": "kept", "emptyDir": {}}]


@pytest.mark.parametrize(("storage", "named"), [("", None), ("fast", "fast")])
def test_the_keepers_files_are_on_a_volume_of_its_own(storage: str, named: str | None) -> None:
    things = environment_objects(HERE, Path("/somewhere/shop-main-abc"), "envctl:1", storage=storage)
    (claim,) = (thing for thing in things if thing["kind"] == "PersistentVolumeClaim")
    assert claim["spec"].get("storageClassName") == named
    assert things[-1]["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


HEALS = ("sh", "-c", """trap 'sleep 0.3; echo abandoned > "$WORDS"; exit 0' HUP; cat >/dev/null; while :; do sleep 0.05; done""")
TERMINATED = {"phase": "Failed", "containerStatuses": [{"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}


@pytest.mark.parametrize(("status", "ended"), [
    ({"phase": "Running", "containerStatuses": [{"name": "main", "state": {"running": {}}}]}, None), ({"phase": "Pending"}, None),
    (TERMINATED, (137, "ended with status 137 (OOMKilled)")),
    ({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}, (137, "ended with status 137 (Evicted: low on memory)")),
])
def test_how_a_pod_has_ended_is_told_with_the_clusters_reason(status: Any, ended: Any) -> None:
    assert ended_of({"status": status}) == ended


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORDS", str(tmp_path / "words"))
    return tmp_path / "words"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def pod(port: int, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """What runs in a Job, here."""
    code = (
        "import asyncio, sys; from envctl.substrates.keeper import streams; from envctl.substrates.kubernetes import work\n"
        f"work.PORT, streams._BEAT_S = {port}, 0.02; sys.exit(asyncio.run(work.Worker(sys.argv[1:]).live()))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *request.param], env={**os.environ, TOKEN: "secret"})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def raw(port: int) -> socket.socket:
    deadline = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def connected(port: int, token: str = "secret") -> Lines:
    lines = Lines(raw(port))
    lines.sock.settimeout(None)
    lines.send({"token": token, "env": {"GREETING": "hello"}})
    return lines


def joined(port: int) -> tuple[Streamed, int, int]:
    """The command, what it says, and its lifeline."""
    (read, write), (lifeline, ours) = os.pipe(), os.pipe()
    command = Streamed(connected(port), lifeline, write, write)
    os.close(write)
    os.close(lifeline)
    return command, read, ours


@pytest.mark.parametrize("pod", [("sh", "-c", 'echo "$GREETING"; cat; exit 7')], indirect=True)
def test_the_first_with_the_token_gets_the_commands_streams_and_status(pod: subprocess.Popen[bytes], port: int) -> None:
    with pytest.raises(ConnectionError):
        connected(port, "wrong").receive()
    command, read, ours = joined(port)
    os.write(ours, b"in\n")
    os.close(ours)
    assert command.wait(20) == 7
    assert os.read(read, 100) == b"hello\nin\n"
    assert pod.wait(20) == 7
    os.close(read)


@pytest.mark.parametrize(("pod", "status"), [
    (("sh", "-c", f"trap 'exit {said}' HUP; echo up; cat >/dev/null; while :; do sleep 0.05; done"), status)
    for said, status in ((0, LOST), (143, LOST), (1, 1), (3, 3), (137, 137))
], indirect=["pod"])
def test_a_command_that_fails_when_its_client_has_gone_has_not_ended_in_good_order(pod: subprocess.Popen[bytes], port: int, status: int) -> None:
    lines = connected(port)
    assert "pid" in lines.receive()
    while lines.receive() != {"out": base64.b64encode(b"up\n").decode()}:
        pass
    lines.close()
    assert pod.wait(20) == status


@pytest.mark.parametrize("pod", [("sh", "-c", "trap 'echo healed; exit 0' TERM; echo up; while :; do sleep 0.05; done")], indirect=True)
def test_a_pod_that_is_to_end_lets_its_command_end_in_good_order_and_says_so(pod: subprocess.Popen[bytes], port: int) -> None:
    command, read, ours = joined(port)
    assert os.read(read, 100) == b"up\n"
    pod.send_signal(signal.SIGTERM)
    assert command.wait(20) == 128 + signal.SIGTERM, "and not as if nothing had been"
    assert os.read(read, 100) == b"healed\nenvctl: the pod was told to end\n"
    assert pod.wait(20) == 128 + signal.SIGTERM
    os.close(read)
    os.close(ours)


@pytest.mark.parametrize("pod", [HEALS], indirect=True)
def test_a_command_whose_client_goes_learns_it_and_is_waited_for(words: Path, pod: subprocess.Popen[bytes], port: int) -> None:
    lines = connected(port)
    assert "pid" in lines.receive()
    assert lines.receive() == {"out": ""}, "it is never silent for long"
    lines.close()
    assert pod.wait(20) == LOST
    assert words.read_text() == "abandoned\n"


@pytest.mark.parametrize("pod", [HEALS], indirect=True)
def test_a_client_who_comes_again_has_lost_its_connection_although_nothing_here_shows_it(words: Path, pod: subprocess.Popen[bytes], port: int) -> None:
    lines = connected(port)
    assert "pid" in lines.receive()
    with pytest.raises(ConnectionError):
        connected(port, "wrong").receive()
    assert pod.poll() is None
    connected(port).close()
    assert pod.wait(20) == LOST
    assert words.read_text() == "abandoned\n"
    lines.close()


@pytest.mark.parametrize("pod", [HEALS], indirect=True)
def test_who_says_nothing_or_nonsense_keeps_nobody_from_being_heard(words: Path, pod: subprocess.Popen[bytes], port: int) -> None:
    silent = [raw(port)]
    for nonsense in (b"nonsense\n", b"[]\n", '{"token": "\u00fc"}\n'.encode(), b"\xff\n"):
        with raw(port) as sock:
            sock.sendall(nonsense)
            assert sock.recv(1) == b""
    lines = connected(port)
    assert "pid" in lines.receive()
    silent.append(raw(port))
    with raw(port) as sock:
        sock.sendall(b"nonsense\n")
        assert sock.recv(1) == b""
    connected(port).close()
    assert pod.wait(20) == LOST
    assert words.read_text() == "abandoned\n"
    lines.close()
    for sock in silent:
        sock.close()


@pytest.mark.parametrize("pod", [("sh", "-c", "trap '' HUP; cat >/dev/null; kill -9 $$")], indirect=True)
def test_a_command_that_is_killed_when_its_client_has_gone_has_not_ended_in_good_order(pod: subprocess.Popen[bytes], port: int) -> None:
    lines = connected(port)
    assert "pid" in lines.receive()
    lines.close()
    assert pod.wait(20) == 128 + signal.SIGKILL


@pytest.mark.parametrize("pod", [("sleep", "44")], indirect=True)
def test_a_signal_of_the_clients_goes_to_the_command(pod: subprocess.Popen[bytes], port: int) -> None:
    command = Streamed(connected(port), None, None, None)
    assert command.poll() is None
    command.signal(signal.SIGUSR1)
    assert command.wait(20) == 128 + signal.SIGUSR1
    assert pod.wait(20) == 128 + signal.SIGUSR1


@pytest.mark.parametrize("pod", [("no-such-command",)], indirect=True)
def test_a_command_that_is_not_there_is_told(pod: subprocess.Popen[bytes], port: int) -> None:
    with pytest.raises(ResourceError, match="no-such-command can't be run"):
        Streamed(connected(port), None, None, None)
    assert pod.wait(20) == 127


class Evicts:
    """An API whose only pod runs, and is evicted once somebody has spoken with it."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.apply = self.delete = lambda *_: None

    def find(self, *_: Any) -> list[Any]:
        gone = {"phase": "Failed", "reason": "Evicted", "message": "low on memory"}
        return [{"metadata": {"name": "work-1"}, "spec": {}, "status": gone if self.asked else {"phase": "Running"}}]

    def dial(self, *_: Any) -> socket.socket:
        ours, theirs = socket.socketpair()

        def hear() -> None:
            lines = Lines(theirs)
            self.asked.append(lines.receive())
            lines.close()

        threading.Thread(target=hear, daemon=True).start()
        return ours


@pytest.mark.parametrize("asked", [False, True])
def test_a_command_that_may_have_begun_is_not_begun_elsewhere_where_its_pod_is_evicted(asked: bool) -> None:
    cluster = Evicts()
    cluster.asked = [] if asked else ["somebody else"]
    reach: Any = SimpleNamespace(identity=HERE, api=cluster, token=lambda: "secret")
    with pytest.raises(ResourceError, match="Evicted: low on memory") as refused:
        work.Work(reach, "seed").start(["true"], {}, (None, None, None), keeper())
    assert isinstance(refused.value, work.NoRoomError) != asked
