"""An archive of Kafka's loaded classes (AppCDS), made once; it halves what a broker's start costs.

The classes are those that a broker loads when it works: it replicates, elects, serves a producer and a consumer group.
See JEP 350, "Dynamic CDS Archives".  A Java that cannot make one costs time at each start and nothing else.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from envctl.engines.base import Site
from envctl.engines.broker import PORT, format_directory, java_command, properties, write_properties
from envctl.engines.content import digest, made_once, shown
from envctl.engines.nodes import PATH
from envctl.engines.unprivileged import alone_in_network, run
from envctl.toolchain.tool import Tool

ARCHIVE = "kafka.jsa"
QUIET = ("-Xlog:cds=off", "-Xlog:cds+dynamic=off")
_FORM = 2
_NAMES = ("127.0.0.1", "127.0.0.2")


def class_archive(kafka: Tool, java: Tool, site: Site) -> Path | None:
    """The directory that holds `kafka.jsa`; None where this Java cannot make one.  Raises ResourceError if Kafka fails."""
    key = digest("classes", _FORM, str(kafka.home), kafka.version, str(java.home), java.version)

    def make(half: Path) -> None:
        site.progress(f"prepare Kafka {kafka.version}  class archive, once")
        _train(kafka, java, half)
        shown(half)

    kept = made_once(site.cache / "prepared" / f"classes-{key}", make)
    return kept if (kept / ARCHIVE).is_file() else None


def _train(kafka: Tool, java: Tool, target: Path) -> None:
    """Lets two brokers work in a network of their own; the first writes the archive as it ends."""
    commands = []
    for index, name in enumerate(_NAMES):
        directory = target / f"broker-{index}"
        directory.mkdir()
        config = directory / "server.properties"
        listeners = f"PLAINTEXT://{name}:{PORT},CONTROLLER://{name}:{PORT + 1}"
        write_properties(config, {**properties(_NAMES, index, str(directory / "log")), "listeners": listeners})
        format_directory(kafka, java, "AAAAAAAAAAAAAAAAAAAAAA", config)
        archive = () if index else (f"-XX:ArchiveClassesAtExit={target / ARCHIVE}",)
        own = f"-Djava.io.tmpdir={directory}"  # the second is killed and leaves its unpacked libraries
        commands.append((*java_command(kafka, java, *archive, *QUIET, own), "kafka.Kafka", str(config)))
    env = {"PATH": f"{PATH}:/usr/sbin:/sbin", **java.env, "ENVCTL_TRAINING": json.dumps([f"{_NAMES[0]}:{PORT}", commands])}
    trainer = (sys.executable, "-P", "-m", "envctl.engines.class_training")
    run(alone_in_network(trainer), what="showing Kafka's classes", env={**env, "PYTHONPATH": str(Path(__file__).parents[2])}, timeout_s=240)
    for index in range(len(_NAMES)):
        shutil.rmtree(target / f"broker-{index}")
