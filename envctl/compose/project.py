"""The one model that several Compose files make together: interpolation, `extends`, `include`, overrides, profiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from envctl.compose.interpolation import interpolate, variables_of
from envctl.compose.merging import canonical, merge, without_resets
from envctl.compose.reading import read
from envctl.compose.values import Cursor, Value
from envctl.errors import Problem, SpecError, UsageError

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_OVERRIDES = tuple(f"{name.rpartition('.')[0]}.override.{ending}" for name in NAMES[::2] for ending in ("yaml", "yml"))
_RESOURCES = ("services", "volumes", "networks", "configs", "secrets")
_Unset = Callable[[Value, str], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """In which a set of files is read."""

    directory: Path  # relative paths count from here
    variables: Mapping[str, str]
    unset: _Unset
    above: tuple[Path, ...] = ()  # the files that include this one


@dataclass(frozen=True, slots=True)
class Project:
    """The merged model."""

    file: Path  # the first file
    directory: Path
    model: Value
    variables: Mapping[str, str]


def compose_files(path: Path) -> list[Path]:
    """A Compose file; of a directory the one in it, and its override.  Raises UsageError where there is none."""
    if not path.is_dir():
        return [path]
    found = next((path / name for name in NAMES if (path / name).is_file()), None)
    if found is None:
        raise UsageError(f"there is no Compose file in {path}", hint=f"looked for {', '.join(NAMES)}")
    return [found, *[path / name for name in _OVERRIDES if (path / name).is_file()][:1]]


def load(files: Sequence[Path], directory: Path | None, environment: Mapping[str, str], unset: _Unset) -> Project:
    """The model of these files, each over those before it.  Raises SpecError with the file and line of what is wrong.

    `directory` is the project directory, without it that of the first file; variables are those of `environment`, and below
    them those of the project directory's `.env`.  `unset` hears of variables that nobody set.
    """
    directory = directory or files[0].parent
    variables = {**_dot_env(directory, environment), **environment}
    model = _model(files, Setting(directory, variables, unset))
    if not Cursor(model).mapped("services"):
        raise SpecError([Problem(files[0], 1, "services", "it has no services", "this is no Compose file, or one of version 1 of its format")])
    return Project(files[0], directory, model, variables)


def _dot_env(directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    file = directory / ".env"
    return variables_of(file, environment) if file.is_file() else {}


def _model(files: Sequence[Path], setting: Setting) -> Value:
    merged: Value | None = None
    for file in files:
        one = _file(file, setting)
        merged = merge(merged, one) if merged else one
    assert merged
    return without_resets(merged)


def _file(file: Path, setting: Setting) -> Value:
    """One file with all that it extends and includes."""
    if file.resolve() in setting.above:
        raise SpecError([Problem(file, 0, "include", "it includes itself")])
    setting = replace(setting, above=(*setting.above, file.resolve()))
    model = _plain(file, setting)
    top = Cursor(model).entries()
    if "services" in top:
        services = top["services"].entries()
        extended = {name: _extended(services, name, setting, ()) for name in services}
        top["services"].value.data = dict(extended)
    for include in top["include"].items() if "include" in top else ():
        _include(model, include, setting)
    assert isinstance(model.data, dict)
    model.data.pop("include", None)
    return model


def _plain(file: Path, setting: Setting) -> Value:
    """A file's own values, interpolated, in their long forms."""
    model = read(file, setting.directory)
    interpolate(model, setting.variables, setting.unset)
    services = Cursor(model).entries().get("services")
    if services:
        canonical(services.value)
    return model


def _extended(services: Mapping[str, Cursor], name: str, setting: Setting, path: tuple[tuple[Path, str], ...]) -> Value:
    """A service on top of the one that it extends."""
    service = services[name]
    here = (service.value.file, name)
    extends = service.entries().get("extends")
    if extends is None:
        return service.value
    if here in path:
        raise extends.error(f"services extend each other in a circle: {' → '.join(each for _, each in (*path, here))}")
    base, others = extends.get("service") or name, services
    file = extends.find("file")
    if file:
        other = file.value.base / file.text()
        others = Cursor(_plain(other, replace(setting, directory=other.parent))).entries()["services"].entries()
    if base not in others:
        raise extends.error(f"no service is called {base!r} there", f"known: {', '.join(others)}")
    below = _extended(others, base, setting, (*path, here))
    own = {key: value for key, value in _fields(service.value).items() if key != "extends"}
    return replace(merge(below, service.value.like(own), ("services", name)), file=service.value.file, line=service.value.line)


def _fields(value: Value) -> dict[str, Value]:
    assert isinstance(value.data, dict)
    return value.data


def _include(model: Value, include: Cursor, setting: Setting) -> None:
    """Adds the resources of what is included, a project of its own."""
    if include.kind == "mapping":
        paths = [include.value.base / each.text() for each in include.entries()["path"].items()] if include.find("path") else []
        chosen, variables_from = include.get("project_directory"), include.find("env_file")
    else:
        paths, chosen, variables_from = [include.value.base / include.text()], "", None
    if not paths:
        raise include.error("it names no file", "write `- path: FILE`")
    directory = include.value.base / chosen if chosen else paths[0].parent
    below = _dot_env(directory, setting.variables)
    if variables_from:
        below = {}
        for file in variables_from.items():
            below |= variables_of(file.value.base / file.text(), {**below, **setting.variables})
    found = Cursor(_model(paths, replace(setting, directory=directory, variables={**below, **setting.variables})))
    for kind, resources in found.entries().items():
        if kind in _RESOURCES:
            _add(model, kind, resources, include)


def _add(model: Value, kind: str, resources: Cursor, include: Cursor) -> None:
    there = _fields(model).setdefault(kind, include.value.like({}))
    if there.data is None:
        there.data = {}
    for name, resource in resources.entries().items():
        if name in _fields(there) and _shown(_fields(there)[name]) != _shown(resource.value):
            raise include.error(f"{kind}.{name} is in {resource.value.file} and in {_fields(there)[name].file}", "give one of them another name")
        _fields(there).setdefault(name, resource.value)


def _shown(value: Value) -> object:
    """The plain data, to compare."""
    if isinstance(value.data, dict):
        return {key: _shown(below) for key, below in value.data.items()}
    return [_shown(below) for below in value.data] if isinstance(value.data, list) else value.data
