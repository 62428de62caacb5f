"""An archive of Kafka's loaded classes (AppCDS), made once from a broker's start and stop; it halves a broker's start.

See JEP 350, "Dynamic CDS Archives".  A Java that cannot make one costs time at each start and nothing else.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from envctl.engines.base import Site
from envctl.engines.broker import format_directory, java_command, properties, write_properties
from envctl.engines.content import digest, made_once, shown
from envctl.engines.nodes import PATH
from envctl.engines.unprivileged import alone_in_network
from envctl.errors import ResourceError
from envctl.toolchain.tool import Tool

_FORM = 1
_WITHIN_S = 120.0
_STARTED = "Kafka Server started"


def class_archive(kafka: Tool, java: Tool, site: Site) -> Path | None:
    """The directory that holds `kafka.jsa`; None where this Java cannot make one.  Raises ResourceError if Kafka fails."""
    key = digest("classes", _FORM, str(kafka.home), kafka.version, str(java.home), java.version)

    def make(half: Path) -> None:
        site.progress(f"prepare Kafka {kafka.version}  class archive, once")
        _start_and_stop(kafka, java, half)

    kept = made_once(site.cache / "prepared" / f"classes-{key}", make)
    return kept if (kept / "kafka.jsa").is_file() else None


def _start_and_stop(kafka: Tool, java: Tool, target: Path) -> None:
    """Starts a lone broker and stops it cleanly; the JVM writes the archive as it ends."""
    config, log = target / "server.properties", target / "out.log"
    write_properties(config, properties(("localhost",), 0, str(target / "log")))
    format_directory(kafka, java, "AAAAAAAAAAAAAAAAAAAAAA", config)
    command = java_command(kafka, java, f"-XX:ArchiveClassesAtExit={target / 'kafka.jsa'}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
    with log.open("wb") as output, subprocess.Popen(
        alone_in_network((*command, "kafka.Kafka", str(config))), env={"PATH": f"{PATH}:/usr/sbin:/sbin", **java.env},
        stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
    ) as broker:
        try:
            _await_start(broker, log)
            broker.send_signal(signal.SIGTERM)
            broker.wait(_WITHIN_S)
        finally:
            broker.kill()
    _keep_only_archive(target)
    shown(target)


def _await_start(broker: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _WITHIN_S
    while _STARTED not in log.read_text(errors="replace"):
        if broker.poll() is not None or time.monotonic() > deadline:
            last = "\n".join(f"  {line}" for line in log.read_text(errors="replace").splitlines()[-20:])
            raise ResourceError(f"the broker that was to show Kafka's classes did not start\n{last}")
        time.sleep(0.1)


def _keep_only_archive(target: Path) -> None:
    for path in target.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "kafka.jsa":
            path.unlink()
