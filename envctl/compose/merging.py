"""One Compose file over another: the Compose Specification, "Merge and override"."""

from __future__ import annotations

import re
from collections.abc import Callable

from envctl.compose.values import Cursor, Value
from envctl.errors import Problem, SpecError

Path = tuple[str, ...]
_PAIRS = {"environment", "labels", "annotations", "sysctls", "extra_hosts", "args", "options", "additional_contexts", "driver_opts"}
_LISTS = {"env_file", "tmpfs", "dns", "dns_search"}
_REPLACED = {"command", "entrypoint", "test"}
_SHORT_VOLUME = re.compile(r"(?:(?P<source>[A-Za-z]:[\\/][^:]*|[^:]*):)?(?P<target>[^:]+?)(?::(?P<mode>[a-zA-Z,]+))?\Z")


def canonical(services: Value) -> None:
    """Brings the fields of services that have a short and a long form into the long one, where merging needs it."""
    for service in Cursor(services, ("services",)).entries().values():
        for key, field in service.entries().items():
            _canonical(key, field.value)
            if key in ("build", "deploy"):
                for inner, below in field.entries().items() if field.kind == "mapping" else ():
                    _canonical(inner, below.value)


def _canonical(key: str, value: Value) -> None:
    data = value.data
    if key in _PAIRS and isinstance(data, list):
        value.data = dict(_pair(Cursor(item, (key,))) for item in data)
    elif key == "depends_on" and isinstance(data, list):
        value.data = {Cursor(item, (key,)).text(): item.like({"condition": item.like("service_started")}) for item in data}
    elif key == "networks" and isinstance(data, list):
        value.data = {Cursor(item, (key,)).text(): item.like(None) for item in data}
    elif key in _LISTS and isinstance(data, str | dict):
        value.data = [value.like(data)]
    elif key == "build" and isinstance(data, str):
        value.data = {"context": value.like(data)}
    elif key == "extends" and isinstance(data, str):
        value.data = {"service": value.like(data)}


def _pair(item: Cursor) -> tuple[str, Value]:
    text = item.text()
    mark = "=" if "=" in text or item.name != "extra_hosts" else ":"
    name, there, rest = text.partition(mark)
    return name, item.value.like(rest if there else None)


def merge(base: Value, over: Value, at: Path = ()) -> Value:
    """The values of `base` with those of `over` on top; both stay as they are."""
    if over.tag == "!override" or base.data is None or over.data is None:
        return (base if over.data is None and over.tag != "!override" else over).copy()
    if isinstance(base.data, dict) and isinstance(over.data, dict):
        both = dict(base.copy().data or {})  # type: ignore[arg-type]
        for key, value in over.data.items():
            if value.tag == "!reset":
                both.pop(key, None)
            else:
                both[key] = merge(base.data[key], value, (*at, key)) if key in base.data else value.copy()
        return over.like(both)
    if isinstance(base.data, list) and isinstance(over.data, list) and at[-1] not in _REPLACED:
        return over.like(_joined(base.data, over.data, at[-1]))
    if type(base.data) is not type(over.data) and at[-1] not in _REPLACED:
        raise SpecError([Problem(over.file, over.line, ".".join(at), f"it has another form in {base.file.name}:{base.line}", "write both alike")])
    return over.copy()


def _joined(base: list[Value], over: list[Value], field: str) -> list[Value]:
    """Both lists; of two entries for one target the later one stays."""
    key = _KEYS.get(field, _whole)
    found: dict[object, Value] = {}
    for value in (*base, *over):
        found[key(value)] = value.copy()
    return list(found.values())


def without_resets(value: Value) -> Value:
    """A file's own values without what it only takes away from others."""
    if isinstance(value.data, dict):
        value.data = {key: without_resets(below) for key, below in value.data.items() if below.tag != "!reset"}
    return value


def _whole(value: Value) -> object:
    return str(value.data) if isinstance(value.data, str) else id(value)


def _target(value: Value) -> object:
    if isinstance(value.data, str):
        match = _SHORT_VOLUME.match(value.data)
        return match["target"] if match else value.data
    target = value.data.get("target") if isinstance(value.data, dict) else None
    return target.data if target else id(value)


def _grant(value: Value) -> object:
    """The target of a secret or config."""
    if isinstance(value.data, dict):
        found = value.data.get("target") or value.data.get("source")
        return found.data if found else id(value)
    return value.data


_KEYS: dict[str, Callable[[Value], object]] = {"volumes": _target, "secrets": _grant, "configs": _grant}


def volume_parts(text: str) -> tuple[str, str, str] | None:
    """(source, target, mode) of a volume in its short form."""
    match = _SHORT_VOLUME.match(text)
    return (match["source"] or "", match["target"], match["mode"] or "") if match else None
