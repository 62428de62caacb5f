"""A copy of the example project in a repository of its own, so that measuring changes nothing here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parents[1]
PARTS = ("envctl.yaml", "stacks", "scenarios", "seeds")
ENVCTL = str(Path(sys.executable).with_name("envctl"))


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the command line, with everything it waited for."""

    wall_s: float
    cpu_s: float
    output: str


@contextmanager
def copied() -> Iterator[Path]:
    """The copy; whatever is up in it is taken down at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        root = Path(name) / "shop"
        root.mkdir()
        for part in PARTS:
            source = HERE / part
            shutil.copytree(source, root / part, ignore=shutil.ignore_patterns("__pycache__")) if source.is_dir() else shutil.copy(source, root)
        for arguments in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "The shop")):
            subprocess.run(["git", "-c", "user.name=bench", "-c", "user.email=bench@localhost", *arguments], cwd=root, check=True)
        try:
            yield root
        finally:
            subprocess.run([ENVCTL, "-C", str(root), "down"], capture_output=True, check=False)


def envctl(root: Path, *arguments: str) -> Call:
    """Calls envctl in `root`.  Raises RuntimeError with what it said unless it exits 0."""
    return call([ENVCTL, "-C", str(root), *arguments])


def call(argv: Sequence[str]) -> Call:
    """Runs a command.  Raises RuntimeError with what it said unless it exits 0."""
    with tempfile.TemporaryFile() as output:
        begun = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"`{' '.join(argv)}` ended with {process.returncode}\n{said}")
    return Call(wall, used.ru_utime + used.ru_stime, said)
