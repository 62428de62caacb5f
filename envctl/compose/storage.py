"""Volumes, secrets and configs → what survives restarts, and files that are shown inside."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from envctl.compose.merging import volume_parts
from envctl.compose.report import Report
from envctl.compose.values import Cursor

_SHARED = "components share no files: each has its own {name!r}"
_HOST_PATH = "it is a path of the host outside of the project"


@dataclass(slots=True)
class Storage:
    """What a service keeps and is shown."""

    volumes: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)  # path inside → file or directory of the project
    made: dict[str, str] = field(default_factory=dict)  # path inside → content that stands in the Compose file itself


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are: what storage needs to know of a project."""

    root: Path  # what is not below it is the host's
    model: Cursor
    shared: frozenset[str]  # volumes that several services use
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a service's image is built from."""

    context: Path
    dockerfile: str  # its text; empty where it can't be read
    target: str  # the stage; empty: the last

    def has(self, path: Path, inside: str) -> bool:
        """Whether the image may have a directory of the project at a path inside: only where its Dockerfile tells does it not."""
        if not _overlap(path, self.context):
            return False
        workdir: str | None = None  # the base image's, which nobody knows here
        for word, rest in _steps(self.dockerfile, self.target):
            if word == "WORKDIR":
                workdir = None if "$" in rest or not (workdir or rest.startswith("/")) else posixpath.join(workdir or "/", rest)
            elif _copies(rest, self.context, path, workdir, inside):
                return True
        return not self.dockerfile


@dataclass(frozen=True, slots=True)
class Mount:
    """One entry of `volumes`, in either form."""

    cursor: Cursor
    kind: str  # volume, bind, tmpfs, …
    source: str
    target: str
    read_only: bool


def mounts_of(service: Cursor) -> list[Mount]:
    """The entries of `volumes`.  Raises SpecError."""
    volumes = service.find("volumes")
    return [_mount(each) for each in volumes.items()] if volumes else []


def relative(path: Path, stack: Path) -> str:
    """A path as the topology writes it: relative to the stack directory."""
    return Path(os.path.relpath(path.resolve(), stack.resolve())).as_posix()


def _mount(entry: Cursor) -> Mount:
    if entry.kind == "mapping":
        source, target, kind = entry.get("source"), entry.get("target"), entry.get("type")
        only = entry.find("read_only")
        if not target.startswith("/") or target == "/":
            raise entry.error(f"found the target {target!r}, allowed: an absolute path inside the container")
        if entry.find("bind") and (made := entry.find("bind", "create_host_path")):
            made.mark()
        return Mount(entry, kind or "volume", source, posixpath.normpath(target), bool(only and only.true()))
    parts = volume_parts(entry.text())
    if parts is None or not parts[1].startswith("/") or parts[1] == "/":
        raise entry.error(f"found {entry.text()!r}, allowed: [SOURCE:]/TARGET[:MODE]")
    source, target, mode = parts
    kind = "bind" if source.startswith((".", "/", "~")) else "volume"
    return Mount(entry, kind, source, posixpath.normpath(target), "ro" in mode.split(","))


def storage_of(service: Cursor, mounts: list[Mount], recipe: Recipe | None, places: Places, report: Report) -> Storage:
    """What a service keeps and is shown.  `recipe`: what its image is built from, where it is built."""
    storage = Storage()
    for mount in mounts:
        if mount.kind == "bind":
            _bind(mount, storage, recipe, places, report)
        elif mount.kind == "volume":
            _volume(mount, storage, places, report)
        else:
            report.tell(mount.cursor, "a directory of the container takes its place; it is not in memory" if mount.kind == "tmpfs" else "it is no volume and no file")
    for kind in ("secrets", "configs"):
        for grant in service.listed(kind):
            _grant(kind, grant, storage, places, report)
    return storage


def _volume(mount: Mount, storage: Storage, places: Places, report: Report) -> None:
    _add_volume(storage, mount.target)
    declared = places.model.entries().get("volumes")
    top = declared.entries().get(mount.source) if declared and mount.source else None
    if mount.source and top is None:
        raise mount.cursor.error(f"no volume is called {mount.source!r}", "declare it under `volumes:`")
    if top and (external := top.find("external")):
        report.note(external, "the content of a volume outside is not carried over: the component begins with an empty one")
        external.mark()
    if top and (name := top.find("name")):
        name.mark()  # it is the project's own, whatever it is called
    if top and top.kind == "null":
        top.mark()
    if mount.source in places.shared:
        report.note(mount.cursor, _SHARED.format(name=mount.source))


def _bind(mount: Mount, storage: Storage, recipe: Recipe | None, places: Places, report: Report) -> None:
    path = (mount.cursor.value.base / mount.source).resolve()
    if mount.source.startswith("~") or not path.is_relative_to(places.root):
        report.tell(mount.cursor, _HOST_PATH)
    elif path.is_dir() and any(path.iterdir()) and not mount.read_only and recipe and recipe.has(path, mount.target):
        report.tell(mount.cursor, "the image has these files; a change to them is taken over by `envctl up`, not while it runs")
    elif path.is_file() or (path.is_dir() and any(path.iterdir())):
        storage.files[mount.target] = path
        if not mount.read_only:
            report.note(mount.cursor, "it is shown read-only")
    elif mount.read_only:
        report.tell(mount.cursor, f"there is no {mount.source}")
    else:
        _add_volume(storage, mount.target)
        report.note(mount.cursor, f"there is nothing in {mount.source}: a volume takes its place")


def _overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)


def _steps(dockerfile: str, target: str) -> list[tuple[str, str]]:
    """The instructions WORKDIR, COPY and ADD of a stage (the last where none is called so) and of those that it builds on, in order."""
    stages: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in re.sub(r"\\[ \t]*\n", " ", re.sub(r"(?m)^[ \t]*#.*\n?", "", dockerfile)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.upper() == "FROM":
            base, *name = [each for each in rest.lower().split() if not each.startswith("--") and each != "as"] or [""]
            current = list(stages.get(base, ()))
            stages |= dict.fromkeys(name[:1], current)
        elif word.upper() in ("WORKDIR", "COPY", "ADD"):
            current.append((word.upper(), rest.strip()))
    return stages.get(target.lower(), current)


def _words(rest: str) -> list[str]:
    if rest.startswith("["):
        with suppress(ValueError):
            return [str(word) for word in json.loads(rest)]
    return rest.split()


def _copies(rest: str, context: Path, path: Path, workdir: str | None, inside: str) -> bool:
    """Whether COPY or ADD may bring what is in a directory of the project to a path inside."""
    flags, rest = re.findall(r"((?:--\S+\s+)*)(.*)", rest)[0]
    *sources, goal = _words(rest) or [""]
    if "$" not in goal and (workdir or goal.startswith("/")):
        goal = posixpath.normpath(posixpath.join(workdir or "/", goal))
        if not _overlap(Path(goal), Path(inside)):
            return False
    return "--from" in flags or any(_brings(source, context, path) for source in sources)


def _brings(source: str, context: Path, path: Path) -> bool:
    """Whether it is a directory with files of another one, or may be."""
    if re.search(r"[$*?\[]", source):
        return True
    found = (context / source.lstrip("/")).resolve()
    return found.is_dir() and _overlap(found, path)


def _add_volume(storage: Storage, target: str) -> None:
    if target not in storage.volumes:
        storage.volumes.append(target)


def _grant(kind: str, grant: Cursor, storage: Storage, places: Places, report: Report) -> None:
    """A secret or config of a service."""
    source = grant.get("source") if grant.kind == "mapping" else grant.text()
    target = grant.get("target") if grant.kind == "mapping" else ""
    if grant.kind == "mapping" and (mode := grant.find("mode")):
        report.tell(mode, "a file has the owner and mode that it has on the host")
    declared = places.model.find(kind, source)
    if declared is None:
        raise grant.error(f"no {kind[:-1]} is called {source!r}", f"declare it under `{kind}:`")
    inside = posixpath.normpath(posixpath.join("/run/secrets" if kind == "secrets" else "/", target or source))
    if inside == "/":
        raise grant.error(f"found the target {target!r}, allowed: a file inside the container")
    if called := declared.find("name"):
        called.mark()
    if file := declared.find("file"):
        path = (file.value.base / file.text()).resolve()
        if path.exists() and path.is_relative_to(places.root):
            storage.files[inside] = path
        else:
            report.note(file, f"there is no such file in the project; {inside} is missing in {grant.at[1]}")
    elif content := declared.find("content"):
        storage.made[inside] = content.text()
    elif kind == "configs" and (name := declared.get("environment")) in places.variables:
        storage.made[inside] = places.variables[name]
    elif variable := declared.find("environment"):
        report.note(variable, f"what is in the environment is written into no file: {inside} is missing in {grant.at[1]}, name a file by `file:`")
        variable.mark()
    elif external := declared.find("external"):
        report.note(external, f"it is kept elsewhere: {inside} is missing in {grant.at[1]}, name a file by `file:`")
        external.mark()
