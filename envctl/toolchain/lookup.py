"""Finds tools: on the machine first, then in the cache.  Nothing is fetched and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from envctl.errors import CapabilityError
from envctl.toolchain.tool import Tool, cache_dir, cached, tools_dir, write_whole

PULUMI_VERSION = "3.250.0"
DEFAULTS = {"pulumi": PULUMI_VERSION, "java": ">=17"}
"""What an empty version stands for; any version of the other tools will do."""

PROGRAMS: dict[str, tuple[str, ...]] = {
    "pulumi": ("pulumi",),
    "postgres": ("postgres", "initdb", "pg_ctl", "psql", "pg_isready", "pg_basebackup"),
    "redis": ("redis-server", "redis-cli"),
    "kafka": (),
    "java": ("java",),
    "nft": ("nft",),
    "ip": ("ip", "tc"),
}
"""The tools that envctl knows, and the programs without which each is of no use."""

_VERSION_FLAG = {"pulumi": "version", "ip": "-V"}
_NUMBER = re.compile(r"\d+(?:\.\d+)*")


def find(name: str, version: str = "") -> Tool:
    """The best tool of that name: the machine's before the cache's, then the newest.

    `version` is a prefix in whole parts ("15" takes 15.18, "4.1" takes 4.1.1), or ">=15", or empty for any that works.
    Raises CapabilityError, with what there is and what to do, when none fits.
    """
    if name not in PROGRAMS:
        raise CapabilityError(f"no tool is called {name!r}", hint=f"known: {', '.join(PROGRAMS)}")
    asked = version or DEFAULTS.get(name, "")
    there = available(name)
    for tool in there:
        if satisfies(tool.version, asked):
            return tool
    wish = f"{name} {asked}".strip()
    have = ", ".join(f"{tool.version} ({tool.home})" for tool in there) or "none"
    raise CapabilityError(f"{wish} is not here; there is: {have}", hint=f"run `envctl setup {shlex.quote(f'{name}@{version}') if version else name}`")


def available(name: str) -> tuple[Tool, ...]:
    """All usable tools of that name, the machine's first, each supplier's newest first."""
    tools = [*_on_machine(name), *cached(name)]
    return tuple(sorted(tools, key=lambda tool: (tool.source == "cache", [-part for part in parts(tool.version)])))


def parts(version: str) -> tuple[int, ...]:
    """The leading numbers of a version, for comparison."""
    number = _NUMBER.match(version)
    return tuple(int(part) for part in number.group().split(".")) if number else ()


def satisfies(have: str, asked: str) -> bool:
    """Whether a version is what was asked for (see `find`)."""
    if asked.startswith(">="):
        return parts(have) >= parts(asked[2:].strip())
    wanted = parts(asked)
    return parts(have)[: len(wanted)] == wanted


def which(program: str) -> Path | None:
    """A program of the machine; also looks where an ordinary user's PATH does not lead."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    return Path(found) if found else None


def _on_machine(name: str) -> Iterator[Tool]:
    seen: set[Path] = set()
    for directory in _directories(name):
        programs = {path.name: path for path in _programs(name, directory)}
        if directory in seen or not all(program in programs for program in PROGRAMS[name]):
            continue
        seen.add(directory)
        main = programs[PROGRAMS[name][0]]
        version, roots = _remembered(name, main)
        if version:
            yield Tool(name, version, _home(name, main), programs, roots)


def _directories(name: str) -> Iterator[Path]:
    """Directories of the machine that may hold the tool's programs."""
    if not PROGRAMS[name]:
        return  # Kafka has no usual place on a machine
    if name == "postgres":  # kept off PATH by most distributions, side by side by major version
        yield from Path("/usr/lib/postgresql").glob("*/bin")
        yield from Path("/usr").glob("pgsql-*/bin")
    if name == "pulumi":
        yield Path.home() / ".pulumi" / "bin"
    if name == "java" and os.environ.get("JAVA_HOME"):
        yield (Path(os.environ["JAVA_HOME"]) / "bin").resolve()
    main = which(PROGRAMS[name][0])
    if main:  # links into /etc/alternatives lead nowhere inside a node, so their end counts
        yield main.resolve().parent if name in {"java", "postgres"} else main.parent


def _programs(name: str, directory: Path) -> Iterator[Path]:
    """The tool's programs in a directory: for PostgreSQL all of it, otherwise those that are required."""
    if name == "postgres":
        candidates = list(directory.iterdir()) if directory.is_dir() else []
    else:
        candidates = [directory / program for program in PROGRAMS[name]]
    return (path for path in candidates if os.access(path, os.X_OK))


def _home(name: str, program: Path) -> Path:
    return program.parent.parent if name in {"java", "postgres"} else program.parent


def _remembered(name: str, program: Path) -> tuple[str, tuple[Path, ...]]:
    """Version and roots of a machine's program; asked once for each change of the program."""
    memory_file = tools_dir() / "machine.json"
    try:
        memory = json.loads(memory_file.read_text())
    except (OSError, ValueError):  # not there yet or damaged: it is only a memory
        memory = {}
    stamp = program.stat().st_mtime_ns
    known = memory.get(str(program))
    if known is None or known["stamp"] != stamp:
        known = {"stamp": stamp, "version": ask_version(name, program), "roots": _outside_usr(name, program)}
        with contextlib.suppress(OSError):  # a cache that can't be written only has to ask again
            write_whole(memory_file, memory | {str(program): known})
    return known["version"], tuple(Path(root) for root in known["roots"])


def pulumi_home() -> Path:
    """Where Pulumi keeps its logs and plug-ins when envctl calls it, and nobody has said otherwise."""
    return cache_dir() / "pulumi"


def ask_version(name: str, program: Path, env: dict[str, str] | None = None) -> str:
    """What a program says its version is; empty when it cannot be run or says nothing that looks like one."""
    flag = _VERSION_FLAG.get(name, "--version")
    here = {"PULUMI_HOME": str(pulumi_home()), **(os.environ if env is None else env)}  # it logs each call, this one too
    try:
        answer = subprocess.run([program, flag], capture_output=True, text=True, timeout=30, check=False, env=here)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    number = _NUMBER.search(re.sub(r"iproute2-", "", answer.stdout + answer.stderr)) if answer.returncode == 0 else None
    return number.group() if number else ""


def _outside_usr(name: str, program: Path) -> list[str]:
    """Directories that the program reads and a node would not see: its own home, and where Java's links into /etc lead."""
    home = _home(name, program)
    roots = set() if home.is_relative_to("/usr") else {home}
    if name == "java":
        ends = (path.resolve() for path in home.rglob("*") if path.is_symlink())
        places = {end if end.is_dir() else end.parent for end in ends if end.exists()}
        roots |= {place for place in places if not place.is_relative_to("/usr") and not place.is_relative_to(home)}
    return sorted(str(root) for root in roots if not any(root.is_relative_to(other) for other in roots - {root}))
