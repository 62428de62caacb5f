"""What in manifests is of other namespaces: an environment is one of its own, in which their names lead nowhere."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from envctl.model.topology import LeftOut, Remark
from envctl.spec.document import Location, dotted
from envctl.spec.manifest_objects import Object

_ONE = "an environment is a namespace of its own"
_QUALIFIED = re.compile(r"(?<![\w.-])((?:[a-z0-9_](?:[a-z0-9-]*[a-z0-9])?\.){2,})svc(?:\.[a-z0-9-]+)*(?![\w-])")
"""`[POD.]SERVICE.NAMESPACE.svc[.CLUSTER]`, as the DNS of a cluster has it (Kubernetes, "DNS for Services and Pods")."""


def of_namespaces(chosen: Object, mine: Sequence[Object]) -> tuple[list[LeftOut], list[Remark]]:
    """The namespaces that are left out, each where it first stands; and what of a workload's own its pods would not find in a cluster."""
    first = {each.namespace: each for each in reversed((chosen, *mine)) if each.namespace}
    apart = [
        each.remark(f"it is of the namespace {space}, where {chosen.label} of {chosen.namespace} does not see it; in an environment both are in one", *at)
        for each in mine if chosen.namespace for at, space in _spaces(each) if space not in ("", chosen.namespace)
    ]
    return [each.left_out(_ONE, "metadata.namespace") for each in first.values()], apart


def _spaces(each: Object) -> Iterator[tuple[Location, str]]:
    yield ("metadata", "namespace"), each.namespace
    for index, subject in enumerate(each.data.get("subjects", ()) if each.kind[1] == "RoleBinding" and not each.problems else ()):
        yield ("subjects", index, "namespace"), str(subject.get("namespace", ""))


def shadowed(each: Object, chosen: Object, everything: Sequence[Object]) -> str:
    """Why an object is not the workload's: it is of another namespace, and there is one of its name in the workload's own; empty: it may be."""
    apart = each.namespace and chosen.namespace and each.namespace != chosen.namespace
    if apart and any((one.kind, one.name, one.namespace) == (each.kind, each.name, chosen.namespace) for one in everything):
        return f"it is of the namespace {each.namespace}, and {chosen.label} has the one of {chosen.namespace}"
    return ""


class Names:
    """Finds names of services that lead out of an environment."""

    def __init__(self, everything: Sequence[Object], components: Collection[str]) -> None:
        self._known = {*components, *(each.name for each in everything if each.kind == ("", "Service"))}
        spaces = {each.namespace for each in everything} | {each.name for each in everything if each.kind == ("", "Namespace")}
        services, namespaces = ("|".join(map(re.escape, sorted(words - {""}))) for words in (self._known, spaces))
        self._short = re.compile(rf"(?<![\w.-])({services})\.({namespaces})(?![\w-]|\.\w)") if services and namespaces else None

    def in_pods(self, chosen: Object, main: str, aside: Collection[str]) -> Iterator[Remark]:
        """One for each value in a workload's template; not of the variables `aside` of the container `main`, others of which the topology can set."""
        for at, text in _texts(chosen.data["spec"]["template"], ("spec", "template")):
            container, variable = _variable(chosen.data, at)
            if not (container == main and variable in aside):
                yield from self._remarks(chosen, at, text, variable, f"set {variable} under `env`" if variable and container == main else "")

    def in_content(self, each: Object) -> Iterator[Remark]:
        """One for each value of an object beside it."""
        for at, text in _texts({field: value for field, value in each.data.items() if field != "metadata"}):
            yield from self._remarks(each, at, _decoded(text) if (each.kind[1], at[0]) == ("Secret", "data") else text)

    def _remarks(self, each: Object, at: Location, text: str, variable: str = "", instead: str = "") -> Iterator[Remark]:
        if found := self._found(text):
            leads, does = ("leads", "does") if len(found) == 1 else ("lead", "do")
            inside = dict.fromkeys(found.values())
            unknown = [name for name in inside if name.rpartition(".")[2] not in self._known]
            missing = f" (no component is called {', '.join(unknown)})" if unknown else ""
            instead = instead or "write that, or name a file with values for tests"
            said = f"{', '.join(found)} in {variable or dotted(at)} {leads} out of the environment, which is a namespace of its own"
            yield each.remark(f"{said}; {', '.join(inside)}{missing} {does} not: {instead}", *at)

    def _found(self, text: str) -> dict[str, str]:
        """Each name, and by which one the same is found in an environment."""
        found = {match[0]: match[1].rstrip(".").rpartition(".")[0] for match in _QUALIFIED.finditer(text)}
        return found | ({match[0]: match[1] for match in self._short.finditer(text)} if self._short else {})


def _texts(value: Any, at: Location = ()) -> Iterator[tuple[Location, str]]:
    if isinstance(value, str):
        yield at, value
    for key, each in value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ():
        yield from _texts(each, (*at, key))


def _variable(workload: Mapping[str, Any], at: Location) -> tuple[str, str]:
    """Container and name of the variable whose value stands there; empty where it is something else."""
    match at:
        case ("spec", "template", "spec", ("containers" | "initContainers") as where, int(index), "env", int(number), "value"):
            container = workload["spec"]["template"]["spec"][where][index]
            return str(container["name"]), str(container["env"][number]["name"])
    return "", ""


def _decoded(text: str) -> str:
    """A value of a Secret; empty where it is no text."""
    try:
        return base64.b64decode(text).decode()
    except (binascii.Error, ValueError):
        return ""
