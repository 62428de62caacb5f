"""A tool, the user's cache, and how a tool is kept in it.

`tools/<name>/<version>/tool.json` says what it is, with paths relative to its directory, so that a cache can be moved;
`tools/machine.json` remembers versions of the machine's own programs, by path and time of change; `tools/<name>.lock` is
held while a tool is being made.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from envctl.errors import ResourceError


@dataclass(frozen=True, slots=True)
class Tool:
    """Programs of one supplier and version that are ready to be run."""

    name: str
    version: str
    home: Path
    programs: Mapping[str, Path]  # "postgres", "initdb", … → absolute path
    roots: tuple[Path, ...] = ()  # directories outside /usr that its programs read; shown read-only inside a node
    env: Mapping[str, str] = field(default_factory=dict)  # what its programs need, such as LD_LIBRARY_PATH
    source: str = "machine"  # or "cache"


@dataclass(frozen=True, slots=True)
class Made:
    """What a supplier put into a directory: paths are relative to it; `{home}` in `env` stands for the directory."""

    version: str
    programs: Mapping[str, str]
    env: Mapping[str, str] = field(default_factory=dict)


def cache_dir() -> Path:
    """The user's cache: $ENVCTL_CACHE, else $XDG_CACHE_HOME/envctl, else ~/.cache/envctl.  Made on demand, mode 0755.

    Raises ResourceError when it cannot be made.
    """
    own, base = os.environ.get("ENVCTL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    path = Path(own) if own else Path(base or Path.home() / ".cache") / "envctl"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise ResourceError(f"the cache {path} cannot be made: {error}", hint="set ENVCTL_CACHE to a directory of yours") from error
    return path.absolute()


def tools_dir() -> Path:
    """Where the tools of the cache are."""
    path = cache_dir() / "tools"
    path.mkdir(exist_ok=True)
    return path


def cached(name: str) -> Iterator[Tool]:
    """The finished and undamaged tools of that name in the cache, in no order."""
    for manifest in (tools_dir() / name).glob("[!.]*/tool.json"):
        tool = _read(name, manifest)
        if tool and all(path.exists() for path in tool.programs.values()):
            yield tool


def _read(name: str, manifest: Path) -> Tool | None:
    home = manifest.parent
    try:
        kept = json.loads(manifest.read_text())
        programs = {program: home / path for program, path in kept["programs"].items()}
        env = {key: value.replace("{home}", str(home)) for key, value in kept["env"].items()}
        return Tool(name, kept["version"], home, programs, (home,), env, "cache")
    except (ValueError, KeyError, AttributeError):  # damaged: as if it were not there, and setup makes it again
        return None


@contextmanager
def locked(name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock of a tool; waits for whoever has it, and says so.  The kernel frees it when its holder dies."""
    with (tools_dir() / f"{name}.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another setup that is at it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """An empty directory beside the tool's place; removed afterwards, and so is what a killed run left.  Needs the lock."""
    place = tools_dir() / name
    place.mkdir(exist_ok=True)
    for left in place.glob(".new-*"):
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=place))
    new.chmod(0o755)
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def publish(name: str, new: Path, made: Made) -> None:
    """Makes a scratch directory a finished tool, in one step.  A finished one of that version stays: it may be in use."""
    target = tools_dir() / name / made.version
    if any(tool.home == target for tool in cached(name)):
        return
    manifest = {"name": name, "version": made.version, "programs": dict(made.programs), "env": dict(made.env)}
    write_whole(new / "tool.json", manifest)
    if target.exists():  # a damaged one
        target.rename(new / "replaced")
    new.rename(target)
    shutil.rmtree(target / "replaced", ignore_errors=True)


def write_whole(path: Path, value: object) -> None:
    """Writes JSON so that a reader sees all of it or nothing of it."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    with os.fdopen(descriptor, "w") as handle:
        json.dump(value, handle, indent=1, sort_keys=True)
        handle.flush()
        os.fsync(handle.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(path)
