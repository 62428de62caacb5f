"""Debian packages without installing them: `apt-get download`, which verifies signatures and hashes, and `dpkg-deb -x`.

Works for an ordinary user.  Where the machine has no package lists, or stale ones, lists of envctl's own are kept in the
cache; the machine's are never touched.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from envctl.errors import CapabilityError, ResourceError
from envctl.toolchain.client import run
from envctl.toolchain.tool import cache_dir, locked

_INSTALLED = re.compile(r"^Inst (?P<name>[^\s:]+)\S* (?P<old>\[[^\]]*\] )?\((?P<version>\S+)", re.MULTILINE)
_NOT_NEEDED = re.compile(r"lib(llvm|perl|c6|c-bin|ssl-dev)|lib.*-perl$")
"""Libraries that nothing here loads: LLVM only for PostgreSQL's JIT (it does without), Perl only for Debian's wrappers."""

Say = Callable[[str], None]


def unpack(packages: Sequence[str], tree: Path, say: Say, *, with_all: str = "") -> None:
    """Unpacks the newest offered versions of the packages, and of the libraries that the machine lacks, into `tree`.

    With a regular expression in `with_all`, instead every package they depend on whose name it matches.  Raises CapabilityError without apt-get,
    ResourceError when a package is not offered or can't be fetched.
    """
    _need_apt()
    with locked("apt", say):
        try:
            _unpack(packages, tree, say, (), with_all=with_all)
        except ResourceError:
            _unpack(packages, tree, say, _fresh_lists(say), with_all=with_all)
    _keep_links_inside(tree)


def offered(pattern: str) -> tuple[str, ...]:
    """Names of packages that can be fetched here and match a regular expression."""
    _need_apt()
    private = _private() if (cache_dir() / "apt" / "lists" / "lock").exists() else ()
    names = {name for options in {(), private} for name in run(["apt-cache", *options, "pkgnames"]).split()}
    return tuple(sorted(name for name in names if re.fullmatch(pattern, name)))


def refresh(say: Say) -> None:
    """Fetches package lists into the cache."""
    _need_apt()
    with locked("apt", say):
        _fresh_lists(say)


def _need_apt() -> None:
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise CapabilityError("apt-get is not on this machine", hint="install the program with this machine's own package manager")


def _unpack(packages: Sequence[str], tree: Path, say: Say, options: Sequence[str], *, with_all: str) -> None:
    say("asking apt what is missing")
    others = _dependencies(packages, options, with_all) if with_all else _missing_libraries(packages, options)
    wanted = [*packages, *others]
    with tempfile.TemporaryDirectory(prefix=".debs-", dir=tree.parent) as debs:
        sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
        say(f"fetching {len(wanted)} packages: {' '.join(wanted)}")
        run(["apt-get", "download", *sandbox, *options, *wanted], cwd=Path(debs))
        for deb in sorted(Path(debs).glob("*.deb")):
            say(f"unpacking {deb.name.partition('_')[0]}")
            run(["dpkg-deb", "-x", deb, tree])


def _missing_libraries(packages: Sequence[str], options: Sequence[str]) -> Iterator[str]:
    """Libraries that an installation would add (not those it would only renew)."""
    planned = run(["apt-get", "-s", "install", "--no-install-recommends", *options, *packages])
    for found in _INSTALLED.finditer(planned):
        name = found["name"]
        if name not in packages and name.startswith("lib") and not found["old"] and not _NOT_NEEDED.match(name):
            yield f"{name}={found['version']}"


def _dependencies(packages: Sequence[str], options: Sequence[str], pattern: str) -> Iterator[str]:
    """Names that match of everything the packages depend on, whether it is installed or not."""
    hard_only = [f"--no-{kind}" for kind in ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]
    tree = run(["apt-cache", "depends", "--recurse", *hard_only, *options, *packages])
    names = {name for name in re.findall(r"^\S+$", tree, re.MULTILINE) if re.fullmatch(pattern, name)}
    return iter(sorted(names - set(packages)))


def _private() -> tuple[str, ...]:
    """Options that make apt keep lists and archives in envctl's cache, and read which packages are installed as usual."""
    base = cache_dir() / "apt"
    for directory in ("lists/partial", "cache/archives/partial"):
        (base / directory).mkdir(parents=True, exist_ok=True)
    return ("-o", f"Dir::State::Lists={base / 'lists'}", "-o", f"Dir::Cache={base / 'cache'}")


def _fresh_lists(say: Say) -> tuple[str, ...]:
    say("fetching package lists into the cache")
    sandbox = ["-o", "APT::Sandbox::User=root"] if os.geteuid() == 0 else []
    try:
        run(["apt-get", "update", *sandbox, *_private()], on_line=say)
    except ResourceError as error:  # one broken source among good ones is common; what matters shows when packages are fetched
        say(f"some package lists could not be fetched: {error.message.splitlines()[-1]}")
    return _private()


def _keep_links_inside(tree: Path) -> None:
    """Absolute links of the packages lead to their targets in the tree where these are there."""
    for link in tree.rglob("*"):
        if link.is_symlink() and link.readlink().is_absolute():
            target = tree / link.readlink().relative_to("/")
            if target.exists() or target.is_symlink():
                link.unlink()
                link.symlink_to(os.path.relpath(target, link.parent))


def library_path(tree: Path) -> str:
    """LD_LIBRARY_PATH for programs of a tree, with `{home}/…` in place of its absolute path; `tree` is `<home>/root`."""
    found = {library.parent for place in ("usr/lib", "lib") for library in tree.glob(f"{place}/*-linux-gnu*/*.so*")}
    return ":".join(f"{{home}}/{path.relative_to(tree.parent)}" for path in sorted(found))
