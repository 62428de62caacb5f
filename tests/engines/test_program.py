from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from envctl.engines import interpreters
from envctl.engines.base import Site
from envctl.engines.program import ServiceEngine, stub_realisation
from envctl.engines.realise import realise_all
from envctl.errors import SpecError
from envctl.model.topology import Build, Job, Redis, Service, Source

MakeSite = Callable[..., Site]
WEB = Service(
    name="web", line=4, source=Source("tree", "web"), command=("sleep", "60"), replicas=2, ports={"http": 8080},
    env={"ANSWER": "42", "OTEL_METRIC_EXPORT_INTERVAL": "9000"},
)


@pytest.fixture(autouse=True)
def sources(stack: Path) -> None:
    (stack / "web").mkdir()
    (stack / "web" / "app.py").write_text("1")
    (stack / "examples.yaml").write_text("examples: []")


def test_a_service_becomes_its_replicas_in_their_zones(site: MakeSite) -> None:
    nodes = ServiceEngine().realise(WEB, site(WEB, otlp_http="http://198.18.0.1:4318")).nodes
    assert [(node.name, node.zone, node.cwd, node.one_shot) for node in nodes] == [
        ("web-0", "a", "/app", False), ("web-1", "b", "/app", False),
    ]
    assert nodes[1].env["OTEL_RESOURCE_ATTRIBUTES"] == "service.instance.id=web-1,deployment.environment.name=env,envctl.node=web-1"
    assert nodes[1].env["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://198.18.0.1:4318"
    assert nodes[1].env["ANSWER"] == "42"
    assert nodes[1].env["OTEL_METRIC_EXPORT_INTERVAL"] == "9000", "the user's own setting wins"
    assert (nodes[0].mounts[0].target, nodes[0].mounts[0].writable) == ("/app", False)
    assert nodes[0].digest != nodes[1].digest


def test_the_digest_does_not_depend_on_where_the_cache_is(site: MakeSite, tmp_path: Path) -> None:
    here, there = site(WEB), site(WEB, cache=tmp_path / "another")
    digests = [[node.digest for node in ServiceEngine().realise(WEB, one).nodes] for one in (here, there)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "changed",
    [
        replace(WEB, command=("sleep", "61")),
        replace(WEB, env={}),
        replace(WEB, ports={"http": 8081}),
        replace(WEB, stop_grace_s=1.0),
        replace(WEB, zones=("c",)),
    ],
)
def test_the_digest_changes_with_what_matters(site: MakeSite, changed: Service) -> None:
    one, other = (ServiceEngine().realise(web, site(web)).nodes[0].digest for web in (WEB, changed))
    assert one != other


def test_the_digest_changes_with_the_source_and_with_nothing_else(site: MakeSite, stack: Path) -> None:
    before = ServiceEngine().realise(WEB, site(WEB)).nodes[0].digest
    assert ServiceEngine().realise(replace(WEB, line=9, replicas=3), site(WEB)).nodes[0].digest == before
    (stack / "web" / "app.py").write_text("2")
    assert ServiceEngine().realise(WEB, site(WEB)).nodes[0].digest != before


def test_python_is_the_interpreter_that_runs_envctl(site: MakeSite) -> None:
    for command in ("python", "python3"):
        web = replace(WEB, command=(command, "app.py"))
        node = ServiceEngine().realise(web, site(web)).nodes[0]
        prefix = Path(sys.base_prefix)
        outside = not interpreters.in_usr(prefix)
        assert (str(prefix) in [mount.target for mount in node.mounts]) == outside
        assert node.env["PATH"].startswith(f"{prefix}/bin:") == outside
        built = replace(web, build=Build(("sh", "-c", "touch $OUT/x")))
        path = ServiceEngine().realise(built, site(built)).nodes[0].env["PATH"]
        assert path.startswith(f"/build/bin:{prefix}/bin:") == outside, "also where a build has no interpreter of its own"


def test_a_tool_outside_of_usr_is_shown_with_its_prefix(site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "opt" / "deno-2" / "bin" / "deno"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "deno").symlink_to(tool)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    web = replace(WEB, command=("deno", "run"))
    node = ServiceEngine().realise(web, site(web)).nodes[0]
    assert str(tool.parent.parent) in [mount.target for mount in node.mounts]
    assert node.env["PATH"].startswith(f"{tool.parent}:")


@pytest.mark.parametrize("place", ["bin", ".local/bin"])
def test_of_a_home_a_node_sees_one_program_and_nothing_else(
    site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    tool = tmp_path / place / "tool"
    tool.parent.mkdir(parents=True)
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    web = replace(WEB, command=("tool",))
    node = ServiceEngine().realise(web, site(web)).nodes[0]
    assert [mount.target for mount in node.mounts] == ["/app", str(tool)]


def test_a_job_is_ready_when_it_has_ended(site: MakeSite) -> None:
    job = Job(name="once", source=Source("tree", "web"), command=("true",), needs=("cache", "away"))
    cache, away = Redis(name="cache", version="7"), Redis(name="away", version="7")
    made = site(cache, away, job, selected=("cache", "once"))
    realisation = realise_all(made.topology, ("once",), (), made)[0]
    assert realisation.needs == ("cache",)
    assert realisation.nodes[0].one_shot


def test_a_stub_answers_under_the_name_and_ports_of_the_service_it_stands_for(site: MakeSite) -> None:
    web = replace(WEB, stub="examples.yaml", ports={"metrics": 9100, "http": 8080, "grpc": 9000})
    node = stub_realisation(web, site(web, stubbed=("web",))).nodes[0]
    assert (node.name, node.component) == ("web-0", "web")
    assert node.command[1:] == (
        "-m", "envctl.replay.stub", "--examples", "/examples/examples.yaml", "--http", "8080", "--grpc", "9000",
    )
    assert {"/examples", "/app/envctl"} <= {mount.target for mount in node.mounts}


def test_a_stub_speaks_the_protocol_that_its_callers_speak(site: MakeSite) -> None:
    web = replace(WEB, stub="examples.yaml", ports={"api": 9000})
    caller = replace(WEB, name="caller", calls={"web": "grpc"})
    assert stub_realisation(web, site(web, caller)).nodes[0].command[-2:] == ("--grpc", "9000")
    assert stub_realisation(web, site(web)).nodes[0].command[-2:] == ("--http", "9000")


@pytest.mark.parametrize(
    ("component", "words"),
    [
        (Redis(name="web", version="7"), "a redis cannot be stubbed"),
        (WEB, "declares no examples"),
        (replace(WEB, stub="none.yaml"), "no such file: none.yaml"),
        (replace(WEB, stub="examples.yaml", ports={}), "no ports"),
    ],
)
def test_what_cannot_be_stubbed_is_an_error_of_the_topology(site: MakeSite, component: Service | Redis, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        stub_realisation(component, site(component))
