"""What well-formed files turn into, down to their defaults."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from envctl.errors import SpecError
from envctl.model.scenario import Limits
from envctl.model.seed import TableLoad, TopicLoad
from envctl.model.topology import Image, Job, Kafka, Postgres, Probe, Redis, Resources, Service, Subscription, Topic
from envctl.spec import load_scenario, load_seed, load_topology, unpackaged

SYSTEM = Path(__file__).parent / "system"
TOPOLOGY = SYSTEM / "stacks/tiny/topology.yaml"
ROOT = Path(__file__).parents[2]


def test_a_topology_becomes_its_components() -> None:
    topology = load_topology(TOPOLOGY)
    web, worker, bus, db = (topology.components[name] for name in ("web", "worker", "bus", "db"))
    assert isinstance(web, Service)
    assert isinstance(worker, Service)
    assert isinstance(bus, Kafka)
    assert isinstance(db, Postgres)
    assert list(topology.components) == ["db", "bus", "web", "worker", "pricing"]
    assert web.ready == Probe("http", 8080, "/ready", healthy_for_s=0.5)
    assert web.resources == Resources(0.5, 256 * 1024**2)
    assert web.env["RELEASE"] == "1.10"
    assert web.line == 16
    assert worker.consumes == (Subscription("jobs", "workers"),)
    assert (db.version, bus.version) == ("15", "4.1")
    assert bus.topics == {"jobs": Topic("jobs", 2)}


def test_a_scenario_becomes_its_timeline_and_conditions() -> None:
    scenario = load_scenario(SYSTEM / "scenarios/rush.yaml", load_topology(TOPOLOGY))
    assert [(fault.id, fault.at_s, fault.after, fault.for_s) for fault in scenario.faults] == [
        ("packet-loss", 5.0, (), 8.0), ("rebalance", None, ("packet-loss",), None), ("node-kill", 22.0, (), None),
    ]
    assert scenario.faults[0].params == {"from": "web", "to": "bus", "loss": "20 %"}
    assert [check.id for check in scenario.checks] == ["no-loss", "no-loss-2"]
    assert scenario.limits == Limits(max_nodes=1, deadline_s=180.0)
    assert (scenario.traffic.to, scenario.traffic.rate_per_s) == ("web", 50)
    assert scenario.slo.availability == 0.99
    assert scenario.stop[0].hold_s == 5
    assert scenario.streams["rows"].database == "main"


def test_a_seed_becomes_its_loads_in_order() -> None:
    seed = load_seed(SYSTEM / "seeds/tiny/seed.yaml", load_topology(TOPOLOGY))
    table, topic = seed.loads
    assert isinstance(table, TableLoad)
    assert isinstance(topic, TopicLoad)
    assert (table.component, table.database, table.table, table.rows) == ("db", "main", "item", 2)
    assert table.file == SYSTEM / "seeds/tiny/items.csv"
    assert (topic.topic, topic.key, topic.messages) == ("jobs", "id", 1)


@pytest.mark.parametrize(("addition", "fragment"), [
    ("grpc: {proto: pricing.proto, examples: [{method: p.P/Get}]}", "no file 'pricing.proto'"),
    ("htpp: []", "did you mean 'http'?"),
])
def test_broken_examples_of_a_stub_are_reported_in_their_own_file(tmp_path: Path, addition: str, fragment: str) -> None:
    import shutil

    shutil.copytree(SYSTEM / "stacks/tiny", tmp_path / "tiny")
    examples = tmp_path / "tiny/pricing.examples.yaml"
    examples.write_text(f"{examples.read_text()}{addition}\n")
    with pytest.raises(SpecError) as caught:
        load_topology(tmp_path / "tiny/topology.yaml")
    assert caught.value.problems[0].file == examples
    assert caught.value.problems[0].line == 5
    assert fragment in str(caught.value)


@pytest.mark.parametrize("stack", sorted(ROOT.glob("stacks/*/topology.yaml")), ids=lambda file: file.parent.name)
def test_the_systems_that_come_with_envctl_are_right(stack: Path) -> None:
    topology = load_topology(stack)
    mine = [file for file in sorted((ROOT / "scenarios").glob("*.yaml")) if _belongs(file, topology.name)]
    assert mine
    for file in mine:
        scenario = load_scenario(file, topology)
        if scenario.seed:
            load_seed(ROOT / "seeds" / scenario.seed / "seed.yaml", topology)


def _belongs(file: Path, stack: str) -> bool:
    named = load_scenario(file).stack
    return named == stack if named else stack == "shop"


def test_traffic_names_the_components_it_goes_to_and_the_kafka_whose_topics_it_writes_to(tmp_path: Path) -> None:
    shutil.copytree(SYSTEM, tmp_path / "tiny")
    lines = ['{"op": "browse", "http": "GET pricing/items"}', '{"op": "place", "http": "POST /items"}', '{"op": "enqueue", "kafka": "jobs"}']
    (tmp_path / "tiny/scenarios/traffic/rush.jsonl").write_text("\n".join(lines))
    topology = load_topology(tmp_path / "tiny/stacks/tiny/topology.yaml")
    scenario = load_scenario(tmp_path / "tiny/scenarios/rush.yaml", topology)
    assert scenario.traffic.receivers == ("pricing", "bus")


@pytest.mark.parametrize("version", ["15", "4.1", ">=15", ">=15.2"])
def test_a_version_is_one_or_that_one_and_newer(tmp_path: Path, version: str) -> None:
    file = tmp_path / "topology.yaml"
    file.write_text(f'envctl: topology/v1\nname: t\ncomponents: {{cache: {{kind: redis, version: "{version}"}}}}\n')
    assert load_topology(file).components["cache"] == Redis(name="cache", version=version, line=3)
    file.write_text(file.read_text().replace(version, ">15"))
    with pytest.raises(SpecError, match="the engine's version"):
        load_topology(file)


IMAGES = """\
envctl: topology/v1
name: pictures
components:
  db: {kind: postgres, version: 15, image: postgres:15-alpine, databases: [main]}
  web: {kind: service, image: nginx:1.27}
  api:
    kind: service
    image:
      context: api
      dockerfile: Containerfile
      target: slim
      args: {RELEASE: 1.10, DEBUG: false}
      command: [serve, ""]
      entrypoint: [/entry]
      user: 1000
      working_dir: /srv
      volumes: [/data]
      files: {/etc/api.ini: api/api.ini, /etc/site: api}
    needs: [db]
    env: {DATABASE_URL: "${db.main.url}"}
  both: {kind: job, image: {reference: shop/both}, source: api, command: [./both]}
  files: {kind: job, source: api, command: [./both]}
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "api").mkdir()
    (tmp_path / "api/Containerfile").write_text("FROM scratch\n")
    (tmp_path / "api/api.ini").write_text("x")
    (tmp_path / "topology.yaml").write_text(IMAGES)
    return tmp_path / "topology.yaml"


def test_an_image_is_a_reference_or_is_built(pictures: Path) -> None:
    components = load_topology(pictures).components
    web, api, both, db = components["web"], components["api"], components["both"], components["db"]
    assert isinstance(web, Service)
    assert (web.image, web.source, web.command, web.ready) == (Image("nginx:1.27"), None, (), None)
    assert isinstance(api, Service)
    assert api.image == Image(
        context="api", dockerfile="Containerfile", target="slim", args={"RELEASE": "1.10", "DEBUG": "false"}, command=("serve", ""),
        entrypoint=("/entry",), user="1000", working_dir="/srv", volumes=("/data",),
        files={"/etc/api.ini": "api/api.ini", "/etc/site": "api"},
    )
    assert isinstance(both, Job)
    assert (both.image, both.command) == (Image("shop/both"), ("./both",))
    assert isinstance(db, Postgres)
    assert db.image == "postgres:15-alpine"


def test_a_component_without_the_form_that_the_substrate_needs_is_named_with_what_to_add(pictures: Path) -> None:
    topology = load_topology(pictures)
    no_files, no_image = unpackaged(topology, topology.components, "files"), unpackaged(topology, topology.components, "images")
    assert [problem.field for problem in no_files] == ["components.web.source", "components.api.source"]
    assert [(problem.field, problem.line) for problem in no_image] == [("components.files.image", 22)]
    assert "files is made of files of the host only" in no_image[0].message
    assert "`image: REFERENCE`" in no_image[0].hint
    assert "`source: DIRECTORY` and `command: " in no_files[0].hint
    assert unpackaged(topology, ["db", "both"], "files") == unpackaged(topology, ["db", "web"], "images") == ()
