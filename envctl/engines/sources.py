"""A program's files: where they come from, what they are (content ids), and their copies in the cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from envctl.engines.content import copy_tree, digest, file_digest, made_once, shown, tree_digest
from envctl.errors import Problem, ResourceError, SpecError
from envctl.model.topology import AnyComponent, Image, Job, Kafka, Postgres, Redis, Service, Source, Topology
from envctl.spec.contexts import context_of

Program = Service | Job


def source_digests(topology: Topology) -> dict[str, str]:
    """Component → content id of everything that decides what it is: sources, paths, migrations, configuration, build.

    Raises SpecError with every source that cannot be read.
    """
    problems: list[Problem] = []
    digests = {}
    for name, component in topology.components.items():
        try:
            digests[name] = digest(component, *_files(topology, component))
        except SpecError as error:
            problems.extend(error.problems)
    if problems:
        raise SpecError(problems)
    return digests


def _files(topology: Topology, component: AnyComponent) -> list[str]:
    """Content ids of the files a component is made of."""
    match component:
        case Service() | Job():
            inputs = component.build.inputs if component.build else ()
            stub = (component.stub,) if isinstance(component, Service) and component.stub else ()
            paths = (*component.paths, *inputs, *stub)
            source = [source_id(topology, component)] if component.source else []
            image = image_ids(topology, component.image) if component.image else []
            return [*source, *image, *(tree_digest(topology.directory / path) for path in paths)]
        case Postgres():
            return [tree_digest(path) for path in migration_directories(topology, component).values()]
        case Kafka() | Redis():
            return []


def migration_directories(topology: Topology, component: Postgres) -> dict[str, Path]:
    """Database → directory of its migrations, of those that have one.

    Raises SpecError where a directory is declared and no database has it.
    """
    if not component.migrations:
        return {}
    wanted = {name: topology.directory / component.migrations.replace("{database}", name) for name in component.databases}
    found = {name: path for name, path in wanted.items() if path.is_dir()}
    if not found:
        raise _problem(topology, component, "migrations", f"no such directory: {component.migrations}")
    return found


def image_ids(topology: Topology, image: Image) -> list[str]:
    """Content ids of what decides what a component's containers are made of: the context as Docker sees it, and `files`."""
    shown_files = [tree_digest(topology.directory / path) for _, path in sorted(image.files.items())]
    return [context_id(topology, image), *shown_files] if image.context else shown_files


def context_id(topology: Topology, image: Image) -> str:
    """The content id of all that an image is built from; what `.dockerignore` leaves out does not count."""
    context = context_of(topology.directory, image)
    names = [*map(str, context.files()), *((context.dockerfile,) if context.dockerfile.startswith("..") else ())]
    paths = [context.directory / name for name in names]
    entries = [(name, "directory" if path.is_dir() and not path.is_symlink() else tree_digest(path)) for name, path in zip(names, paths, strict=True)]
    return digest("context", entries, context.dockerfile, image.target, image.args)


def source_id(topology: Topology, component: Program) -> str:
    """The content id of a program's source.  Raises SpecError where it cannot be read."""
    source = _source(component)
    match source.kind:
        case "tree":
            return tree_digest(_existing(topology, component))
        case "git":
            return "git-" + _git_tree(topology, component)
        case "artifact":
            return source.sha256
    raise AssertionError(source.kind)


def source_copy(topology: Topology, component: Program, cache: Path) -> tuple[Path, str]:
    """A read-only copy of a program's source in the cache, and its content id; edits of the original change nothing.

    Raises SpecError where the source cannot be read or is not what was declared.
    """
    source = _source(component)
    if source.kind == "tree":
        return tree_copy(_existing(topology, component), cache)
    found = source_id(topology, component)

    def make(half: Path) -> None:
        fill = _export if source.kind == "git" else _unpack
        fill(topology, component, half)
        shown(half)

    return made_once(cache / "sources" / found, make), found


def tree_copy(path: Path, cache: Path) -> tuple[Path, str]:
    """A copy of a directory (or of a single file, in a directory) in the cache, and its content id.

    A tree that is edited while it is copied is copied again until the copy has the id it is kept under.
    """
    while True:
        found = tree_digest(path)
        half_right: list[bool] = []

        def make(half: Path, found: str = found, half_right: list[bool] = half_right) -> None:
            target = half if path.is_dir() else half / path.name
            copy_tree(path, target)
            _links_stay(path, half)
            half_right.append(tree_digest(target) == found)
            shown(half)

        kept = made_once(cache / "sources" / found, make)
        if all(half_right):
            return kept, found
        shutil.rmtree(kept)


def _links_stay(path: Path, copy: Path) -> None:
    """Raises ResourceError for a link that leads out of a source: a node would not find what it leads to."""
    for link in (file for file in copy.rglob("*") if file.is_symlink()):
        target = Path(os.path.normpath(link.parent / link.readlink()))
        if not target.is_relative_to(copy):
            raise ResourceError(
                f"{path / link.relative_to(copy)} is a link to {link.readlink()}, which is no part of the source {path}",
                hint="a node sees its source only; let the build step copy what else is needed into $OUT",
            )


def _source(component: Program) -> Source:
    assert component.source, f"{component.name} has no source"  # refused before (`spec.unpackaged`)
    return component.source


def _existing(topology: Topology, component: Program) -> Path:
    path = topology.directory / _source(component).path
    if not path.exists():
        raise _problem(topology, component, "source", f"no such file or directory: {_source(component).path}")
    return path


def _git_tree(topology: Topology, component: Program) -> str:
    """The id of the git tree at the source's path as of its ref."""
    ref, path = _source(component).ref, _source(component).path
    asked = f"{ref}^{{commit}}:./{path}"
    answer = _git(topology.directory, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if answer.returncode:
        raise _problem(topology, component, "source.ref", f"git knows no commit {ref!r} here", "fetch it: git fetch --tags")
    commit = answer.stdout.decode().strip()
    answer = _git(topology.directory, "rev-parse", "--verify", "--quiet", f"{commit}:./{path}")
    if answer.returncode:
        raise _problem(topology, component, "source.path", f"{asked} does not exist in git")
    return answer.stdout.decode().strip()


def _export(topology: Topology, component: Program, target: Path) -> None:
    tree = _git_tree(topology, component)
    archive = target.with_name(f"{target.name}.tar")
    try:
        top = Path(_git(topology.directory, "rev-parse", "--show-toplevel").stdout.decode().rstrip("\n"))
        answer = _git(top, "archive", "--format=tar", f"--output={archive}", tree)
        if answer.returncode:
            message = answer.stderr.decode(errors="replace").strip() or "git archive failed"
            raise _problem(topology, component, "source", message)
        with tarfile.open(archive) as members:
            members.extractall(target, filter="data")
    finally:
        archive.unlink(missing_ok=True)


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(("git", "-C", str(directory), *arguments), capture_output=True, check=False)


def _unpack(topology: Topology, component: Program, target: Path) -> None:
    path, source = _existing(topology, component), _source(component)
    found = file_digest(path)
    if found != source.sha256:
        raise _problem(topology, component, "source.sha256", f"{source.path} has the SHA-256 {found}, not the declared one")
    try:
        if tarfile.is_tarfile(path):
            with tarfile.open(path) as members:
                members.extractall(target, filter="data")
        elif zipfile.is_zipfile(path):
            _unzip(path, target)
        else:
            shutil.copy2(path, target / path.name)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise _problem(topology, component, "source", f"{source.path} cannot be unpacked: {error}") from error


def _unzip(path: Path, target: Path) -> None:
    """Unpacks a zip file with the executable bits that `extract` forgets."""
    with zipfile.ZipFile(path) as members:
        for member in members.infolist():
            file = Path(members.extract(member, target))
            mode = member.external_attr >> 16 & 0o777
            if mode and not member.is_dir():
                file.chmod(mode | 0o400)


def _problem(topology: Topology, component: AnyComponent, field: str, message: str, hint: str = "") -> SpecError:
    return SpecError([Problem(topology.file, component.line, f"components.{component.name}.{field}", message, hint)])
