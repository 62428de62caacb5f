"""The reference systems' files: what is written down there is right and works together."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from bench.bugs_defects import load_defects
from envctl.spec.scenario import load_scenario
from envctl.spec.seed import load_seed
from envctl.spec.topology import load_topology

ROOT = Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "scenarios").glob("*.yaml"))
DEFECTS = sorted((ROOT / "tests/bugbench/defects").glob("*/defect.patch"))


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_every_scenario_is_valid_for_its_system(file: Path) -> None:
    stack = "hello" if file.stem == "hello" else "shop"
    topology = load_topology(ROOT / "stacks" / stack / "topology.yaml")
    assert load_scenario(file, topology, seeds=ROOT / "seeds").name == file.stem


def test_the_shop_has_at_least_eight_services() -> None:
    topology = load_topology(ROOT / "stacks/shop/topology.yaml")
    assert sum(component.kind == "service" for component in topology.components.values()) >= 8


def test_the_large_seed_is_as_large_as_promised() -> None:
    loads = load_seed(ROOT / "seeds/shop-large/seed.yaml").loads
    assert sum(getattr(load, "rows", 0) for load in loads) >= 2_000_000
    assert sum(getattr(load, "messages", 0) for load in loads) >= 500_000


@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.slow)])
def test_the_generator_writes_exactly_what_the_seed_declares(size: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "seeds/generate.py"), size]
    subprocess.run(command, env={**os.environ, "OUT": str(tmp_path)}, check=True, capture_output=True)
    for load in load_seed(ROOT / f"seeds/shop-{size}/seed.yaml").loads:
        assert sha256((tmp_path / load.file.name).read_bytes()).hexdigest() == load.sha256


def test_the_committed_traffic_is_what_its_generators_write(tmp_path: Path) -> None:
    for name in ("checkout.py", "troubled.py"):
        generator = tmp_path / name
        generator.write_bytes((ROOT / "scenarios/traffic" / name).read_bytes())
        subprocess.run([sys.executable, str(generator)], check=True)
    for name in ("checkout.jsonl", "orders.jsonl", "sale.jsonl", "malformed.jsonl", "prices.jsonl"):
        assert (tmp_path / name).read_bytes() == (ROOT / "scenarios/traffic" / name).read_bytes()


@pytest.mark.parametrize("patch", DEFECTS, ids=lambda file: file.parent.name)
def test_every_planted_defect_applies_cleanly(patch: Path) -> None:
    done = subprocess.run(["git", "apply", "--check", str(patch)], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_planted_defect_is_named_as_its_directory() -> None:
    assert DEFECTS
    assert [each.name for each in load_defects()] == [file.parent.name for file in DEFECTS]
