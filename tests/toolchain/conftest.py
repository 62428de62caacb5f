from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from envctl.toolchain.tool import Made, publish, scratch


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with an empty cache and an empty home, and a PATH of one empty directory, which is returned."""
    for name in ("bin", "home", "cache"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    return tmp_path / "bin"


@pytest.fixture
def program(bare: Path) -> Callable[..., Path]:
    """Puts a program on PATH that says a version and counts how often it was asked."""

    def put(name: str, says: str) -> Path:
        path = bare / name
        path.write_text(f'#!/bin/sh\necho asked >> "{bare}/{name}.asked"\necho "{says}"\n')
        path.chmod(0o755)
        return path

    return put


@pytest.fixture
def keep(bare: Path) -> Callable[..., Path]:
    """Puts a finished tool into the cache and returns its home."""

    def put(name: str, version: str, *programs: str) -> Path:
        with scratch(name) as new:
            for each in programs:
                (new / each).write_text(f"#!/bin/sh\necho {version}\n")
                (new / each).chmod(0o755)
            publish(name, new, Made(version, {each: each for each in programs}, {"LD_LIBRARY_PATH": "{home}/lib"}))
        return bare.parent / "cache/tools" / name / version

    return put
