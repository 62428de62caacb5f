"""The verbs that start nothing: init, plan, schema."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from envctl.cli.main import main
from envctl.spec import load_project, load_scenario, load_topology, scenario_files
from envctl.spec.structure import FORMATS, schema

SYSTEM = Path(__file__).parents[1] / "spec/system"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out, said.err


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(SYSTEM, tmp_path / "tiny")
    monkeypatch.chdir(tmp_path / "tiny")
    return tmp_path / "tiny"


def test_plan_prints_a_table_with_reasons(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "--only", "web", "--stub", "pricing")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:5] == ["tiny", "3", "of", "5", "components"]
    assert ["web", "asked", "asked", "for"] in lines
    assert ["bus", "needed", "web", "(needs)"] in lines
    assert "unverified" in out
    assert "left out, because unchanged and not needed: worker" in out


def test_plan_prints_versioned_json(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "plan", "--scenario", "rush", "--only", "web", "--output", "json")
    plan = json.loads(out)
    assert code == 0
    assert plan["format"] == "plan/v1"
    assert [each["name"] for each in plan["components"]] == ["db", "bus", "web", "worker"]
    assert plan["stubbed"] == ["pricing"]
    assert set(plan["source_digests"]) == {"db", "bus", "web", "worker", "pricing"}


def test_init_writes_a_project_that_loads_and_then_refuses_to_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "init")
    assert code == 0
    assert "envctl.yaml" in out
    assert "envctl ci" in out
    project = load_project(tmp_path)
    topology = load_topology(project.topology_file)
    assert [load_scenario(file, topology).name for file in scenario_files(project)] == ["hello"]
    assert not list(tmp_path.rglob("__pycache__"))
    (tmp_path / "envctl.yaml").write_text("mine")
    code, _, err = run(capsys, "init")
    assert code == 2
    assert "envctl.yaml" in err
    assert (tmp_path / "envctl.yaml").read_text() == "mine"


def test_every_yaml_that_init_writes_names_a_schema_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(capsys, "init")
    for file in [tmp_path / "envctl.yaml", *tmp_path.glob("stacks/*/topology.yaml"), *tmp_path.glob("scenarios/*.yaml")]:
        first = file.read_text().splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema="), file
        assert (file.parent / first.partition("=")[2]).is_file(), file


COMPOSE = """\
services:
  web:
    build: ./web
    ports: ["8080:80"]
    depends_on: [db]
  db:
    image: postgres:15-alpine
    environment: {POSTGRES_DB: app, POSTGRES_USER: app, POSTGRES_PASSWORD: $SECRET}
"""


@pytest.fixture
def composed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web").mkdir()
    (tmp_path / "web/Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    return tmp_path


def test_init_from_a_compose_file_writes_a_project_that_loads_and_lists_what_is_left(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "init", "--from", "compose.yaml", "--name", "tiny")
    assert code == 0
    assert "wrote stacks/tiny/topology.yaml" in out
    assert "compose.yaml:4: services.web.ports: not published as 8080" in out
    project = load_project(composed)
    topology = load_topology(project.topology_file)
    assert (project.substrate, topology.name, list(topology.components)) == ("docker", "tiny", ["web", "db"])
    assert (composed / "stacks/tiny/Pulumi.yaml").read_text().startswith("name: tiny\n")
    first = project.topology_file.read_text().splitlines()[0]
    assert (project.topology_file.parent / first.partition("=")[2]).is_file()
    code, _, err = run(capsys, "init", "--from", ".", "--name", "tiny")
    assert (code, "stacks/tiny/topology.yaml would be overwritten" in err) == (2, True)


def test_init_from_a_compose_file_leaves_a_configuration_alone_and_answers_as_json(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (composed / "envctl.yaml").write_text("envctl: project/v1\nstack: stacks/tiny\n")
    code, out, _ = run(capsys, "init", "--from", ".", "--name", "tiny", "--output", "json")
    answer = json.loads(out)
    assert (code, answer["format"], answer["stack"]) == (0, "init/v1", "tiny")
    assert "envctl.yaml" not in answer["written"]
    assert {"file": "compose.yaml", "line": 4, "field": "services.web.ports"}.items() <= answer["left"][0].items()


@pytest.mark.parametrize(("text", "fragment"), [
    ("services:\n  a: {image: x, depends_on: [b]}\n", "compose.yaml:2: services.a.depends_on.b: no service is called 'b'"),
    ("services: [\n", "is not valid YAML"),
])
def test_init_from_a_compose_file_that_is_wrong_writes_nothing(composed: Path, capsys: pytest.CaptureFixture[str], text: str, fragment: str) -> None:
    (composed / "compose.yaml").write_text(text)
    code, out, err = run(capsys, "init", "--from", "compose.yaml")
    assert (code, out) == (2, "")
    assert fragment in err
    assert sorted(path.name for path in composed.iterdir()) == ["compose.yaml", "web"]


def test_what_belongs_to_an_import_needs_one(composed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "init", "--profile", "mail")
    assert (code, "belong to --from" in err) == (2, True)


def test_schema_prints_lists_and_exports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "schema", "topology")
    assert (code, json.loads(out)) == (0, schema("topology"))
    code, out, _ = run(capsys, "schema")
    assert [line.split("/")[0] for line in out.splitlines()] == list(FORMATS)
    run(capsys, "schema", "--export", str(tmp_path / "schemas"))
    assert len(list((tmp_path / "schemas").iterdir())) == len(FORMATS)


def test_a_malformed_file_ends_the_process_with_code_2_and_no_traceback(root: Path) -> None:
    (root / "stacks/tiny/topology.yaml").write_text("envctl: topology/v1\nname: [x\n")
    done = subprocess.run([sys.executable, "-m", "envctl", "plan"], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "stacks/tiny/topology.yaml:3: is not valid YAML" in done.stderr
    assert "Traceback" not in done.stderr
