"""The verbs of an environment, as a user calls them, on a real cell with two small nodes."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from envctl.cli.environments import span, table
from envctl.cli.logs import chosen
from envctl.errors import UsageError
from envctl.waiting import until

STACKS = Path(__file__).parents[2] / "stacks"
SERVE = """
import http.server, sys
print("serving", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"hello")
    def log_message(self, *args):
        print("asked", self.path, flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
TOPOLOGY = """
envctl: topology/v1
name: pair
zones: [a, b]
components:
  front: {kind: service, source: front, command: [python3, /app/serve.py], needs: [back], ports: {http: 8080}, ready: {http: /}}
  back: {kind: service, source: back, command: [python3, /app/serve.py], ports: {http: 8080}, ready: {http: /}}
"""


@dataclass(frozen=True)
class User:
    """Somebody in a project's directory."""

    project: Path
    env: dict[str, str]

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        argv = [sys.executable, "-m", "envctl", *arguments]
        return subprocess.Popen(argv, cwd=self.project, env=self.env, text=True, **options)  # type: ignore[call-overload,no-any-return]

    def envctl(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        said, progress = process.communicate(timeout=120)
        return process.returncode, said, progress

    def json(self, *arguments: str) -> dict[str, object]:
        status, said, progress = self.envctl(*arguments, "--output", "json")
        assert status == 0, progress
        return dict(json.loads(said))


def make_user(root: Path) -> User:
    stack = root / "project" / "stacks" / "pair"
    for name in ("front", "back"):
        (stack / name).mkdir(parents=True)
        (stack / name / "serve.py").write_text(SERVE)
    (stack / "topology.yaml").write_text(TOPOLOGY)
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(STACKS / "hello" / name, stack)
    cache = root / "cache"
    cache.mkdir()
    tools = Path(os.environ.get("ENVCTL_CACHE", Path.home() / ".cache" / "envctl")) / "tools"
    (cache / "tools").symlink_to(tools)
    return User(root / "project", {**os.environ, "ENVCTL_CACHE": str(cache), "PYTHONPATH": str(STACKS.parent), "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    made = make_user(tmp_path_factory.mktemp("u"))
    status, _, progress = made.envctl("up", "--full")
    assert status == 0, progress
    yield made
    made.envctl("down")


@pytest.mark.cell
def test_status_answers_on_standard_output_and_nothing_else(user: User) -> None:
    status, said, progress = user.envctl("status")
    assert (status, progress) == (0, "")
    assert "front-0" in said
    known = user.json("status")
    assert known["format"] == "status/v1"
    assert [each["state"] for each in known["nodes"]] == ["ready", "ready"]  # type: ignore[attr-defined]


@pytest.mark.cell
def test_a_published_port_answers(user: User) -> None:
    address = user.json("status")["endpoints"]["front.http"]  # type: ignore[index]
    with urllib.request.urlopen(f"http://{address}/x", timeout=5) as answer:
        assert answer.read() == b"hello"


@pytest.mark.cell
def test_list_shows_the_environment_from_anywhere(user: User, tmp_path: Path) -> None:
    elsewhere = User(tmp_path, user.env)
    assert user.json("status")["id"] in [each["id"] for each in elsewhere.json("list")["environments"]]  # type: ignore[attr-defined]


@pytest.mark.cell
def test_up_with_nothing_changed_does_nothing(user: User) -> None:
    again = user.json("up", "--full")
    assert (again["unchanged"], again["started"]) == (True, [])


@pytest.mark.cell
def test_up_after_a_change_of_one_service_replaces_only_that(user: User) -> None:
    with (user.project / "stacks" / "pair" / "front" / "serve.py").open("a") as file:
        file.write("# changed\n")
    again = user.json("up", "--full")
    assert (again["unchanged"], again["started"]) == (False, ["front-0"])


@pytest.mark.cell
def test_logs_show_each_line_after_its_node(user: User) -> None:
    status, said, _ = user.envctl("logs", "back")
    assert status == 0
    assert "back-0 | serving\n" in said
    assert user.envctl("logs", "nobody")[0] == 2


@pytest.mark.cell
def test_logs_follow_until_they_are_interrupted(user: User) -> None:
    process = user.start("logs", "-f", "--tail", "0", "front-0", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    address = user.json("status")["endpoints"]["front.http"]  # type: ignore[index]
    assert process.stdout is not None

    def asked() -> bool:
        urllib.request.urlopen(f"http://{address}/followed", timeout=5).close()
        return bool(select.select([process.stdout], [], [], 0.3)[0])

    assert until(asked, 20)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=20)
    assert said.startswith("front-0 | asked /followed\n")
    assert process.returncode == 0


@pytest.mark.cell
def test_exec_runs_inside_the_node_and_ends_as_the_command_does(user: User) -> None:
    status, said, _ = user.envctl("exec", "front-0", "--", "sh", "-c", "hostname; echo oh >&2; exit 7")
    assert (status, said) == (7, "front-0\n")
    status, _, progress = user.envctl("exec", "front", "--", "true")
    assert (status, progress) == (2, "error: no node is called 'front'\nhint: did you mean 'front-0'? known: back-0, front-0\n")


@pytest.mark.cell
def test_exec_with_a_terminal_gives_the_command_one_of_its_own(user: User) -> None:
    ours, theirs = pty.openpty()
    argv = ("exec", "front-0", "--", "sh", "-c", "test -t 0 && test -t 1 && echo on a terminal; exec cat")
    process = user.start(*argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    said = b""

    def heard() -> bool:
        nonlocal said
        if select.select([ours], [], [], 0.2)[0]:
            said += os.read(ours, 4096)
        return b"on a terminal" in said

    assert until(heard, 20), said
    os.write(ours, b"\x03")
    assert process.wait(20) == 128 + signal.SIGINT
    os.close(ours)


@pytest.mark.cell
def test_where_there_is_no_environment_the_exit_code_says_so(user: User) -> None:
    for arguments in (("status", "nowhere"), ("down", "nowhere"), ("logs", "--env", "nowhere"), ("exec", "--env", "nowhere", "n", "--", "true")):
        status, said, progress = user.envctl(*arguments)
        assert (status, said) == (6, ""), progress


@pytest.mark.cell
def test_gc_finds_nothing_where_everything_is_alive(user: User) -> None:
    assert user.json("gc", "--dry-run")["found"] == []


@pytest.mark.cell
def test_an_interrupted_up_says_what_is_there_and_is_continued(tmp_path: Path) -> None:
    user = make_user(tmp_path)
    slow = SERVE.replace("import http", "import time; time.sleep(8)\nimport http")
    (user.project / "stacks" / "pair" / "front" / "serve.py").write_text(slow)
    process = user.start("up", "--full", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert until(lambda: any((tmp_path / "cache" / "envs").glob("*/logs/front-0.log")), 60)
        process.send_signal(signal.SIGINT)
        said, progress = process.communicate(timeout=60)
        assert (process.returncode, said) == (8, "")
        assert "is there with 1 nodes up" in progress
        assert user.json("up", "--full")["started"] == ["front-0"]
    finally:
        status, said, progress = user.envctl("down")
    assert status == 0, progress
    assert said.endswith(": nothing left\n")
    assert not [path for path in (user.project / ".envctl" / "state").rglob("*.json") if path.is_file()]


def test_logs_of_a_component_are_those_of_its_nodes() -> None:
    nodes = {"db-0": "db", "db-1": "db", "api-0": "api"}
    assert chosen(("db",), nodes) == ["db-0", "db-1"]
    assert chosen((), nodes) == list(nodes)
    with pytest.raises(UsageError, match="'dbb'"):
        chosen(("dbb",), nodes)


def test_durations_and_tables_are_said_as_people_say_them() -> None:
    assert [span(s) for s in (-3, 42, 720, 6600, 7200, 300000)] == ["0 s", "42 s", "12 min", "1 h 50 min", "2 h", "3 d"]
    assert table([("a", "b"), ("long", "c")]) == ["a     b", "long  c"]
    assert table([]) == []
