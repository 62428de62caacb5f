"""How images are built: by BuildKit where the user's docker command has it, else by the engine's classic builder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from envctl.engines.builds import tied
from envctl.errors import ResourceError
from envctl.model.environment import ImageBuild
from envctl.substrates.docker.engine import api, translated

STEP = "install the docker command with its plug-in buildx (the package docker-buildx-plugin of Docker's own repository, or docker-buildx)"
_ANSWER_S = 20
_WITHOUT_PLUGIN = range(19, 23)  # major versions of the docker command that have BuildKit in themselves
_SETTINGS = {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}  # a plain image, which every engine can keep
_CONTEXT = 'exec "$@" <"$0"'


@cache
def buildkit() -> tuple[str, ...]:
    """How this machine's docker command builds with BuildKit; empty where it can't."""
    if not shutil.which("docker"):
        return ()
    if _said("docker", "buildx", "version"):
        return ("docker", "buildx", "build", "--load")
    version = re.search(r"version (\d+)\.", _said("docker", "--version"))
    return ("docker", "build") if version and int(version[1]) in _WITHOUT_PLUGIN else ()


def _said(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False, timeout=_ANSWER_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def build(name: str, context: Path, dockerfile: str, wanted: ImageBuild) -> None:
    """Builds a user's image from a context, a tar.  Raises ResourceError with the builder's last words."""
    if argv := buildkit():
        _by_command(name, context, [*argv, "--progress", "plain", "--tag", name, "--file", dockerfile, *_options(wanted), "-"])
        return
    with context.open("rb") as file:
        by_engine(name, fileobj=file, dockerfile=dockerfile, target=wanted.target or None, buildargs=dict(wanted.args))


def _options(wanted: ImageBuild) -> list[str]:
    target = ["--target", wanted.target] if wanted.target else []
    network = ["--network", name] if (name := _network()) else []
    return [*target, *network, *(word for key, value in wanted.args.items() for word in ("--build-arg", f"{key}={value}"))]


def _by_command(name: str, context: Path, argv: list[str]) -> None:
    """It ends with us: then the engine gives the build up."""
    with tempfile.TemporaryFile() as output:
        with tied(["sh", "-c", _CONTEXT, str(context), *argv], cwd=context.parent, env={**os.environ, **_SETTINGS}, output=output) as process:
            status = process.wait()
        output.seek(0)
        if status:
            raise ResourceError(f"{name} could not be built (exit {status})\n{output.read().decode(errors='replace')[-2000:].strip()}")


def by_engine(name: str, **options: Any) -> None:
    """A build by the engine's classic builder.  Raises ResourceError with its last words."""
    said: list[str] = []
    with translated(f"building {name}"):
        steps = api().build(custom_context=True, tag=name, rm=True, forcerm=True, decode=True, network_mode=_network(), **options)
        for line in steps:
            said.append(str(line.get("stream", line.get("status", ""))))
            if "error" in line:
                raise ResourceError(f"{name} could not be built: {line['error']}\n{''.join(said)[-2000:]}")


def _network() -> str | None:
    """Builds may need the network that the user's own builds need."""
    return os.environ.get("ENVCTL_DOCKER_BUILD_NETWORK") or None
