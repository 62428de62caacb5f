"""The data files of a seed: generated where they are not committed, and verified before anything is loaded."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from envctl.engines.builds import tied
from envctl.errors import Problem, ResourceError, SpecError
from envctl.model.seed import Generator, Seed, TableLoad, TopicLoad

Progress = Callable[[str], None]
CHUNK = 1 << 20
TAIL = 20  # lines of a failed generator's output that are shown


def digest(seed: Seed) -> str:
    """What the seed loads and where, by content: equal digests mean equal data."""
    parts = [_described(load) for load in seed.loads]
    return hashlib.sha256(json.dumps([seed.name, parts]).encode()).hexdigest()[:32]


def _described(load: TableLoad | TopicLoad) -> list[str | int]:
    if isinstance(load, TableLoad):
        return [load.component, load.database, load.table, load.rows, load.sha256]
    return [load.component, load.topic, load.key, load.messages, load.sha256]


def ready_files(seed: Seed, cache: Path, progress: Progress) -> dict[Path, Path]:
    """Where each load's file is, by the path the seed names; all of them verified.

    Raises SpecError with every missing or altered file at once, ResourceError when the generator fails.
    """
    out = _generated(seed, cache, progress) if seed.generate else None
    problems: list[Problem] = []
    found: dict[Path, Path] = {}
    for load in seed.loads:
        path = _locate(seed, load.file, out)
        if path is None:
            problems.append(Problem(seed.file, load.line, "load", f"{load.file} does not exist"))
            continue
        actual = _sha256(path)
        if actual != load.sha256:
            problems.append(Problem(seed.file, load.line, "sha256", f"{path.name} has sha256 {actual}, the seed says {load.sha256}",
                                    "the data changed: if that was meant, write the new checksum"))
        found[load.file] = path
    if problems:
        raise SpecError(problems)
    return found


def _locate(seed: Seed, file: Path, out: Path | None) -> Path | None:
    own = seed.file.parent / file
    generated = out / file.name if out else None
    return own if own.is_file() else generated if generated and generated.is_file() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _generated(seed: Seed, cache: Path, progress: Progress) -> Path:
    """The directory of the generator's output, kept by the content of its inputs."""
    assert seed.generate is not None
    home = cache / "seeds" / f"{seed.name}-{_generator_digest(seed.generate)}"
    home.parent.mkdir(parents=True, exist_ok=True)
    with (home.parent / f".{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.is_dir():
            progress(f"generating {seed.name}")
            _generate(seed, seed.generate, home)
    return home


def _generator_digest(generator: Generator) -> str:
    state = hashlib.sha256(json.dumps(generator.command).encode())
    for path in generator.inputs:
        state.update(_sha256(path).encode())
    return state.hexdigest()[:16]


def _generate(seed: Seed, generator: Generator, home: Path) -> None:
    out = home.with_name(f".{home.name}.half")
    shutil.rmtree(out, ignore_errors=True)  # of one that was killed
    out.mkdir()
    try:
        with tempfile.TemporaryFile() as output:
            with tied(generator.command, cwd=seed.file.parent, env={**os.environ, "OUT": str(out)}, output=output) as process:
                status = process.wait()
            if status:
                output.seek(0)
                tail = "\n".join(output.read().decode(errors="replace").splitlines()[-TAIL:])
                raise ResourceError(f"the generator of seed {seed.name} ended with status {status}\n{tail}")
        out.replace(home)
    finally:
        shutil.rmtree(out, ignore_errors=True)
