"""Kafka's jars by Maven, each checked against the repository's checksum (`-C`); and Maven itself where there is none."""

from __future__ import annotations

import hashlib
import re
import shutil
import struct
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from envctl.errors import CapabilityError, ResourceError
from envctl.toolchain import apt
from envctl.toolchain.client import run
from envctl.toolchain.lookup import parts, satisfies, which
from envctl.toolchain.tool import Made, Tool, cache_dir

KAFKA_VERSION = "4.1.1"
OURS = Path(__file__).parent / "kafka"
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

Say = Callable[[str], None]


def kafka(version: str, java: Tool, new: Path, say: Say) -> Made:
    """Fills `new` with the jars of a broker and its log configuration.

    `version` may be empty, a prefix such as "4.1" (the pinned version where it fits, otherwise the newest) or exact.
    Raises CapabilityError for a version that is older than 4.0 or that Maven does not find.
    """
    if version and not satisfies(version.removeprefix(">="), ">=4"):
        raise CapabilityError(f"envctl runs Kafka 4.0 and newer, not {version}", hint=f"{KAFKA_VERSION} is known to work")
    spare = new / "spare"  # what is needed for the fetching only
    spare.mkdir()
    mvn = _maven(spare, say)
    fitting = KAFKA_VERSION if satisfies(KAFKA_VERSION, version) else _range(version)
    say(f"fetching Kafka {fitting} by Maven")
    fetched = cache_dir() / "clients/maven"  # not the user's; kept until it is done, so that a broken-off attempt goes on
    argv: list[str | Path] = [mvn, "-B", "-C", "-f", OURS / "pom.xml", f"-Dkafka.version={fitting}", f"-Dmaven.repo.local={fetched}"]
    try:
        run([*argv, f"-DoutputDirectory={new / 'libs'}", _COPY], env=_environment(java, spare / "trust.jks"), on_line=say)
    except ResourceError as error:
        if re.search("No versions available|Could not find artifact org.apache.kafka", error.message):
            raise CapabilityError(f"Maven finds no Kafka {version}", hint=f"{KAFKA_VERSION} is known to work") from error
        raise
    shutil.copy(OURS / "log4j2.properties", new)
    for done in (spare, fetched):
        shutil.rmtree(done)
    jars = sorted(path.name for path in (new / "libs").glob("*.jar"))
    return Made(_broker_version(jars), {}, {"CLASSPATH": ":".join(f"{{home}}/libs/{jar}" for jar in jars)})


def _range(version: str) -> str:
    """Maven's way of saying "the newest of 4.0"; an exact version as it is."""
    return version if len(parts(version)) >= 3 else f"[{version},{version}.9999)"


def _broker_version(jars: Sequence[str]) -> str:
    for jar in jars:
        if found := re.fullmatch(r"kafka_2\.13-(.+)\.jar", jar):
            return found[1]
    raise ResourceError("Maven gave no Kafka broker")


def _maven(spare: Path, say: Say) -> Path:
    """The machine's Maven; otherwise the distribution's package of it, for this once."""
    if found := which("mvn"):
        return found
    say("fetching Maven")
    apt.unpack(("maven",), spare / "root", say, with_all=r".*-java")
    return spare / "root/usr/share/maven/bin/mvn"


def _environment(java: Tool, trust: Path) -> dict[str, str]:
    """A Java from a wheel trusts only what came with it; it shall trust whom the machine trusts."""
    import ssl

    home = {"JAVA_HOME": str(java.programs["java"].parent.parent)}
    authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
    if java.source == "machine" or not authorities:
        return home
    trust.write_bytes(trust_store(authorities))
    return home | {"MAVEN_OPTS": f"-Djavax.net.ssl.trustStore={trust}"}


def trust_store(certificates: Sequence[bytes]) -> bytes:
    """A Java key store (format JKS, version 2) of trusted certificates given in DER; its password is empty.

    Source of the format: OpenJDK, sun.security.provider.JavaKeyStore.engineStore.
    """
    now_ms = int(time.time() * 1000)
    entries = (
        struct.pack(">I", 2) + _utf(f"ca{index}") + struct.pack(">Q", now_ms) + _utf("X.509") + struct.pack(">I", len(der)) + der
        for index, der in enumerate(certificates)
    )
    body = struct.pack(">III", 0xFEEDFEED, 2, len(certificates)) + b"".join(entries)
    return body + hashlib.sha1(b"Mighty Aphrodite" + body, usedforsecurity=False).digest()


def _utf(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode()
