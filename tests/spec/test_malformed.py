"""Every malformed file is refused with its line and a message that helps, by the loaders and by the command line."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from envctl.cli.main import main
from envctl.errors import SpecError
from envctl.spec import load_project, load_scenario, load_seed, load_topology

HERE = Path(__file__).parent
PLACES = {
    "topology": "stacks/tiny/topology.yaml",
    "scenario": "scenarios/rush.yaml",
    "seed": "seeds/tiny/seed.yaml",
    "project": "envctl.yaml",
    "traffic": "scenarios/traffic/rush.jsonl",
}
TRAFFIC = {  # JSON lines have no comments
    "traffic-bad-json": (2, "is not valid JSON"),
    "traffic-no-method": (2, "METHOD /path"),
    "traffic-back-in-time": (2, "is before the operation above it"),
    "traffic-no-operation": (2, "allowed: the operation's name"),
    "traffic-no-key-for-a-template": (2, "the line has no `key`"),
    "traffic-unknown-reference": (2, "no earlier line of key 'c1' is called 'brows'"),
    "traffic-unknown-topic": (2, "did you mean 'jobs'?"),
    "traffic-no-port": (2, "worker has no port called 'http'"),
}
FILES = sorted((HERE / "malformed").iterdir())


def expected(file: Path) -> list[tuple[int, str]]:
    if file.stem in TRAFFIC:
        return [TRAFFIC[file.stem]]
    return [(int(line), text) for line, text in re.findall(r"^# expect (\d+): (.*)$", file.read_text(), re.MULTILINE)]


@pytest.fixture
def system(tmp_path: Path) -> Path:
    root = tmp_path / "tiny"
    shutil.copytree(HERE / "system", root)
    return root


def place(root: Path, file: Path) -> Path:
    target = root / PLACES[file.name.partition("-")[0]]
    shutil.copy(file, target)
    return target


def load_everything(root: Path) -> None:
    project = load_project(root)
    topology = load_topology(project.topology_file)
    load_seed(project.seeds / "tiny" / "seed.yaml", topology)
    load_scenario(project.scenarios / "rush.yaml", topology, seeds=project.seeds)


def test_the_system_that_the_malformed_files_spoil_is_right_itself(system: Path) -> None:
    load_everything(system)


def test_there_are_enough_malformed_files_of_each_kind() -> None:
    kinds = [file.name.partition("-")[0] for file in FILES]
    assert kinds.count("topology") >= 30
    assert kinds.count("scenario") >= 30
    assert kinds.count("seed") >= 10


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_malformed_file_is_refused_at_its_line(file: Path, system: Path) -> None:
    target = place(system, file)
    with pytest.raises(SpecError) as caught:
        load_everything(system)
    found = [(problem.line, f"{problem.message} {problem.hint}") for problem in caught.value.problems if problem.file == target]
    wanted = expected(file)
    assert wanted
    for line, fragment in wanted:
        assert any(line == at and fragment in text for at, text in found), (line, fragment, caught.value.message)
    assert len(found) == len(wanted), caught.value.message  # nothing is reported that is no mistake


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_command_line_says_it_with_exit_code_2_and_no_traceback(
    file: Path, system: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = place(system, file)
    monkeypatch.chdir(system)
    with pytest.raises(SystemExit) as caught:
        main(["plan", "--scenario", "rush"])
    said = capsys.readouterr()
    assert caught.value.code == 2
    assert said.out == ""
    assert "Traceback" not in said.err
    for line, fragment in expected(file):
        assert f"{target.relative_to(system)}:{line}" in said.err
        assert fragment in said.err
    assert not (system / ".envctl").exists()
