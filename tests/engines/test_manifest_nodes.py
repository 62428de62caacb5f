"""What a component's manifests and the topology over them become: nodes with templates and objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from envctl.engines.base import Site
from envctl.engines.realise import realise_all
from envctl.engines.sources import source_digests
from envctl.model.environment import NodeSpec, spec_from
from envctl.model.topology import Probe, Resources, Topology
from envctl.planner.changes import Changes
from envctl.planner.reasons import changed_configuration, changed_sources
from envctl.spec import load_topology

HERE = Path(__file__).parents[1] / "spec" / "manifests"
Written = Callable[..., Topology]


@pytest.fixture
def written(stack: Path) -> Written:
    """A topology of one component `one`, made of one of the files of manifests, with further fields of its own."""

    def write(file: str, kind: str = "service", **fields: Any) -> Topology:
        if not (stack / f"{file}.yaml").exists():
            (stack / f"{file}.yaml").write_text((HERE / f"{file}.yaml").read_text())
        manifests = {"files": [f"{file}.yaml"], **fields.pop("manifests", {})}
        components = {fields.pop("name", "one"): {"kind": kind, "manifests": manifests, **fields}}
        document = {"envctl": "topology/v1", "name": "t", "zones": ["a", "b"], "components": components}
        (stack / "topology.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        return load_topology(stack / "topology.yaml")

    return write


def nodes(topology: Topology, tmp_path: Path, **site: Any) -> tuple[NodeSpec, ...]:
    at = Site(topology, "env", tuple(topology.components), (), tmp_path / "cache", otlp_http="http://telemetry:4318", packaging="images", **site)
    return realise_all(topology, tuple(topology.components), (), at)[0].nodes


def made(topology: Topology, tmp_path: Path) -> tuple[NodeSpec, ...]:
    return nodes(topology, tmp_path, manifests=True)


def template(node: NodeSpec) -> Any:
    assert node.template
    return node.template


def main(node: NodeSpec) -> Any:
    return next(each for each in template(node)["spec"]["containers"] if each["name"] == "main")


def variables(node: NodeSpec) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in main(node)["env"]}


def test_every_replica_is_a_node_that_tells_what_its_own_container_is(written: Written, tmp_path: Path) -> None:
    found = made(written("kustomize", replicas=3), tmp_path)
    assert [(node.name, node.zone) for node in found] == [("one-0", "a"), ("one-1", "b"), ("one-2", "a")]
    node = found[1]
    assert (node.ports, node.ready, node.stop_grace_s) == ({"web": 8080, "metrics": 9090}, Probe("http", 8080, "/ready"), 20.0)
    assert (node.entrypoint, node.command) == (("/app/payments",), ("--config=/etc/payments/application.yaml",))
    assert node.image == "example.test:5000/shop/payments:1.42.0"
    assert node.resources == Resources(2.0, 1 << 30)
    assert node.env["DATABASE_HOST"] == "payments-db.shop.svc.cluster.local"
    assert "DATABASE_PASSWORD" not in node.env
    assert node.env["OTEL_SERVICE_NAME"] == "one"
    assert main(node)["readinessProbe"] == {"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 2}, "as production has it"
    assert main(node)["resources"]["limits"] == {"cpu": "2", "memory": "1Gi"}
    assert [each["kind"] for each in node.objects] == ["ServiceAccount", "ConfigMap", "Secret", "Service"]
    assert len({each.digest for each in found}) == 3


def test_what_the_topology_says_is_applied_over_the_template(written: Written, tmp_path: Path) -> None:
    topology = written(
        "kustomize", resources={"cpus": 0.25, "memory": "128Mi"}, ready={"exec": ["/bin/ok"], "healthy_for": "1500ms"}, stop_grace="2s",
        env={"DATABASE_HOST": "db", "ADDED": "a $(b) ${one.web.url}"}, manifests={"images": {"payments": ":1.43.0-rc1"}},
    )
    node = made(topology, tmp_path)[0]
    assert main(node)["image"] == node.image == "example.test:5000/shop/payments:1.43.0-rc1"
    assert main(node)["resources"] == {
        "limits": {"cpu": "250m", "memory": str(128 << 20)}, "requests": {"cpu": "250m", "memory": str(128 << 20)},
    }
    assert main(node)["readinessProbe"] == {"exec": {"command": ["/bin/ok"]}, "periodSeconds": 1, "successThreshold": 2}
    assert template(node)["spec"]["terminationGracePeriodSeconds"] == 2
    names = list(variables(node))
    assert names.index("DATABASE_HOST") < names.index("DATABASE_URL"), "whoever refers to it comes after it"
    assert variables(node)["DATABASE_HOST"] == node.env["DATABASE_HOST"] == "db"
    assert variables(node)["ADDED"] == "a $$(b) http://one:8080"
    assert node.env["ADDED"] == "a $(b) http://one:8080"


@pytest.mark.parametrize(("wanted", "image"), [
    (":9", "example.test/orders:9"),
    ("@sha256:" + "f" * 64, "example.test/orders@sha256:" + "f" * 64),
    ("other/orders", "other/orders"),
])
def test_an_image_gets_another_tag_or_digest_or_is_another(written: Written, tmp_path: Path, wanted: str, image: str) -> None:
    assert made(written("helm", manifests={"images": {"orders": wanted}}), tmp_path)[0].image == image


def test_an_image_that_is_built_runs_as_production_does(written: Written, tmp_path: Path, stack: Path) -> None:
    (stack / "Dockerfile").write_text("FROM scratch\n")
    node = made(written("helm", image={"context": "."}), tmp_path)[0]
    assert node.build is not None
    assert node.image == main(node)["image"] == "one"
    assert "imagePullPolicy" not in main(node)


def test_pods_of_a_stateful_set_have_their_numbers_names_and_claims(written: Written, tmp_path: Path) -> None:
    found = made(written("statefulset"), tmp_path)
    assert [node.objects[-1]["metadata"]["name"] for node in found] == ["data-ledger-0", "data-ledger-1", "data-ledger-2"]
    pod = template(found[1])["spec"]
    assert (pod["hostname"], pod["subdomain"]) == ("ledger-1", "ledger-peers")
    assert pod["volumes"] == [{"name": "data", "persistentVolumeClaim": {"claimName": "data-ledger-1"}}]
    assert template(found[1])["metadata"]["labels"]["statefulset.kubernetes.io/pod-name"] == "ledger-1"
    assert found[1].env["POD_NAME"] == "ledger-1"
    assert found[1].env["ADVERTISED"] == "$(POD_NAME).ledger-peers"
    assert "POD_IP" not in found[1].env


def test_the_own_container_is_called_main_wherever_it_is_named(written: Written, tmp_path: Path) -> None:
    node = made(written("sidecars"), tmp_path)[0]
    assert [each["name"] for each in template(node)["spec"]["containers"]] == ["app", "main", "shipper"]
    assert node.image == "example.test/edge:5"
    assert template(node)["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] == "main"
    cpus = next(each for each in main(node)["env"] if each["name"] == "CPUS")
    assert cpus["valueFrom"]["resourceFieldRef"]["containerName"] == "main"
    about = template(node)["spec"]["volumes"][0]["downwardAPI"]["items"][0]
    assert about["resourceFieldRef"]["containerName"] == "app"
    assert variables(node)["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://telemetry:4318"
    shipper = template(node)["spec"]["containers"][2]
    assert shipper["env"] == [{"name": "OTEL_SERVICE_NAME", "value": "shipper"}], "sidecars stay as they are"


def test_a_job_runs_once(written: Written, tmp_path: Path) -> None:
    node, = made(written("job", "job"), tmp_path)
    assert node.one_shot
    assert node.cwd == "/srv"
    assert template(node)["spec"]["restartPolicy"] == "OnFailure"


def test_a_component_is_found_at_its_ports_under_its_name(written: Written, tmp_path: Path) -> None:
    node = made(written("list", name="catalog"), tmp_path)[0]
    assert [(each["name"], each["port"], each["targetPort"]) for each in node.objects[0]["spec"]["ports"]] == [("web", 80, 8000), ("port-8000", 8000, 8000)]


def test_a_substrate_that_runs_no_manifests_has_the_other_form_with_what_they_declare(written: Written, tmp_path: Path) -> None:
    node = nodes(written("kustomize", image="payments:dev"), tmp_path)[0]
    assert (node.template, node.objects, node.image) == (None, (), "payments:dev")
    assert (node.ports, node.ready) == ({"web": 8080, "metrics": 9090}, Probe("http", 8080, "/ready"))


def test_a_node_of_manifests_survives_its_journey_as_json(written: Written, tmp_path: Path) -> None:
    for node in (*made(written("kustomize"), tmp_path), *made(written("statefulset"), tmp_path)):
        assert spec_from(json.loads(json.dumps(asdict(node)))) == node


def test_the_digest_covers_template_and_objects_and_no_comment(written: Written, tmp_path: Path, stack: Path) -> None:
    def digest() -> str:
        return made(written("kustomize"), tmp_path)[0].digest

    before, file = digest(), stack / "kustomize.yaml"
    file.write_text("# a comment\n" + file.read_text())
    assert digest() == before
    file.write_text(file.read_text().replace("LOG_LEVEL: info", "LOG_LEVEL: debug"))
    changed = digest()
    assert changed != before
    file.write_text(file.read_text().replace("path: /live", "path: /alive"))
    assert digest() not in (before, changed)


def test_a_changed_file_of_manifests_selects_its_component_and_is_its_source(written: Written, stack: Path) -> None:
    from pathlib import PurePosixPath

    topology = written("kustomize")
    assert changed_sources(topology, stack, [PurePosixPath("kustomize.yaml")]) == ([("one", "kustomize.yaml")], [])
    before = source_digests(topology)
    (stack / "kustomize.yaml").write_text((stack / "kustomize.yaml").read_text().replace("LOG_LEVEL: info", "LOG_LEVEL: debug"))
    after = written("kustomize")
    assert source_digests(after) != before
    text = (stack / "topology.yaml").read_text()
    base = load_topology(stack / "topology.yaml", files=False, text=text)
    assert changed_configuration(after, Changes(topology=base)) == []
    said = written("kustomize", replicas=2)
    assert changed_configuration(said, Changes(topology=base)) == [("one", "topology.yaml: replicas")]
