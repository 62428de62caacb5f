"""A small real system in a checkout of its own, its user, and everything that can be killed while the user works."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import chaos_census
import pytest
from chaos_census import Census, Process

REPOSITORY = Path(__file__).parents[2]
ROWS = 4000
TOPOLOGY = """
envctl: topology/v1
name: tiny
components:
  db: {kind: postgres, version: 15, databases: [tiny], migrations: migrations}
  app:
    kind: service
    source: app
    build: {command: [sh, build.sh], inputs: [app/build.sh]}
    command: [python3, /app/serve.py]
    needs: [db]
    ports: {http: 8080}
    ready: {http: /all}
"""
SERVE = """
import json, pathlib, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
kept, lock = pathlib.Path("/data/notes"), threading.Lock()
kept.touch()
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, [{"id": line} for line in kept.read_text().split()])
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        with lock, kept.open("a") as file:
            number = f"n{file.tell()}"
            file.write(number + "\\n")
        self.answer(201, {"id": number})
    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("0.0.0.0", 8080), Handler).serve_forever()
"""
SCENARIO = """
envctl: scenario/v1
name: small
stack: tiny
suites: [pr]
rng_seed: 1
seed: items
takes: [app]
traffic: {file: traffic/small.jsonl, to: app, rate: 20/s, for: 7s}
observe:
  written: {operation: write, id: response.id}
  stored: {http: /all, on: app, id: id}
steady: [success_rate(traffic) >= 90 %]
faults:
  - {at: 1s, for: 1s, fault: packet-loss, from: app, to: db, loss: 30 %}
recover: {within: 20s}
checks:
  - no-loss: {from: written, to: stored}
"""
KEPT = {"tools", "builds", "sources", "prepared", "snapshots", "pulumi", "envs", "seeds"}  # what a cache may keep

CLI, ENGINE, HELPERS, CELL, ALL = "the command", "the engine", "the helpers", "the cell", "everything"


@dataclass
class Running:
    """A command of the user that is under way."""

    process: subprocess.Popen[bytes]
    said: Path

    def text(self) -> str:
        return self.said.read_text(errors="replace")

    def wait(self, seconds: float = 180.0) -> int:
        """Its exit status; whatever it was, it never shows a stack trace."""
        status = self.process.wait(seconds)
        assert "Traceback" not in self.text(), self.text()
        return status


@dataclass
class Site:
    """A checkout with its own HOME, cache and place for temporary files, all below `root`."""

    root: Path
    cache: Path
    commands: list[Running] = field(default_factory=list)

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def envs(self) -> Path:
        return self.cache / "envs"

    # --- what the user does ---

    def start(self, *arguments: str) -> Running:
        said = self.root / "said" / f"{len(self.commands)}"
        said.parent.mkdir(exist_ok=True)
        env = {
            **os.environ, "HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp"), "ENVCTL_CACHE": str(self.cache),
            "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1",
        }
        env.pop("XDG_CACHE_HOME", None)
        with said.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "envctl", *arguments], cwd=self.project, env=env, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.commands.append(Running(process, said))
        return self.commands[-1]

    def ci(self, inconclusive: str = "fail") -> Running:
        return self.start("ci", "--full", "--scenario", "small", "--inconclusive", inconclusive)

    def envctl(self, *arguments: str) -> tuple[int, str]:
        running = self.start(*arguments)
        return running.wait(), running.text()

    # --- what there is ---

    def processes(self) -> list[Process]:
        """Living processes that speak of this site."""
        mark = os.fsencode(self.root)
        return [each for each in chaos_census.processes().values() if mark in each.text and each.state not in "ZX"]

    def environments(self) -> list[Path]:
        """Directories of living or dead environments, those that make snapshots apart."""
        found = self.envs.iterdir() if self.envs.is_dir() else ()
        return [path for path in found if path.is_dir() and not path.name.startswith((".", "snapshot-"))]

    def run_directory(self) -> Path | None:
        """Of the newest run."""
        return max((self.project / ".envctl" / "runs").glob("*Z-small"), default=None)

    def events(self) -> bytes:
        """The newest run's record so far."""
        directory = self.run_directory()
        return chaos_census.read(directory / "events.jsonl") if directory else b""

    def nodes(self) -> Counter[str]:
        """Living processes by the node they are the first process of."""
        found = (re.search(rb"envctl-node:([^\0]+)\0", each.text) for each in self.processes() if each.text.startswith(b"/bin/sh\0"))
        return Counter(match[1].decode() for match in found if match)

    def cells(self) -> Counter[str]:
        """Living first processes of cells (in a process namespace of their own), by environment."""
        called = ((pid, re.search(rb"\0envctl-cell\0([^\0]+)\0", line)) for pid, line in self._command_lines())
        return Counter(match[1].decode() for pid, match in called if match and _depth(pid) == ("2", "1"))

    def _command_lines(self) -> Iterator[tuple[int, bytes]]:
        """Of all that lives; of what speaks of this site only the environments' directories are named there."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            line = chaos_census.read(path)
            if os.fsencode(self.root) in line:
                yield int(path.parent.name), line

    def makers(self) -> list[Process]:
        """Processes of the cells in which snapshots are made, or that are about to make one."""
        return [each for each in self.processes() if b"\0envctl-cell\0snapshot-" in each.text]

    # --- what can be killed ---

    def victims(self, who: str, command: Running) -> list[int]:
        """Process ids; empty when there is no such process now.  The command itself is found without looking at all that lives."""
        cli = [command.process.pid] if command.process.poll() is None else []
        if who == CLI:
            return cli
        mine = chaos_census.family(chaos_census.processes(), command.process.pid)
        living = self.processes()
        engine = [pid for pid, _ in mine if chaos_census.read(Path(f"/proc/{pid}/comm")).startswith(b"pulumi")]
        helpers = [each.pid for each in living if re.search(rb"-m\0envctl\.(telemetry|runner|replay|seeding|engines|faults)", each.text)]
        cell = [each.pid for each in living if b"\0envctl-cell\0" in each.text]
        return {ENGINE: engine, HELPERS: helpers, CELL: cell, ALL: [*cli, *engine, *helpers, *cell]}[who]

    def kill(self, who: str, command: Running) -> int:
        """SIGKILL to all of them; returns how many."""
        found = self.victims(who, command)
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    # --- before and after ---

    @property
    def _watched(self) -> tuple[Path, ...]:
        return self.root / "home", self.root / "tmp", self.project, self.envs

    @property
    def _ignored(self) -> tuple[Path, ...]:
        """The runs, with the directory that holds them, are what a run is for; git's index is refreshed by looking."""
        return self.project / ".envctl" / "runs", self.project / ".envctl", self.envs, self.project / ".git" / "index"

    def take(self) -> Census:
        chaos_census.reap(but={each.process.pid for each in self.commands if each.process.returncode is None})
        return chaos_census.take(self.root, self._watched, ignored=self._ignored[:1])

    def left(self, before: Census, within_s: float = 15.0) -> list[str]:
        """What has come since and stays."""
        deadline = time.monotonic() + within_s
        allowed = {f"file {path} (-1 bytes)" for path in (self.project / ".envctl", self.envs)}
        allowed |= {f"file {self.project / '.envctl' / '.gitignore'} (2 bytes)"}
        while True:
            left = [line for line in chaos_census.leftovers(before, self.take()) if line not in allowed and ".git/index" not in line]
            left += [f"cache {path}" for path in self.cache.iterdir() if path.name not in KEPT]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.1)

    def end(self) -> None:
        """Ends what a failed test left."""
        for running in self.commands:
            if running.process.poll() is None:
                running.process.kill()
                running.process.wait()
        for each in self.processes():
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)


def _depth(pid: int) -> tuple[str, ...]:
    """How many process namespaces it is in, and its number in the innermost one."""
    for line in chaos_census.read(Path(f"/proc/{pid}/status")).decode(errors="replace").splitlines():
        if line.startswith("NSpid:"):
            numbers = line.split()[1:]
            return str(len(numbers)), numbers[-1]
    return ()


def until(condition: Callable[[], bool], seconds: float, poll_s: float = 0.01) -> bool:
    """Whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(poll_s)
    return True


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make(root: Path, cache: Path) -> Site:
    """A new checkout with the small system in it."""
    made = Site(root, cache)
    stack = made.project / "stacks" / "tiny"
    write(made.project / "envctl.yaml", "envctl: project/v1\nstack: stacks/tiny\nbase: main\n")
    write(made.project / ".gitignore", ".envctl/\n")
    write(stack / "topology.yaml", TOPOLOGY)
    write(stack / "app" / "serve.py", SERVE)
    write(stack / "app" / "build.sh", 'sleep 0.3; echo built > "$OUT/built"\n')
    write(stack / "migrations" / "001_item.sql", "create table item (id integer primary key, name text not null);\n")
    for name in ("Pulumi.yaml", "__main__.py"):
        shutil.copy(REPOSITORY / "stacks" / "hello" / name, stack)
    write(made.project / "scenarios" / "small.yaml", SCENARIO)
    write(made.project / "scenarios" / "traffic" / "small.jsonl", "".join(
        json.dumps({"at": number / 20, "op": "write", "http": "POST /notes", "key": f"k{number % 5}", "body": {}}) + "\n"
        for number in range(140)))
    rows = "id,name\n" + "".join(f"{number},item {number}\n" for number in range(ROWS))
    write(made.project / "seeds" / "items" / "items.csv", rows)
    write(made.project / "seeds" / "items" / "seed.yaml", (
        "envctl: seed/v1\nname: items\nload:\n"
        f"  - {{into: db/tiny, table: item, from: items.csv, rows: {ROWS}, sha256: {hashlib.sha256(rows.encode()).hexdigest()}}}\n"))
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "small")):
        subprocess.run(["git", "-c", "user.name=u", "-c", "user.email=u@example.org", *command], cwd=made.project, check=True)
    for name in ("home", "tmp"):
        (root / name).mkdir()
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "envs").mkdir(exist_ok=True)
    tools = Path(os.environ.get("ENVCTL_CACHE", Path.home() / ".cache" / "envctl")) / "tools"
    if not (cache / "tools").exists():
        (cache / "tools").symlink_to(tools)
    return made


@contextmanager
def adopted() -> Iterator[None]:
    """Meanwhile orphans come to us."""
    chaos_census.adopt()
    try:
        yield
    finally:
        chaos_census.adopt(yes=False)
        chaos_census.reap()


@pytest.fixture(scope="session")
def adopting() -> Iterator[None]:
    with adopted():
        yield


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, adopting: None) -> Iterator[Site]:
    """The small system with a warm cache: an untouched run has passed in it."""
    root = tmp_path_factory.mktemp("chaos")
    made = make(root, root / "cache")
    status, said = made.ci("retry").wait(), made.commands[-1].text()
    assert status == 0, said
    yield made
    made.end()


@pytest.fixture
def site(small: Site) -> Iterator[Site]:
    """The small system, with nothing alive before, and nothing after whatever the test did."""
    yield small
    small.end()
    for path in (*small.envs.iterdir(), small.project / ".envctl" / "state"):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
