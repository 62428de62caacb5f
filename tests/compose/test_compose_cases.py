"""Compose files in the manner of well-known ones: what they become, and what is told, to the letter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from envctl.compose import Imported, compose_files, import_compose
from envctl.model.topology import Topology
from envctl.spec import load_topology

HERE = Path(__file__).parent / "cases"
CASES = sorted(HERE.iterdir())


def imported(root: Path) -> Imported:
    """What the Compose files of a directory become; `case.json` says how envctl is called."""
    how: dict[str, Any] = json.loads((root / "case.json").read_text()) if (root / "case.json").exists() else {}
    files = [root / name for name in how.get("files", ())] or compose_files(root)
    return import_compose(files, root, how.get("env", {}), profiles=how.get("profiles", ()), name=how.get("name", ""))


def written(found: Imported, root: Path) -> Topology:
    """The topology as envctl loads it, with all that belongs to it."""
    stack = root / "stacks" / found.name
    for path, text in {**found.files, Path("topology.yaml"): found.topology}.items():
        (stack / path).parent.mkdir(parents=True, exist_ok=True)
        (stack / path).write_text(text)
    return load_topology(stack / "topology.yaml")


def copied(case: Path, root: Path) -> Path:
    shutil.copytree(case, root / case.name)
    (root / case.name / "topology.yaml").unlink(missing_ok=True)
    return root / case.name


def test_there_are_enough_cases_of_different_styles() -> None:
    assert len(CASES) >= 15


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_compose_file_becomes_this_topology_and_tells_this(case: Path, tmp_path: Path) -> None:
    root = copied(case, tmp_path)
    found = imported(root)
    told = "".join(f"{left.file.relative_to(root)}:{left.line} {left.field}: {left.reason}\n" for left in found.left)
    assert found.topology == (case / "topology.yaml").read_text()
    assert told == (case / "left.txt").read_text()
    assert written(found, root).name == found.name


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_import_twice_is_the_same(case: Path, tmp_path: Path) -> None:
    root = copied(case, tmp_path)
    assert imported(root) == imported(root)
