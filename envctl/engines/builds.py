"""The build step of a program: run once per content, kept in the cache, seen by the node at `/build`."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from envctl.engines.content import copy_tree, digest, made_once, shown, tree_digest
from envctl.engines.interpreters import own_python
from envctl.errors import ResourceError
from envctl.model.topology import Build, Job, Service, Topology

BUILD = "/build"
_LAST_LINES = 30
_REPORT_EVERY_S = 5.0
_TIED = 'exec 3<&0 </dev/null; { read -r _ <&3; kill -KILL 0; } & "$@" 3<&-'
"""Only we hold the other end of its input, which closes when we go, however we go: then all that it has started is killed."""


def build_id(topology: Topology, build: Build, source: str) -> str:
    """The content id of a build: its inputs (without any: the whole source), its command, and where its result can run."""
    inputs = {path: tree_digest(topology.directory / path) for path in build.inputs} or source
    python = own_python()
    return digest(inputs, build.command, python.id, str(python.prefix), platform.machine(), platform.libc_ver())


def built(
    topology: Topology, program: Service | Job, source: tuple[Path, str], cache: Path, progress: Callable[[str], None]
) -> tuple[Path, str] | None:
    """The directory a program's build left and its content id; builds it if need be.  None for a program without build.

    Raises ResourceError with the last lines of the output and the path of the whole log where the command fails.
    """
    if program.build is None:
        return None
    build = program.build
    copy, source_id = source
    key = build_id(topology, build, source_id)
    log = cache / "builds" / f"{key}.log"
    say = lambda text: progress(f"build {program.name}  {text}")  # noqa: E731

    def make(half: Path) -> None:
        work = half.with_name(f".{key}.work")  # in the cache, so that the next build removes it after one that was killed
        shutil.rmtree(work, ignore_errors=True)
        try:
            _run(build, _lay_out(topology, program, build, copy, work), half, log, say)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        if not any(half.iterdir()):
            raise ResourceError(f"the build of {program.name} left nothing", hint="a build leaves its result in the directory $OUT")
        _move_shebangs(half)
        shown(half)

    return made_once(cache / "builds" / key, make), key


def _lay_out(topology: Topology, program: Service | Job, build: Build, copy: Path, work: Path) -> Path:
    """Copies source and inputs to where they stand relative to each other in the stack; returns the source's place."""
    assert program.source  # a build belongs to one
    paths = [PurePosixPath(os.path.normpath(path)) for path in (program.source.path, *build.inputs)]
    up = max(path.parts.count("..") for path in paths)
    base = work.joinpath("tree", *("stack",) * up)
    for path in paths[1:]:
        target = Path(os.path.normpath(base / path))
        target.parent.mkdir(parents=True, exist_ok=True)
        if (topology.directory / path).exists():
            copy_tree(topology.directory / path, target)
    place = Path(os.path.normpath(base / paths[0]))
    place.parent.mkdir(parents=True, exist_ok=True)
    copy_tree(copy, place)
    return place


def _run(build: Build, directory: Path, out: Path, log: Path, say: Callable[[str], None]) -> None:
    status = _watch(build, directory, out, log, say)
    if status:
        raise ResourceError(
            f"the build ended with status {status}: {' '.join(build.command)}\n{_tail(log)}",
            hint=f"the whole output is in {log}",
        )


def _watch(build: Build, directory: Path, out: Path, log: Path, say: Callable[[str], None]) -> int:
    """Runs the command to its end, saying every few seconds how long it takes."""
    start = time.monotonic()
    with log.open("wb") as output, tied(build.command, cwd=directory, env=_environment(out), output=output) as process:
        while True:
            say(f"{time.monotonic() - start:.0f} s")
            try:
                return process.wait(_REPORT_EVERY_S)
            except subprocess.TimeoutExpired:
                continue


@contextmanager
def tied(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a command of the user's without terminal or input; it, and what it started, ends with the block, and with us when we are killed.

    Its exit status is as a shell's: 127 when there is no such command, 128 + signal when it was killed.
    """
    with subprocess.Popen(
        ["sh", "-c", _TIED, "sh", *command], cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _environment(out: Path) -> dict[str, str]:
    """The user's own environment (a package client needs its settings), with envctl's interpreter first on PATH."""
    hidden = {"VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__"}
    kept = {key: value for key, value in os.environ.items() if key not in hidden}
    path = f"{own_python().bin}{os.pathsep}{kept.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
    return {**kept, "PATH": path, "OUT": str(out), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def _tail(log: Path) -> str:
    with log.open(errors="replace") as lines:
        return "".join(f"  {line}" for line in deque(lines, _LAST_LINES)).rstrip()


def _move_shebangs(out: Path) -> None:
    """Scripts of a virtual environment name their interpreter by absolute path; make that the path the node sees."""
    old, new = f"#!{out}/".encode(), f"#!{BUILD}/".encode()
    for script in (out / "bin").glob("*"):
        if script.is_file() and not script.is_symlink():
            with script.open("rb") as file:
                if file.read(len(old)) != old:
                    continue
                rest = file.read()
            script.write_bytes(new + rest)
