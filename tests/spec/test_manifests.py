"""Kubernetes manifests as teams have them become a component's template and objects; what does not is told, with its reason."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from envctl.errors import SpecError
from envctl.model.topology import Declared, Job, Manifests, Probe, Resources, Service, Topology
from envctl.spec import load_topology, unpackaged
from envctl.spec.manifests import save_declared, told

HERE = Path(__file__).parent / "manifests"
WORKLOADS = {  # file → kind of component, workload
    "kustomize": ("service", ""), "helm": ("service", ""), "statefulset": ("service", ""), "job": ("job", ""), "sidecars": ("service", ""),
    "list": ("service", ""), "bundle": ("service", "web"),
}


def topology_of(directory: Path, *components: Mapping[str, Any], **more: Any) -> Topology:
    named = {each.get("name", f"one-{index}"): {key: value for key, value in each.items() if key != "name"} for index, each in enumerate(components)}
    (directory / "topology.yaml").write_text(yaml.safe_dump({"envctl": "topology/v1", "name": "t", "components": named}, sort_keys=False))
    return load_topology(directory / "topology.yaml", **more)


def loaded(name: str, directory: Path, **fields: Any) -> Service | Job:
    kind, workload = WORKLOADS[name]
    (directory / f"{name}.yaml").write_text((HERE / f"{name}.yaml").read_text())
    manifests = {"files": [f"{name}.yaml"], **({"workload": workload} if workload else {}), **fields.pop("manifests", {})}
    found = topology_of(directory, {"name": "one", "kind": kind, "manifests": manifests, **fields}).components["one"]
    assert isinstance(found, Service | Job)
    return found


def manifests(component: Service | Job) -> Manifests:
    assert component.manifests
    return component.manifests


def reasons(component: Service | Job) -> dict[str, str]:
    return {each.what: each.reason for each in manifests(component).left_out if not each.fields}


def fields_of(component: Service | Job) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in manifests(component).left_out:
        found.setdefault(each.what, set()).update(each.fields)
    return found


def labels(component: Service | Job) -> list[str]:
    return [f"{each['kind']} {each['metadata']['name']}" for each in manifests(component).objects]


def test_what_kustomize_builds_is_taken_as_it_is_but_for_what_is_of_its_cluster(tmp_path: Path) -> None:
    one = loaded("kustomize", tmp_path)
    assert isinstance(one, Service)
    assert manifests(one).declared == Declared(
        6, {"web": 8080, "metrics": 9090}, Probe("http", 8080, "/ready"), Resources(2.0, 1 << 30), 20.0,
    )
    assert (one.replicas, one.ports, one.ready, one.stop_grace_s) == (6, {"web": 8080, "metrics": 9090}, Probe("http", 8080, "/ready"), 20.0)
    assert labels(one) == ["ServiceAccount payments", "ConfigMap payments-config-7hk2m5t4c8", "Secret payments-db-86mg5c4f2t", "Service payments"]
    assert set(reasons(one)) == {
        "Namespace shop", "PodDisruptionBudget payments", "HorizontalPodAutoscaler payments", "Ingress payments", "NetworkPolicy payments",
    }
    assert reasons(one)["HorizontalPodAutoscaler payments"] == (
        "the number of nodes is fixed: `replicas`; in production it keeps 6 to 20 pods of Deployment payments"
    )
    assert fields_of(one)["Service payments"] == {"spec.type"}
    assert {"spec.template.spec.affinity", "spec.template.spec.nodeSelector", "spec.strategy", "spec.selector", "metadata.labels"} <= fields_of(one)[
        "Deployment payments"
    ]
    template = manifests(one).template
    assert template["spec"]["volumes"][0]["configMap"]["defaultMode"] == 0o440
    assert template["spec"]["serviceAccountName"] == "payments"
    assert "namespace" not in str(manifests(one).objects)


def test_of_a_rendered_chart_hooks_and_tests_are_left_out_and_a_hook_can_be_a_job_of_its_own(tmp_path: Path) -> None:
    one = loaded("helm", tmp_path)
    assert labels(one) == [
        "ServiceAccount release-orders", "Secret release-orders", "Role release-orders-leases", "RoleBinding release-orders-leases", "Service release-orders",
    ]
    assert manifests(one).objects[-1]["metadata"]["annotations"] == {
        "helm.sh/chart": "orders-2.3.1", "app.kubernetes.io/managed-by": "Helm", "tier": "backend",
    }
    told = reasons(one)
    assert "a hook of Helm (test)" in told["Pod release-orders-test"]
    assert "a component of kind `job`" in told["Job release-orders-migrate"]
    assert "a hook" in told["ConfigMap release-orders-migrate"]
    assert "whole cluster" in told["CustomResourceDefinition widgets.example.test"]
    assert "whole cluster" in told["ClusterRoleBinding release-orders-nodes"]
    assert "example.test/v1 Widget" in told["Widget release-orders"]
    assert "values for tests" in told["ExternalSecret release-orders-extra"]
    assert "leads out" in told["Service database"]
    assert fields_of(one)["Service release-orders"] == {"spec.type", "spec.ports[0].nodePort"}

    migrate = {"name": "migrate", "kind": "job", "manifests": {"files": ["helm.yaml"], "workload": "release-orders-migrate"}}
    job = topology_of(tmp_path, migrate).components["migrate"]
    assert isinstance(job, Job)
    assert "ConfigMap release-orders-migrate" in labels(job)
    assert manifests(job).container == "migrate"


def test_each_pod_of_a_stateful_set_keeps_its_claims_and_its_number(tmp_path: Path) -> None:
    one = loaded("statefulset", tmp_path)
    assert manifests(one).ordinals == ("ledger", "ledger-peers")
    assert manifests(one).claims == ({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Gi"}}},
    },)
    assert manifests(one).declared.ports == {"peers": 7000, "clients": 7001}
    assert manifests(one).declared.ready == Probe("tcp", 7001)
    assert manifests(one).objects[0]["spec"]["clusterIP"] == "None"
    assert {"spec.updateStrategy", "spec.volumeClaimTemplates[0].spec.storageClassName", "spec.volumeClaimTemplates[0].status"} <= fields_of(one)[
        "StatefulSet ledger"
    ]


def test_a_job_is_one_that_runs_once(tmp_path: Path) -> None:
    one = loaded("job", tmp_path)
    assert isinstance(one, Job)
    assert one.resources == Resources(0.25, 128974848)
    assert {"spec.parallelism", "spec.completions"} <= fields_of(one)["Job reindex"]


def test_of_several_containers_the_annotated_one_is_the_component(tmp_path: Path) -> None:
    one = loaded("sidecars", tmp_path)
    assert manifests(one).container == "app"
    assert manifests(one).declared.ports == {"http": 8080}
    assert manifests(one).declared.ready == Probe("tcp", 8080), "what is asked over HTTPS"
    app = manifests(one).template["spec"]["containers"][1]
    assert [each["name"] for each in app["env"]] == ["OTEL_TRACES_SAMPLER", "CPUS"]
    assert {"app.env.OTEL_EXPORTER_OTLP_ENDPOINT", "app.env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} <= fields_of(one)["Deployment edge"]


def test_what_was_read_from_a_cluster_loses_what_the_api_server_wrote(tmp_path: Path) -> None:
    one = loaded("list", tmp_path)
    service, claim = manifests(one).objects
    assert service["metadata"] == {"annotations": {}, "name": "catalog"}
    assert "clusterIP" not in service["spec"]
    assert claim["kind"] == "PersistentVolumeClaim"
    assert claim["spec"] == {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    assert manifests(one).declared.replicas == 1, "what was scaled to nothing has one node"
    assert manifests(one).declared.ports == {"web": 8000}, "named as the Service does"
    assert "metadata.finalizers" in fields_of(one)["PersistentVolumeClaim catalog"]


def test_of_a_bundle_a_component_has_what_is_its_own_and_what_is_nobodys(tmp_path: Path) -> None:
    web = loaded("bundle", tmp_path)
    worker = topology_of(tmp_path, {"kind": "service", "manifests": {"files": ["bundle.yaml"], "workload": "worker"}}).components["one-0"]
    assert isinstance(worker, Service)
    assert labels(web) == ["ConfigMap shared", "ConfigMap web-only", "Service web"]
    assert labels(worker) == ["ConfigMap shared", "Service worker"]
    assert reasons(worker)["ConfigMap web-only"] == "it is of Deployment web, not of ReplicaSet worker"
    assert "another workload" in reasons(web)["ReplicaSet worker"]
    assert "component of kind `job`" in reasons(web)["CronJob nightly"]
    assert worker.replicas == 3


def test_what_the_topology_says_holds_over_what_the_manifests_declare(tmp_path: Path) -> None:
    one = loaded(
        "kustomize", tmp_path, replicas=2, resources={"cpus": 0.5}, ports={"http": 8080}, ready={"http": "/up"}, stop_grace="1s",
    )
    assert isinstance(one, Service)
    assert (one.replicas, one.ports, one.stop_grace_s) == (2, {"metrics": 9090, "http": 8080}, 1.0)
    assert one.resources == Resources(0.5, 1 << 30)
    assert one.ready == Probe("http", 8080, "/up")


def test_the_copy_of_a_run_knows_what_the_manifests_declared_and_no_secret(tmp_path: Path) -> None:
    one = loaded("kustomize", tmp_path)
    inputs = tmp_path / "run" / "inputs"
    inputs.mkdir(parents=True)
    (inputs.parent / "run.json").write_text("{}")
    (inputs / "topology.yaml").write_text((tmp_path / "topology.yaml").read_text())
    save_declared(load_topology(tmp_path / "topology.yaml"), inputs)
    copy = load_topology(inputs / "topology.yaml").components["one"]
    assert isinstance(copy, Service)
    assert isinstance(one, Service)
    assert (copy.replicas, copy.ports, copy.ready, copy.resources, copy.stop_grace_s) == (one.replicas, one.ports, one.ready, one.resources, one.stop_grace_s)
    assert not any("aHVudGVyMg" in file.read_text() for file in inputs.iterdir())


def test_a_substrate_that_runs_no_manifests_needs_another_form(tmp_path: Path) -> None:
    text = (HERE / "bundle.yaml").read_text()
    (tmp_path / "bundle.yaml").write_text(text)
    web = {"name": "web", "kind": "service", "manifests": {"files": ["bundle.yaml"], "workload": "web"}}
    topology = topology_of(tmp_path, web, {**web, "name": "both", "image": "web:1"})
    assert [each.field for each in unpackaged(topology, ["web", "both"], "images")] == ["components.web.image"]
    assert unpackaged(topology, ["web", "both"], "images", manifests=True) == ()
    refused = unpackaged(topology, ["both"], "files")[0]
    assert refused.message == "both is made of an image and manifests only"
    assert any("CronJob nightly is left out: nothing runs by the clock" in each for each in told(topology, ["web"]))


def raw_of(name: str) -> list[dict[str, Any]]:
    return flat([each for each in yaml.safe_load_all((HERE / f"{name}.yaml").read_text()) if each])


def flat(documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for each in documents:
        if each["kind"].endswith("List") and isinstance(each.get("items"), list):
            head = {"apiVersion": each["apiVersion"], "kind": each["kind"].removesuffix("List")}
            found += flat([{**(head if head["kind"] else {}), **item} for item in each["items"]])
        else:
            found.append(each)
    return found


def leaves(value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, f"{at}.{key}" if at else str(key))
    elif isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield from leaves(each, f"{at}[{index}]")
    elif value is not None and value not in ({}, []):
        yield at, value


def unaccounted(documents: list[dict[str, Any]], component: Service | Job) -> list[str]:
    """Leaves that are neither in what the component has nor in what is said to be left out."""
    has = manifests(component)
    kept = {(each["kind"], each["metadata"]["name"]): dict(leaves(each)) for each in has.objects}
    lost = []
    for each in documents:
        metadata = each.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        label = f"{each['kind']} {name if isinstance(name, str) else ''}".rstrip()
        gone = fields_of(component).get(label, set())
        if label in reasons(component):
            continue
        there = kept.get((each["kind"], each["metadata"]["name"]))
        if there is None:  # the workload
            there = {f"spec.template.{at}": value for at, value in leaves(has.template)}
            there |= {at: value for index, one in enumerate(has.claims) for at, value in leaves(one, f"spec.volumeClaimTemplates[{index}]")}
            there |= {"apiVersion": each["apiVersion"], "kind": each["kind"], "metadata.name": each["metadata"]["name"]}
            there |= {"spec.replicas": each["spec"].get("replicas"), "spec.serviceName": has.ordinals[1] if has.ordinals else None}
            hidden = [name.rpartition(".")[2] for name in gone if ".env.OTEL" in name]
            container = next(one for one in each["spec"]["template"]["spec"]["containers"] if one["name"] == has.container)
            container["env"] = [one for one in container.get("env") or [] if one["name"] not in hidden]
        for at, value in leaves(each):
            namespace = re.fullmatch(r"(spec\.template\.|spec\.volumeClaimTemplates\[\d+\]\.)?metadata\.namespace|subjects\[\d+\]\.namespace", at)
            if not namespace and there.get(at) != value and not any(at == one or at.startswith((f"{one}.", f"{one}[")) for one in gone):
                lost.append(f"{label}: {at}")
    return lost


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_every_value_of_a_file_is_either_taken_or_said_to_be_left_out(name: str, tmp_path: Path) -> None:
    assert unaccounted(raw_of(name), loaded(name, tmp_path)) == []


WORDS = st.sampled_from((
    "spec", "status", "replicas", "type", "clusterIP", "selector", "template", "env", "value", "nodeName", "hostNetwork", "labels", "annotations", "namespace",
    "finalizers", "data", "name", "subjects", "ports", "storageClassName", "kind", "serviceName", "volumes", "secret", "items", "metadata", "containers", "x",
))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text("ab: -\n\t'{[&*!#%", max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, each in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        yield value, key
        yield from places(each)


@settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking whole files takes minutes
@given(data=st.data())
def test_with_whatever_in_whatever_place_it_is_refused_or_all_of_it_is_accounted_for(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WORKLOADS)))
    documents = raw_of(name)
    for _ in range(data.draw(st.integers(1, 3))):
        holder, key = data.draw(st.sampled_from(list(places(documents))))
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(WORDS)] = data.draw(VALUES)
        else:
            holder[key] = data.draw(VALUES)
    with tempfile.TemporaryDirectory() as place:
        Path(place, "any.yaml").write_text(yaml.safe_dump_all(documents, sort_keys=False))
        kind, workload = WORKLOADS[name]
        given = {"files": ["any.yaml"], **({"workload": workload} if workload else {})}
        try:
            one = topology_of(Path(place), {"kind": kind, "manifests": given}).components["one-0"]
        except SpecError:
            return
        assert isinstance(one, Service | Job)
        read = flat([each for each in yaml.safe_load_all(Path(place, "any.yaml").read_text()) if each is not None])
        assert unaccounted(read, one) == []


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200) | st.text("-: \n[]{}&*<!'\"|>%@abckind", max_size=200) | st.lists(VALUES, max_size=3).map(yaml.safe_dump_all))
def test_what_is_no_manifest_is_refused_with_its_line(text: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place, "any.yaml").write_text(text)
        with pytest.raises(SpecError) as caught:
            topology_of(Path(place), {"kind": "service", "manifests": {"files": ["any.yaml"]}})
        assert all(each.message and each.line >= 0 for each in caught.value.problems)


DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: one}
spec:
  selector: {}
  template:
    metadata: {labels: {app: one}}
    spec:
      serviceAccountName: SERVICEACCOUNT
      containers:
        - name: one
          image: one:1
          env:
            - {name: PORT, value: VALUE}
            - {name: TOKEN, valueFrom: {secretKeyRef: {name: one, key: token}}}
          resources: {limits: {cpu: CPU}}
---
apiVersion: v1
kind: Secret
metadata: {name: SECRET}
stringData: {token: "1"}
"""
RIGHT = {"SERVICEACCOUNT": "default", "VALUE": '"8080"', "CPU": "1", "SECRET": "one"}


@pytest.mark.parametrize(("changed", "line", "fragments"), [
    ({"VALUE": "8080"}, 14, ("found 8080, allowed: text", "write it in quotes")),
    ({"VALUE": "on"}, 14, ("found True, allowed: text",)),
    ({"CPU": "many"}, 16, ("a quantity such as 500m",)),
    ({"SECRET": "other"}, 15, ("needs Secret 'one', which none of the files has", "or set TOKEN under `env`")),
    ({"SERVICEACCOUNT": "robot"}, 9, ("needs ServiceAccount 'robot'",)),
    ({"SECRET": "one}\nstringData: {token: 1"}, 21, ("found 1, allowed: text",)),
    ({"SECRET": "one, name: one"}, 20, ("'name' is there twice",)),
    ({"SECRET": "!own one"}, 20, ("the tag '!own' is not allowed",)),
    ({"CPU": "!!int x"}, 16, ("'x' is no int",)),
    ({"SECRET": "one}\n---\n- {a: 1"}, 22, ("no object of Kubernetes",)),
    ({"SECRET": "one}\n---\n{apiVersion: v1"}, 22, ("no `kind`",)),
])
def test_what_is_wrong_in_a_manifest_is_reported_there(tmp_path: Path, changed: dict[str, str], line: int, fragments: tuple[str, ...]) -> None:
    text = DEPLOYMENT
    for word, value in {**RIGHT, **changed}.items():
        text = text.replace(word, value)
    if "stringData" in changed.get("SECRET", "") or "---" in changed.get("SECRET", ""):
        text = text.removesuffix('stringData: {token: "1"}\n')
    (tmp_path / "one.yaml").write_text(text)
    with pytest.raises(SpecError) as caught:
        topology_of(tmp_path, {"kind": "service", "manifests": {"files": ["one.yaml"]}})
    assert {each.file for each in caught.value.problems} == {tmp_path / "one.yaml"}
    found = [f"{each.message} {each.hint}" for each in caught.value.problems if each.line == line]
    assert any(all(fragment in text for fragment in fragments) for text in found), caught.value.message


def test_a_variable_that_the_topology_sets_needs_no_secret(tmp_path: Path) -> None:
    text = DEPLOYMENT
    for word, value in {**RIGHT, "SECRET": "other"}.items():
        text = text.replace(word, value)
    (tmp_path / "one.yaml").write_text(text)
    assert topology_of(tmp_path, {"kind": "service", "env": {"TOKEN": "t"}, "manifests": {"files": ["one.yaml"]}})


def test_two_objects_of_one_name_must_be_the_same_in_the_one_namespace_of_an_environment(tmp_path: Path) -> None:
    deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: NAME}\nspec: {template: {spec: {containers: [{name: x, image: x}]}}}\n---\n"
    config = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: shared, namespace: NAME}\ndata: {a: VALUE}\n---\n"
    for name, value in (("one", "b"), ("two", "b"), ("three", "c")):
        (tmp_path / f"{name}.yaml").write_text((deployment + config).replace("NAME", name).replace("VALUE", value))
    same = [{"kind": "service", "manifests": {"files": [f"{name}.yaml"]}} for name in ("one", "two")]
    assert topology_of(tmp_path, *same)
    with pytest.raises(SpecError, match="one-0 has ConfigMap shared too, with other content"):
        topology_of(tmp_path, *same, {"kind": "service", "manifests": {"files": ["three.yaml"]}})
    with pytest.raises(SpecError, match=r"ConfigMap shared is there twice, first in one\.yaml:6"):
        topology_of(tmp_path, {"kind": "service", "manifests": {"files": ["one.yaml", "three.yaml"], "workload": "one"}})


def remarks(component: Service | Job) -> list[str]:
    return [str(each) for each in manifests(component).remarks]


@pytest.mark.parametrize(("policy", "limit", "said"), [
    ("OnFailure", "", "6 more times (restartPolicy: OnFailure, backoffLimit)"), ("Never", "", "6 more times (restartPolicy: Never, backoffLimit)"),
    ("OnFailure", "  backoffLimit: 2\n", "2 more times (restartPolicy: OnFailure, backoffLimit)"), ("OnFailure", "  backoffLimit: 0\n", ""),
])
def test_that_a_cluster_would_try_a_job_again_is_told(tmp_path: Path, policy: str, limit: str, said: str) -> None:
    text = (HERE / "job.yaml").read_text().replace("OnFailure", policy).replace("  parallelism: 4\n", limit)
    (tmp_path / "job.yaml").write_text(text)
    one = topology_of(tmp_path, {"name": "search", "kind": "job", "manifests": {"files": ["job.yaml"]}}).components["search"]
    assert isinstance(one, Job)
    line = next(number for number, each in enumerate(text.splitlines(), 1) if "restartPolicy" in each)
    told = f"job.yaml:{line}: Job reindex: search runs once here, and ends `envctl up` when it fails; a cluster would try it up to {said}"
    assert remarks(one) == ([told] if said else [])


APART = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: robot
      initContainers: [{name: wait, image: x, args: [--for, "http://payments.shop.svc:80/live"]}]
      containers:
        - name: web
          image: x
          env:
            - {name: PAYMENTS, value: "http://payments.shop.svc.cluster.local:8080"}
            - {name: LEDGER, value: "ledger-0.ledger.books.svc,ledger-1.ledger.books.svc"}
            - {name: SHORT, value: "payments.shop:80"}
            - {name: OUTSIDE, value: "https://payments.shop.example.test/svc a.svc payments.shopping my.payments.shop.test"}
            - {name: BY_ITSELF, value: "payments.$(NAMESPACE).svc.cluster.local"}
            - {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: "http://collector.monitoring.svc:4317"}
            - {name: GIVEN, value: "http://audit.shop.svc"}
          envFrom: [{configMapRef: {name: web}}, {secretRef: {name: web}}]
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: robots}}
---
{apiVersion: v1, kind: Service, metadata: {name: payments, namespace: shop}, spec: {selector: {app: payments}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web, namespace: shop}
data:
  web.yaml: |
    audit: audit.logs.svc.cluster.local.
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: web, namespace: other}, data: {a: b}}
---
{apiVersion: v1, kind: Secret, metadata: {name: web}, data: {url: cG9zdGdyZXM6Ly91OnB3QHBheW1lbnRzLnNob3Auc3ZjL3g=, binary: /w==}}
"""


def test_names_and_objects_of_other_namespaces_are_told_with_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_text(APART)
    web = {"name": "web", "kind": "service", "env": {"GIVEN": "x"}, "manifests": {"files": ["web.yaml"]}}
    one = topology_of(tmp_path, web, {"name": "ledger", "kind": "service", "image": "x"}).components["web"]
    assert isinstance(one, Service)
    said = {int(re.findall(r":(\d+):", each)[0]): each for each in remarks(one)}
    assert sorted(said) == [9, 14, 15, 16, 23, 31, 36]
    assert said[9] == (
        "web.yaml:9: Deployment web: payments.shop.svc in spec.template.spec.initContainers[0].args[1] leads out of the environment, "
        "which is a namespace of its own; payments does not: write that, or name a file with values for tests")
    assert ": payments.shop.svc.cluster.local in PAYMENTS leads out of" in said[14]
    assert "; payments does not: set PAYMENTS under `env`" in said[14]
    assert "; ledger-0.ledger, ledger-1.ledger do not: set LEDGER under `env`" in said[15]
    assert "payments.shop in SHORT leads out" in said[16]
    assert "ServiceAccount robot: it is of the namespace robots, where Deployment web of shop does not see it" in said[23]
    assert "ConfigMap web: audit.logs.svc.cluster.local in data.web.yaml leads out" in said[31]
    assert "audit (no component is called audit) does not: write that" in said[31]
    assert "Secret web: payments.shop.svc in data.url leads out" in said[36]
    assert "pw" not in said[36]
    left = [str(each) for each in manifests(one).left_out]
    assert "web.yaml:1: Deployment web: metadata.namespace is left out: an environment is a namespace of its own" in left
    assert "web.yaml:34: ConfigMap web is left out: it is of the namespace other, and Deployment web has the one of shop" in left
    assert [each["data"] for each in manifests(one).objects if each["kind"] == "ConfigMap"] == [{"web.yaml": "audit: audit.logs.svc.cluster.local.\n"}]


def test_a_file_that_several_components_name_is_wrong_once(tmp_path: Path) -> None:
    (tmp_path / "bundle.yaml").write_text((HERE / "bundle.yaml").read_text().replace('{region: "eu"}', "{region: 1}"))
    both = [{"kind": "service", "manifests": {"files": ["bundle.yaml"], "workload": name}} for name in ("web", "worker")]
    with pytest.raises(SpecError) as caught:
        topology_of(tmp_path, *both)
    assert [each.line for each in caught.value.problems] == [5]
