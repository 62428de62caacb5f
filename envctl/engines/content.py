"""Content ids, and directories in the cache that are made once per content id.

An id depends on what something is, never on where or when: no absolute path of a cache, no time.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from envctl.spec.contexts import BY_PRODUCTS


def plain(value: object) -> Any:
    """The value as JSON types.  Positions in files (`line`) are left out: moving a component changes nothing."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {field.name: plain(getattr(value, field.name)) for field in fields(value) if field.name != "line"}
        return {"": type(value).__name__, **kept}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"{type(value).__name__} has no content id")


def digest(*parts: object) -> str:
    """The content id (32 hex digits of SHA-256) of values made of dataclasses, mappings, sequences and plain values."""
    text = json.dumps([plain(part) for part in parts], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tree_digest(path: Path) -> str:
    """The content id of a file or directory: names, contents, links and executable bits.  A missing path has one too."""
    return digest(list(_entries(path)))


def _entries(path: Path, name: str = "") -> Iterator[tuple[str, str, str]]:
    """(relative name, type, content) of everything below `path`, in a fixed order."""
    if path.is_symlink():
        yield name, "link", str(path.readlink())
    elif path.is_dir():
        yield name, "directory", ""
        for child in sorted(path.iterdir()):
            if child.name not in BY_PRODUCTS:
                yield from _entries(child, f"{name}/{child.name}")
    elif path.is_file():
        executable = path.stat().st_mode & stat.S_IXUSR
        yield name, "program" if executable else "file", file_digest(path)
    else:
        yield name, "missing", ""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_tree(source: Path, target: Path) -> None:
    """Copies a file or directory as `tree_digest` sees it; links stay links."""
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=lambda _, names: BY_PRODUCTS & set(names))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)


def shown(path: Path) -> None:
    """Lets everyone read what is below a directory: the user that a node runs as need not be its owner."""
    _readable(path)
    for file in path.rglob("*"):
        _readable(file)


def _readable(path: Path) -> None:
    mode = path.lstat().st_mode
    wanted = mode | (0o555 if mode & stat.S_IXUSR else 0o444)
    if not stat.S_ISLNK(mode) and wanted != mode:
        path.chmod(stat.S_IMODE(wanted))


def made_once(path: Path, make: Callable[[Path], None]) -> Path:
    """The directory `path`; if it is missing, `make` fills an empty one, which then takes its place as a whole.

    Safe to call from several processes at once: one makes it, the others wait.  What a killed process left half made is
    removed by the next.
    """
    if not path.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock")):
            if not path.is_dir():
                _make(path, make)
    os.utime(path)  # the cache is cleaned by last use
    return path


def _make(path: Path, make: Callable[[Path], None]) -> None:
    half = path.with_name(f".{path.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o755)
    try:
        make(half)
        half.replace(path)
    finally:
        shutil.rmtree(half, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
