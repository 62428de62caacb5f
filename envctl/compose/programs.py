"""Services of the user's own images → components of kind `service` and `job`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envctl.compose.engines import Draft, words_of
from envctl.compose.interpolation import variables_of
from envctl.compose.ports import Port, ports_of
from envctl.compose.probes import probe_of
from envctl.compose.report import Report
from envctl.compose.storage import Places, Recipe, mounts_of, relative, storage_of
from envctl.compose.values import Cursor

_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,400}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_JOB = "a job answers nobody, and is done when it exits 0"
_RUNS_ON = ("always", "unless-stopped")  # what envctl does with a node that has ended


def environment_of(service: Cursor, variables: Mapping[str, str], report: Report) -> dict[str, str]:
    """The environment: that of `env_file`, and above it `environment`.  What is in `environment` stays unread."""
    found: dict[str, str] = {}
    for entry in service.listed("env_file"):
        name = entry.get("path") if entry.kind == "mapping" else entry.text()
        required = entry.find("required") if entry.kind == "mapping" else None
        file = entry.value.base / name
        if file.exists() or required is None or required.true():
            found |= variables_of(file, {**found, **variables}, raw=entry.kind == "mapping" and entry.get("format") == "raw")
        else:
            report.note(entry, f"there is no {name}")
    for key, value in service.mapped("environment").items():
        if isinstance(value.value.data, str):
            found[key] = value.value.data
        elif value.kind == "null" and key in variables:
            found[key] = variables[key]
        elif value.kind == "null":
            found.pop(key, None)
            report.tell(value, "the variable is not set, and so the service does not get it")
        else:
            raise value.error("found a list or mapping, allowed: a text")
    return found


def program(draft: Draft, environment: dict[str, str], stack: Path, places: Places, report: Report) -> None:
    """Fills in a service or job.  Raises SpecError."""
    service = draft.service
    for variable in service.mapped("environment").values():
        variable.mark()
    if draft.kind == "job":
        report.reasons |= {(*service.at, key): _JOB for key in ("ports", "expose", "healthcheck", "deploy", "scale", "stop_grace_period")}
    image = _image(service, stack, draft, places.variables, report)
    storage = storage_of(service, mounts_of(service), _recipe(image, stack, draft), places, report)
    for inside, content in storage.made.items():
        path = Path("files") / draft.name / inside.strip("/")
        draft.made[path] = content
        storage.files[inside] = stack / path
    for key, value in (("command", words_of(service, "command")), ("entrypoint", words_of(service, "entrypoint"))):
        found = service.entries().get(key)
        if value:
            image[key] = value
        elif found and found.kind != "null":
            report.tell(found, f"an empty {key} can't be asked for: the image's own is taken")
    image |= {key: text for key in ("user", "working_dir") if (text := service.get(key))}
    if not image.get("working_dir", "/").startswith("/"):
        raise service.error(f"found the working_dir {image['working_dir']!r}, allowed: an absolute path inside the container")
    if storage.volumes:
        image["volumes"] = storage.volumes
    if storage.files:
        image["files"] = {inside: relative(path, stack) for inside, path in storage.files.items()}
    draft.fields["image"] = image["reference"] if set(image) == {"reference"} else image
    resources(draft)
    if draft.kind == "service":
        _running(draft, report)
    _restarts(draft, report)
    if environment:
        draft.fields["env"] = environment


def _reference(image: Cursor) -> str:
    if not _REFERENCE.fullmatch(image.text()):
        raise image.error(f"found {image.text()!r}, allowed: an image's reference, such as nginx:1.27")
    return image.text()


def _arguments(arguments: Cursor, variables: Mapping[str, str], report: Report) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in arguments.entries().items():
        if value.kind != "null":
            found[name] = value.text()
        elif name in variables:
            found[name] = variables[name]
            value.mark()
        else:
            report.tell(value, "the variable is not set, and so the build does not get it")
    return found


def _image(service: Cursor, stack: Path, draft: Draft, variables: Mapping[str, str], report: Report) -> dict[str, Any]:
    build, image = service.find("build"), service.find("image")
    if build is None:
        if image is None:
            raise service.error("it has neither `image` nor `build`")
        return {"reference": _reference(image)}
    context, inline = build.find("context"), build.find("dockerfile_inline")
    if context and re.match(r"(?:https?|git|ssh)://|git@|github\.com/", context.text()):
        if image is None:
            raise context.error(f"{context.text()} is no directory", "check it out beside the Compose file, and name the directory")
        report.note(context, f"it is no directory: the image {image.text()} is taken as it is")
        return {"reference": _reference(image)}
    if image:
        report.tell(image, "it names what is built; envctl names the images that it builds itself")
    where, name = context or build, context.text() if context else "."
    directory = where.value.base / name
    if not directory.is_dir():
        raise where.error(f"there is no directory {name}")
    found: dict[str, Any] = {"context": relative(directory, stack)}
    if inline:
        path = Path("files") / f"{draft.name}.Dockerfile"
        draft.made[path] = inline.text()
        found["dockerfile"] = relative(stack / path, directory)
    elif dockerfile := build.get("dockerfile"):
        found["dockerfile"] = dockerfile
    if target := build.get("target"):
        found["target"] = target
    if arguments := build.find("args"):
        found["args"] = _arguments(arguments, variables, report)
    return found


def _recipe(image: Mapping[str, Any], stack: Path, draft: Draft) -> Recipe | None:
    if "context" not in image:
        return None
    context = (stack / image["context"]).resolve()
    file = Path(os.path.normpath(context / image.get("dockerfile", "Dockerfile")))
    made = draft.made.get(Path(os.path.relpath(file, stack.resolve())))
    return Recipe(context, made or (file.read_text(errors="replace") if file.is_file() else ""), image.get("target", ""))


def resources(draft: Draft) -> None:
    """Limits of CPU and memory.  Raises SpecError."""
    service, found = draft.service, dict[str, Any]()
    cpus = service.find("deploy", "resources", "limits", "cpus") or service.find("cpus")
    memory = service.find("deploy", "resources", "limits", "memory") or service.find("mem_limit")
    if cpus:
        if not re.fullmatch(r"\d+(?:\.\d+)?|\.\d+", cpus.text()):
            raise cpus.error(f"found {cpus.text()!r}, allowed: a number of cores")
        found["cpus"] = float(cpus.text())
    if memory:
        match = _SIZE.match(memory.text())
        if match is None:
            raise memory.error(f"found {memory.text()!r}, allowed: a size such as 512m")
        found["memory"] = size(int(float(match[1]) * _UNITS[match[2].lower()]))
    limits = {name: value for name, value in found.items() if value not in (0, "0")}  # 0 is no limit
    if limits:
        draft.fields["resources"] = limits


def size(count: int) -> str:
    """Bytes as a topology writes them."""
    unit = next((unit for unit, factor in (("Gi", 1024**3), ("Mi", 1024**2), ("Ki", 1024)) if count >= factor and count % factor == 0), "")
    return f"{count // {'Gi': 1024**3, 'Mi': 1024**2, 'Ki': 1024, '': 1}[unit]}{unit}"


def _running(draft: Draft, report: Report) -> None:
    """What only what keeps running has: replicas, ports, a probe, a grace."""
    service = draft.service
    replicas = service.find("deploy", "replicas") or service.find("scale")
    if replicas and (count := replicas.number()) != 1:
        if count < 1:
            report.note(replicas, "a component has at least one node; leave it out of a plan by its subset")
        else:
            draft.fields["replicas"] = count
    check = service.find("healthcheck")
    own = {"localhost", "127.0.0.1", "0.0.0.0", "[::1]", service.name, draft.name}
    probe = dict(found) if check and (found := probe_of(check, own)) else {}
    ports = ports_of(service, probe, report)
    if ports:
        draft.fields["ports"] = {port.name: port.number for port in ports}
    if probe:
        draft.fields["ready"] = _named(probe, ports)
    if grace := service.find("stop_grace_period"):
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(grace.text()))
        if not _DURATION.sub("", grace.text()) == "":
            raise grace.error(f"found {grace.text()!r}, allowed: a duration such as 1m30s")
        draft.fields["stop_grace"] = f"{round(seconds, 3):g}s"


def _named(probe: dict[str, Any], ports: list[Port]) -> dict[str, Any]:
    """The probe with its port's name, which is left out where it is clear."""
    names = {port.number: port.name for port in ports}
    kind = next(iter(probe))
    if kind == "tcp":
        return {"tcp": names[probe["tcp"]]}
    if "port" not in probe or len(ports) == 1 or names[probe["port"]] == kind:
        return {kind: probe[kind]}
    return {kind: probe[kind], "port": names[probe["port"]]}


def _restarts(draft: Draft, report: Report) -> None:
    restart = draft.service.find("restart")
    if restart and restart.text() not in (_RUNS_ON if draft.kind == "service" else ("no",)):
        said = "envctl starts a node again whenever it ends" if draft.kind == "service" else "a job is run until it ends, once"
        report.note(restart, said)
    signal = draft.service.find("stop_signal")
    if signal and signal.value.data in ("SIGTERM", "TERM", "15"):
        signal.mark()
