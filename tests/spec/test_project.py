from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from envctl.errors import SpecError, UsageError
from envctl.model.project import Project, Suite
from envctl.spec import (
    find_root,
    load_project,
    load_scenario,
    load_topology,
    scenario_file,
    scenario_files,
    seed_file,
    state_directory,
)

SYSTEM = Path(__file__).parent / "system"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(SYSTEM, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_a_project_file_is_read_with_its_suites(root: Path) -> None:
    project = load_project(root)
    assert project.topology_file == root / "stacks/tiny/topology.yaml"
    assert project.base == "main"
    assert project.suites == {"pr": Suite("retry"), "nightly": Suite(every=True, repeat=3)}


def test_without_a_project_file_the_only_stack_is_meant(root: Path) -> None:
    (root / "envctl.yaml").unlink()
    assert load_project(root) == Project(root, root / "stacks/tiny")


def test_without_a_project_file_several_stacks_are_a_question(root: Path) -> None:
    (root / "envctl.yaml").unlink()
    shutil.copytree(root / "stacks/tiny", root / "stacks/other")
    with pytest.raises(SpecError, match=r"several stacks \(stacks/other, stacks/tiny\)"):
        load_project(root)


def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="envctl init"):
        load_project(tmp_path)


def test_the_root_is_found_from_below(root: Path) -> None:
    assert find_root(root / "stacks/tiny/services") == root


def test_scenarios_and_seeds_are_found_by_name_or_path(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    project = load_project(root)
    file = root / "scenarios/rush.yaml"
    assert scenario_file(project, "rush") == scenario_file(project, "scenarios/rush.yaml") == file
    assert seed_file(project, "tiny") == root / "seeds/tiny/seed.yaml"
    with pytest.raises(UsageError) as caught:
        scenario_file(project, "rsuh")
    assert "rush" in caught.value.hint


def test_scenarios_of_another_stack_are_left_out(root: Path) -> None:
    other = root / "scenarios/other.yaml"
    other.write_text((root / "scenarios/rush.yaml").read_text().replace("name: rush", "name: other\nstack: other"))
    assert scenario_files(load_project(root)) == (root / "scenarios/rush.yaml",)


def test_the_copies_that_a_run_keeps_are_read_without_what_they_refer_to(root: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "run/inputs"
    inputs.mkdir(parents=True)
    (tmp_path / "run/run.json").write_text("{}")
    shutil.copy(root / "stacks/tiny/topology.yaml", inputs)
    shutil.copy(root / "scenarios/rush.yaml", inputs / "scenario.yaml")
    shutil.copy(root / "scenarios/traffic/rush.jsonl", inputs / "traffic.jsonl")
    topology = load_topology(inputs / "topology.yaml")
    scenario = load_scenario(inputs / "scenario.yaml", topology)
    assert scenario.traffic.file == inputs / "traffic.jsonl"
    assert scenario.name == "rush"


@pytest.mark.parametrize(("line", "directory"), [
    ("", "ROOT/.envctl/state"),
    ("state: file:///var/lib/state", "/var/lib/state"),
    (r'"st\x61te": file:///var/lib/state', "/var/lib/state"),
    ("state: file://~/state", "HOME/state"),
    ("state: file://../state", "ROOT/../state"),
    ("state: s3://bucket", "ROOT/.envctl/state"),
    ("state: [", "ROOT/.envctl/state"),
])
def test_the_state_is_where_the_project_says(tmp_path: Path, line: str, directory: str) -> None:
    (tmp_path / "envctl.yaml").write_text(f"envctl: project/v1\n{line}\n")
    wanted = Path(directory.replace("ROOT", str(tmp_path)).replace("HOME", str(Path.home())))
    assert state_directory(tmp_path) == wanted.resolve()
