from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from envctl.errors import ResourceError
from envctl.toolchain import ensure, find, maven
from envctl.toolchain.client import run


@pytest.mark.parametrize(
    ("asked", "given"), [("4.0", "[4.0,4.0.9999)"), ("4.0.1", "4.0.1"), ("5", "[5,5.9999)")],
)
def test_a_prefix_becomes_a_range_and_an_exact_version_stays(asked: str, given: str) -> None:
    assert maven._range(asked) == given


@pytest.mark.cell
def test_java_reads_the_trust_store_with_every_certificate(tmp_path: Path) -> None:
    certificates = ssl.create_default_context().get_ca_certs(binary_form=True)
    assert certificates, "this machine trusts nobody"
    store = tmp_path / "trust.jks"
    store.write_bytes(maven.trust_store(certificates))
    java = find("java").programs["java"]
    assert f"contains {len(certificates)} entries" in run([java, "sun.security.tools.keytool.Main", "-list", "-keystore", store])


@pytest.mark.parametrize("version", ["3.9", "9.9", "4.0.99"])
def test_a_kafka_that_no_supplier_has_is_refused_by_its_version(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path))
    with pytest.raises(ResourceError, match=rf"kafka@{version}: (envctl runs|Maven finds) .*{version}\n    4\.1\.1 is known to work"):
        ensure([f"kafka@{version}"])


@pytest.mark.slow
def test_kafka_comes_with_everything_on_its_class_path_and_a_log_binding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVCTL_CACHE", str(tmp_path))
    ensure(["kafka@4.1"])
    kafka = find("kafka", "4.1")
    jars = [Path(jar) for jar in kafka.env["CLASSPATH"].split(":")]
    assert all(jar.exists() for jar in jars)
    assert {"log4j-slf4j-impl", "log4j-core", "kafka_2.13"} <= {jar.name.rpartition("-")[0] for jar in jars}
    assert (kafka.home / "log4j2.properties").exists()
    java = find("java").programs["java"]
    assert kafka.version in run([java, "kafka.Kafka", "--version"], env=kafka.env)
