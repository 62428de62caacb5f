"""What changed against the base branch: the one place where planning asks git."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from envctl.errors import SpecError, UsageError

if TYPE_CHECKING:
    from envctl.model.project import Project
    from envctl.model.topology import Topology


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since the base.  `files` are relative to the project's root.

    `topology` is the base's, where the topology file is among the changed ones.  `unknown` says why not everything is known (no
    such branch, no repository, no topology there that can be read); the full topology is the safe answer then.
    """

    files: tuple[PurePosixPath, ...] = ()
    topology: Topology | None = None
    base: str = ""
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class Repository:
    """Which checkout this is."""

    name: str
    ref: str  # branch, `pr-N` in a pull request's CI job, or the short commit where no branch is checked out
    commit: str  # empty before the first commit


def _git(root: Path, *arguments: str) -> str:
    """The output of a git command in `root`.  Raises UsageError with git's own words."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, env=environment, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False
        )
    except FileNotFoundError as error:
        raise UsageError("git is not installed", hint="envctl compares with the base branch through git") from error
    if done.returncode:
        raise UsageError(f"git {arguments[0]} failed: {done.stderr.strip() or f'exit {done.returncode}'}")
    return done.stdout


def changed_files(project: Project, base: str) -> tuple[Path, ...]:
    """Files that differ from the merge base with `base`, uncommitted and untracked ones too, relative to the project's root.

    Raises UsageError where there is no repository or no such base.
    """
    return _changed_since(project.root, _merge_base(project.root, base))


def _changed_since(root: Path, commit: str) -> tuple[Path, ...]:
    differing = _git(root, "diff", "--name-only", "--no-renames", "--relative", "-z", commit, "--")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    return tuple(Path(name) for name in sorted({*differing.split("\0"), *untracked.split("\0")} - {""}))


def _merge_base(root: Path, base: str) -> str:
    try:
        _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    except UsageError as error:
        _git(root, "rev-parse", "--git-dir")  # no repository at all is another message
        remote, _, branch = base.partition("/")
        fetch = f"git fetch {remote} {branch}" if branch else f"git fetch origin {base}"
        raise UsageError(f"there is no branch or commit {base!r} to compare with", hint=f"`{fetch}`, or name another with --base") from error
    try:
        return _git(root, "merge-base", base, "HEAD").strip()
    except UsageError as error:
        hint = "in a shallow clone, fetch the history (`git fetch --unshallow`; in CI `fetch-depth: 0`)"
        raise UsageError(f"{base!r} and this branch have no common commit", hint=hint) from error


def changes(project: Project, base: str = "") -> Changes:
    """What changed since `base` (empty: the project's).

    A base that is named but does not exist raises UsageError; where only the project's default does not exist, nothing is
    known, and the result says why.
    """
    try:
        commit = _merge_base(project.root, base or project.base)
        files = tuple(PurePosixPath(file) for file in _changed_since(project.root, commit))
    except UsageError as error:
        if base:
            raise
        return Changes(unknown=f"{error.message} ({error.hint})" if error.hint else error.message)
    if not project.topology_file.is_relative_to(project.root):
        return Changes(files, base=base or project.base)
    inside = PurePosixPath(project.topology_file.relative_to(project.root))
    if inside not in files:
        return Changes(files, base=base or project.base)
    before, unknown = _topology_at(project, commit, inside)
    return Changes(files, before, base or project.base, unknown and f"{inside} changed, and {base or project.base} {unknown}")


def _topology_at(project: Project, commit: str, inside: PurePosixPath) -> tuple[Topology | None, str]:
    """The base's topology, or why there is none to compare with."""
    try:
        text = _git(project.root, "show", f"{commit}:./{inside}")
    except UsageError:
        return None, "has none"
    from envctl.spec.topology import load_topology

    try:
        return load_topology(project.topology_file, files=False, text=text), ""
    except SpecError as error:
        return None, f"has one that can't be read by today's rules ({error.problems[0].message})"


def repository(root: Path) -> Repository:
    """The checkout's name, branch and commit; where there is no repository, its directory's name and `local`."""
    try:
        top, branch = _git(root, "rev-parse", "--show-toplevel").strip(), _git(root, "branch", "--show-current").strip()
        commit = _commit(root)
    except UsageError:
        return Repository(root.resolve().name, "local", "")
    pull = re.fullmatch(r"refs/pull/(\d+)/\w+", os.environ.get("GITHUB_REF", ""))
    ref = f"pr-{pull[1]}" if pull else branch or commit[:7]
    name = os.environ.get("GITHUB_REPOSITORY", "").rpartition("/")[2] or Path(top).name
    return Repository(name, ref, commit)


def _commit(root: Path) -> str:
    try:
        return _git(root, "rev-parse", "HEAD").strip()
    except UsageError:  # a repository without a commit
        return ""
