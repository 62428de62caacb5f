"""The planted defects are what they promise to be, before anything is run: patches of the shop alone, which build and are described."""

import compileall
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from envctl.spec.topology import load_topology

REPOSITORY = Path(__file__).parents[2]
DEFECTS = sorted(path.parent for path in Path(__file__).parent.glob("defects/*/defect.yaml"))
FIELDS = {"name", "title", "class", "expected", "under", "origin", "literature"}
OPTIONAL = {"scenarios", "uncaught"}  # what to try first, and why nothing is known to catch it


def described(defect: Path) -> dict:
    return yaml.safe_load((defect / "defect.yaml").read_text())


def test_there_are_enough_of_them_and_enough_were_made_blind():
    origins = [described(defect)["origin"] for defect in DEFECTS]
    assert len(origins) >= 24
    assert origins.count("blind") >= 8


def test_names_and_titles_are_unique():
    assert len({described(defect)["name"] for defect in DEFECTS}) == len({described(defect)["title"] for defect in DEFECTS}) == len(DEFECTS)


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda path: path.name)
def test_is_described_completely(defect):
    said = described(defect)
    assert said.keys() - OPTIONAL == FIELDS | {"cause"}
    assert all(isinstance(said[field], str) and said[field].strip() for field in FIELDS)
    assert said["name"] == defect.name
    assert said["origin"] in ("blind", "informed")


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda path: path.name)
def test_says_in_which_finding_its_cause_must_be_named(defect):
    causes = described(defect)["cause"]
    assert causes
    for cause in causes:
        assert cause.keys() <= {"check", "about"}
        assert isinstance(cause["check"], str)
        assert all(isinstance(name, str) and name for name in cause.get("about", ()))


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda path: path.name)
def test_applies_to_the_shop_alone_which_builds_and_can_be_planned(defect, tmp_path):
    changed = re.findall(r"^diff --git a/(\S+) b/(\S+)$", (defect / "defect.patch").read_text(), re.MULTILINE)
    assert changed
    assert all(name.startswith("stacks/shop/") for names in changed for name in names)
    shutil.copytree(REPOSITORY / "stacks/shop", tmp_path / "stacks/shop", ignore=shutil.ignore_patterns("__pycache__", ".venv"))
    subprocess.run(["git", "apply", defect / "defect.patch"], cwd=tmp_path, check=True)
    assert compileall.compile_dir(tmp_path / "stacks/shop", quiet=1)
    assert load_topology(tmp_path / "stacks/shop/topology.yaml").components
