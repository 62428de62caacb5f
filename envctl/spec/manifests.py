"""A component's Kubernetes manifests: its workload, what belongs to it, and what no environment has."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from envctl.errors import SpecError
from envctl.model.environment import probe_from
from envctl.model.topology import AnyComponent, Declared, Job, LeftOut, Manifests, Remark, Resources, Service, Topology
from envctl.spec.belongings import OTEL, WORKLOADS, claims_of, stripped, template_of, why_left_out, without_telemetry
from envctl.spec.document import Document, did_you_mean
from envctl.spec.manifest_objects import Object, read_objects
from envctl.spec.namespaces import Names, of_namespaces, shadowed
from envctl.spec.pods import Reference, container_of, declared, main_container, references
from envctl.spec.structure import recorded

RECORD = "manifests.json"
"""What manifests declare, beside a topology that a run keeps: they themselves may hold secrets."""


def read_manifests(document: Document) -> dict[str, Manifests]:
    """Component → its manifests, for a topology of the right structure; notes every problem with them in the document."""
    components = {name: raw for name, raw in document.data["components"].items() if "manifests" in raw}
    seen: dict[str, tuple[Object, ...] | None] = {}
    kept = _recorded(document.file) if components and recorded(document.file) else None
    found = {}
    for name, raw in components.items():
        given = raw["manifests"]
        bare = Manifests(tuple(given["files"]), given.get("workload", ""), dict(given.get("images", {})))
        if kept is not None:
            found[name] = replace(bare, declared=kept.get(name, Declared()))
            continue
        files = [_objects(document, seen, file) for file in bare.files]
        everything = [each for objects in files for each in objects or ()]
        chosen = _chosen(document, name, raw["kind"], everything, bare.workload) if None not in files else None
        found[name] = _filled(document, name, bare, chosen, everything) if chosen else bare
    for each in {id(one.document): one.document for objects in seen.values() for one in objects or ()}.values():
        document.problems += dict.fromkeys(each.problems)  # an object that several components have is wrong once
    return found


def _objects(document: Document, seen: dict[str, tuple[Object, ...] | None], file: str) -> tuple[Object, ...] | None:
    """The objects of a file; None where it can't be read (that it is missing is said elsewhere)."""
    path = document.file.parent / file
    if file not in seen:
        try:
            read, seen[file] = read_objects(path, file) if path.is_file() else (None, None)
            if read and not seen[file]:  # its problems would be lost
                document.problems += read.problems
        except SpecError as error:
            document.problems += error.problems
            seen[file] = None
    return seen[file]


def _chosen(document: Document, name: str, kind: str, everything: Sequence[Object], workload: str) -> Object | None:
    """The workload of a component; notes a problem unless there is exactly one."""
    fits = [each for each in everything if each.kind in WORKLOADS[kind]]
    meant = [each for each in fits if each.name == workload] if workload else [each for each in fits if not each.hook]
    if len(meant) == 1:
        return meant[0]
    kinds = ", ".join(word for _, word in WORKLOADS[kind])
    at = ("components", name, "manifests", "workload" if workload else "files")
    if workload and meant:
        document.problem(at, f"{workload!r} is there {len(meant)} times: {', '.join(f'{each.label} ({each.place})' for each in meant)}")
    elif workload:
        document.problem(at, f"no {kinds} in the files is called {workload!r}", did_you_mean(workload, (each.name for each in fits)))
    elif meant:
        document.problem(at, f"the files have {len(meant)} workloads: {', '.join(each.label for each in meant)}", "name one by `workload`")
    else:
        labels = ", ".join(dict.fromkeys(each.label for each in everything)) or "nothing"
        document.problem(at, f"the files have none of {kinds}", f"found: {labels if len(labels) < 200 else labels[:200] + ' …'}")
    return None


def _filled(document: Document, name: str, bare: Manifests, chosen: Object, everything: Sequence[Object]) -> Manifests:
    """What the files hold for a component whose workload is the chosen one; notes every problem."""
    chosen.document.problems += chosen.problems
    if chosen.problems:
        return bare
    mine, left = _belongings(chosen, everything, document.data["components"].keys() - {name})
    objects, fields = _in_one_namespace(mine)
    template, around = template_of(chosen)
    container = main_container(template, chosen.name, name)
    claims, of_claims = claims_of(chosen)
    spaces, apart = of_namespaces(chosen, mine)
    left += [*fields, *around, *without_telemetry(chosen, template, container), *of_claims, *spaces]
    given = [str(variable) for variable in document.data["components"][name].get("env", {})]
    _check_references(chosen, {(each.kind[1], each.name) for each in mine}, references(template), {(container, variable) for variable in given})
    _check_images(document, name, bare.images, template)
    spec, services = chosen.data["spec"], [each for each in objects if each["kind"] == "Service"]
    ordinals = (chosen.name, spec.get("serviceName", "")) if chosen.kind[1] == "StatefulSet" else None
    return replace(
        bare, template=template, container=container, objects=tuple(objects), claims=tuple(claims), ordinals=ordinals,
        declared=declared(template, container, spec.get("replicas", 1), services), left_out=tuple(left),
        remarks=(*_runs_once(name, chosen), *apart, *_names(document, chosen, container, mine, everything, given)),
    )


def _runs_once(name: str, chosen: Object) -> Iterator[Remark]:
    """What a cluster would do about a job that fails; its default is from the API's reference, `JobSpec`."""
    retries = chosen.data["spec"].get("backoffLimit", 6) if chosen.kind[1] == "Job" else 0
    if retries != 0:
        policy = chosen.data["spec"]["template"]["spec"].get("restartPolicy", "Never")
        text = f"{name} runs once here, and ends `envctl up` when it fails; a cluster would try it up to {retries} more times (restartPolicy: {policy}, backoffLimit)"
        yield chosen.remark(text, "spec", "template", "spec", "restartPolicy")


def _names(
    document: Document, chosen: Object, container: str, mine: Sequence[Object], everything: Sequence[Object], given: Sequence[str],
) -> Iterator[Remark]:
    """Names of services that lead out of an environment, in what the component is made of."""
    names = Names(everything, document.data["components"].keys())
    ours = [each["name"] for each in container_of(chosen.data["spec"]["template"], container).get("env", ()) if each["name"].startswith(OTEL)]
    yield from names.in_pods(chosen, container, {*given, *ours})
    for each in mine:
        if not each.problems:
            yield from names.in_content(each)


def _belongings(chosen: Object, everything: Sequence[Object], others: Collection[str]) -> tuple[list[Object], list[LeftOut]]:
    """The objects that belong to a workload, and those that don't."""
    mine, left = [], []
    for each in everything:
        if each is chosen:
            continue
        if reason := shadowed(each, chosen, everything) or why_left_out(each, chosen, everything, others):
            left.append(each.left_out(reason))
        else:
            mine.append(each)
            each.document.problems += each.problems
    return mine, left


def _in_one_namespace(mine: Sequence[Object]) -> tuple[list[Mapping[str, Any]], list[LeftOut]]:
    """The objects as they are in an environment, each once; notes where two of one name differ."""
    found: dict[tuple[str, str], tuple[Object, Mapping[str, Any]]] = {}
    left: list[LeftOut] = []
    for each in mine:
        if each.problems:
            continue
        data, fields = stripped(each)
        left += fields
        first, content = found.setdefault((each.kind[1], each.name), (each, data))
        if content != data:
            each.problem((), f"{each.label} is there twice, first in {first.place}, with other content", "in the one namespace of an environment there is one")
    return [data for _, data in found.values()], left


def _check_references(chosen: Object, kept: set[tuple[str, str]], wanted: Iterable[Reference], overridden: set[tuple[str, str]]) -> None:
    for each in wanted:
        if each.needed and (each.kind, each.name) not in kept and each.variable not in overridden:
            hint = "add a file that has it, with values for tests"
            hint += f", or set {each.variable[1]} under `env`" if each.variable else ""
            chosen.problem(("spec", "template", *each.at), f"{chosen.label} needs {each.kind} {each.name!r}, which none of the files has", hint)


def _check_images(document: Document, name: str, images: Mapping[str, str], template: Mapping[str, Any]) -> None:
    known = [each["name"] for where in ("containers", "initContainers") for each in template["spec"].get(where, ())]
    for container in images:
        if container not in known:
            at = ("components", name, "manifests", "images", container)
            document.problem(at, f"no container is called {container!r}", did_you_mean(container, known))


def check_one_namespace(document: Document, topology: Topology) -> None:
    """Notes objects that two components have under one name with different content: an environment is one namespace."""
    owners: dict[tuple[str, str], tuple[str, Mapping[str, Any]]] = {}
    for name, component in topology.components.items():
        manifests = manifests_of(component)
        for each in manifests.objects if manifests else ():
            key = (str(each["kind"]), str(each["metadata"]["name"]))
            owner, content = owners.setdefault(key, (name, each))
            if content != each:
                message = f"{owner} has {' '.join(key)} too, with other content"
                document.problem(("components", name, "manifests", "files"), message, "an environment is one namespace: give one of them another name")


def told(topology: Topology, names: Iterable[str]) -> tuple[str, ...]:
    """What means something else in an environment, and what is left out, of the manifests of these components; each with where it stands and why."""
    found = [one for name in names if (one := manifests_of(topology.components[name]))]
    said = (*(each for one in found for each in one.remarks), *(each for one in found for each in one.left_out))
    return tuple(dict.fromkeys(map(str, said)))


def manifests_of(component: AnyComponent) -> Manifests | None:
    """The manifests that a component is made of, if it is."""
    return component.manifests if isinstance(component, Service | Job) else None


def save_declared(topology: Topology, directory: Path) -> None:
    """Keeps what manifests declare beside the copy of a topology, for those who read it there."""
    found = {name: asdict(one.declared) for name, each in topology.components.items() if (one := manifests_of(each))}
    if found:
        (directory / RECORD).write_text(json.dumps(found, indent=1), encoding="utf-8")


def _recorded(topology: Path) -> dict[str, Declared]:
    file = topology.with_name(RECORD)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return {
        name: Declared(**{**values, "resources": Resources(**values["resources"]), "ready": probe_from(values["ready"])})
        for name, values in kept.items()
    }
