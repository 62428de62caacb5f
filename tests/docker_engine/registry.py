"""A registry for tests: the reference implementation, of the distribution's package, on a port of the loopback."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from docker_engine.engine import Engine

from envctl.toolchain import apt
from envctl.toolchain.tool import cache_dir

PACKAGE, START_S = "docker-registry", 30.0
SETTINGS = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/images}}}}
http: {{addr: "127.0.0.1:0"}}
"""


@contextmanager
def registry(directory: Path) -> Iterator[str]:
    """Its address, which engines take without TLS; it ends with the block."""
    settings, log = directory / "registry.yaml", directory / "registry.log"
    settings.write_text(SETTINGS.format(directory=directory))
    with log.open("wb") as output:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", _program(), "serve", settings], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    try:
        yield _address(process, log)
    finally:
        process.kill()
        process.wait()


def pushed(engine: Engine, address: str, context: Path, name: str) -> str:
    """An image that is in the registry, and not on the engine any more, by its digest."""
    tag = f"{address}/{name}:1"
    engine.docker("build", "--quiet", "--tag", tag, context)
    try:
        said = engine.docker("push", tag).stdout
    finally:
        engine.docker("rmi", tag)
    digest = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    assert digest, said
    return f"{address}/{name}@{digest[1]}"


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_S
    while not (found := re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text())):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found[1]


def _program() -> Path:
    """Unpacked into the user's cache: installed it would be a service of the machine."""
    home = cache_dir() / "tests" / PACKAGE
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as new:
            apt.unpack([PACKAGE], Path(new) / "tree", lambda _: None)
            Path(new, "tree").replace(home)
    return home / "usr/bin" / PACKAGE
