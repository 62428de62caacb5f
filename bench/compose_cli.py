"""Docker Compose, built from its Go module into the user's cache where it isn't there yet."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from envctl.toolchain import pulumi_cli
from envctl.toolchain.client import run
from envctl.toolchain.tool import cache_dir

VERSION = "v2.40.3"
_MODULE = "github.com/docker/compose/v2"


def compose() -> Path:
    """The program; builds it the first time (some minutes).  Raises ResourceError with what Go said."""
    home = cache_dir() / "tests" / f"compose-{VERSION}"
    if not (home / "docker-compose").exists():
        home.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=home))
        try:
            _build(new).replace(home / "docker-compose")
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return home / "docker-compose"


def _build(new: Path) -> Path:
    """A module of our own that asks for it alone: Go takes the versions that it names, and compares their hashes with its checksum database."""
    print(f"building Docker Compose {VERSION}, once", flush=True)
    go, env = pulumi_cli._go(new / "spare", print)  # noqa: SLF001 - as the tests build theirs
    env |= {"GOPATH": str(new / "path"), "GOMODCACHE": str(new / "modules"), "GOCACHE": str(new / "build"), "CGO_ENABLED": "0"}
    env["GOFLAGS"] = "-mod=mod -modcacherw"
    module = new / "module"
    module.mkdir()
    run([go, "mod", "init", "compose"], cwd=module, env=env)
    run([go, "get", f"{_MODULE}/cmd@{VERSION}"], cwd=module, env=env)
    stamp = f"-s -w -X {_MODULE}/internal.Version={VERSION}"
    run(["nice", go, "build", "-p", "1", "-trimpath", "-ldflags", stamp, "-o", new / "docker-compose", f"{_MODULE}/cmd"], cwd=module, env=env)
    return new / "docker-compose"
