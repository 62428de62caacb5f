"""`envctl plan` for components that are made of Kubernetes manifests."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from envctl.cli.main import main
from envctl.substrates.docker import Docker

MANIFESTS = Path(__file__).parents[1] / "spec" / "manifests"
TOPOLOGY = "envctl: topology/v1\nname: shop\ncomponents:\n  payments: {kind: service, manifests: {files: [k8s/payments.yaml]}}\n"


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    stack = tmp_path / "stacks" / "shop"
    (stack / "k8s").mkdir(parents=True)
    (stack / "topology.yaml").write_text(TOPOLOGY)
    (stack / "k8s" / "payments.yaml").write_text((MANIFESTS / "kustomize.yaml").read_text())
    (tmp_path / "envctl.yaml").write_text("envctl: project/v1\nstack: stacks/shop\nbase: main\nsubstrate: docker\n")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("-c", "user.name=x", "-c", "user.email=x@localhost", "commit", "-q", "-m", "x")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        main(["plan"])
    said = capsys.readouterr()
    return int(caught.value.code or 0), said.out + said.err


def test_a_substrate_without_that_power_refuses_a_component_that_has_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = planned(capsys)
    assert code == 2
    assert "topology.yaml:4: components.payments.image: payments is made of manifests only" in said


def test_one_with_it_is_told_what_is_left_out_and_why_and_a_changed_manifest_selects(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Docker, "powers", frozenset({"manifests"}))
    manifest = root / "stacks/shop/k8s/payments.yaml"
    manifest.write_text(manifest.read_text().replace("LOG_LEVEL: info", "LOG_LEVEL: debug"))
    code, said = planned(capsys)
    assert code == 0
    assert "changed   stacks/shop/k8s/payments.yaml" in said
    assert re.search(r"note: k8s/payments\.yaml:\d+: Ingress payments is left out: the way into an environment are its published ports", said)
    assert re.search(r"note: k8s/payments\.yaml:\d+: Deployment payments: payments-db\.shop\.svc\.cluster\.local in DATABASE_HOST leads out", said)
    assert "Deployment payments: spec.template.spec.nodeSelector, spec.template.spec.affinity" in said
