"""What of a build's context Docker sees: its files without those that `.dockerignore` leaves out."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from envctl.errors import Problem, SpecError
from envctl.model.topology import Image

BY_PRODUCTS = frozenset({".git", "__pycache__", ".venv", ".envctl", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"})
"""Names that are never part of a source or a context: they change without the program changing."""


@dataclass(frozen=True, slots=True)
class Context:
    """The directory that an image is built from.  Paths are relative to it, with forward slashes."""

    directory: Path
    dockerfile: str
    inputs: tuple[str, ...]  # empty: all
    rules: tuple[tuple[re.Pattern[str], bool], ...]  # what a rule matches, and whether it takes that in again

    def sees(self, path: PurePosixPath) -> bool:
        """Whether a file (that need not exist) counts.  The Dockerfile does, whatever the rules say."""
        if str(path) in (self.dockerfile, *_ignore_files(self.dockerfile)):
            return True
        return not BY_PRODUCTS & set(path.parts) and not self._ignored(str(path)) and self._goes_in(path)

    def _goes_in(self, path: PurePosixPath) -> bool:
        """Whether it is an input, below one, or above one."""
        return not self.inputs or any(path.is_relative_to(each) or PurePosixPath(each).is_relative_to(path) for each in self.inputs)

    def _ignored(self, path: str) -> bool:
        """By the last rule that matches the path or a directory above it."""
        return next((not again for pattern, again in reversed(self.rules) if pattern.match(path)), False)

    def files(self) -> Iterator[PurePosixPath]:
        """The files and links that are in the context, in the order of their names; empty directories too."""
        yield from self._below(PurePosixPath())

    def _below(self, directory: PurePosixPath) -> Iterator[PurePosixPath]:
        for entry in sorted((self.directory / directory).iterdir()):
            path = directory / entry.name
            if entry.is_symlink() or not entry.is_dir():
                if self.sees(path):
                    yield path
            elif entry.name not in BY_PRODUCTS and self._goes_in(path) and (not self._ignored(str(path)) or any(again for _, again in self.rules)):
                below = list(self._below(path))
                yield from below if below or self._ignored(str(path)) else [path]


def context_of(stack: Path, image: Image) -> Context:
    """The context of an image that is built; `stack` is the stack directory.

    The rules are those of `DOCKERFILE.dockerignore` where it is there, else of `.dockerignore`.
    """
    directory = stack / image.context
    dockerfile = posixpath.normpath(image.dockerfile or "Dockerfile")
    file = next((directory / name for name in _ignore_files(dockerfile) if (directory / name).is_file()), None)
    text = file.read_text(encoding="utf-8-sig", errors="replace") if file else ""
    return Context(directory, dockerfile, tuple(map(posixpath.normpath, image.inputs)), tuple(ignore_rules(text, file)))


def _ignore_files(dockerfile: str) -> tuple[str, str]:
    return f"{dockerfile}.dockerignore", ".dockerignore"


def ignore_rules(text: str, file: Path | None = None) -> Iterator[tuple[re.Pattern[str], bool]]:
    """The rules of a `.dockerignore`: pattern, and whether it begins with `!`.  Raises SpecError for one that is no pattern.

    Docker's manual, "Build context", section ".dockerignore files": Go's `filepath.Match` with `**`, anchored at the context.
    """
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.strip() if not line.startswith("#") else ""
        again = pattern.startswith("!")
        pattern = posixpath.normpath(pattern.removeprefix("!").strip() or ".").lstrip("/")
        if pattern not in ("", "."):
            try:
                yield re.compile(f"{_expression(pattern)}(?:/.*)?\\Z", re.DOTALL), again
            except re.error as error:
                raise SpecError([Problem(file or Path(".dockerignore"), number, "", f"{line!r} is no pattern: {error}")]) from error


_TOKENS = re.compile(r"\*\*/|\*\*|\*|\?|\\.|\[\^?(?:\\.|[^\]\\])+\]|.", re.DOTALL)
_SPECIAL = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _expression(pattern: str) -> str:
    """A pattern as a regular expression."""
    return "".join(_SPECIAL.get(token) or _literal(token) for token in _TOKENS.findall(pattern))


def _literal(token: str) -> str:
    if len(token) > 2 and token.startswith("["):
        return token
    return re.escape(token.removeprefix("\\") or "\\")
