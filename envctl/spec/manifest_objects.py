"""The objects in files of Kubernetes manifests, as people, `helm template` and `kustomize build` write them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envctl.errors import Problem
from envctl.model.topology import LeftOut, Remark
from envctl.spec.document import Document, Location, read_many
from envctl.spec.structure import check, schema

HOOK = "helm.sh/hook"
_HEAD = ("apiVersion", "kind")


@dataclass(frozen=True, slots=True)
class Object:
    """One object, where it stands, and under which name its file is known.  `data` has no nulls: to Kubernetes they are nothing."""

    document: Document
    file: str
    at: Location
    data: Mapping[str, Any]
    problems: tuple[Problem, ...]  # with the structure of what envctl reads of it

    @property
    def kind(self) -> tuple[str, str]:
        """API group (empty: the core) and kind."""
        group, slash, _ = str(self.data["apiVersion"]).partition("/")
        return group if slash else "", str(self.data["kind"])

    @property
    def name(self) -> str:
        """Its name; empty where there is none that is a text."""
        name = _mapping(self.data.get("metadata")).get("name")
        return name if isinstance(name, str) else ""

    @property
    def namespace(self) -> str:
        """The namespace that it says it is in; empty where it leaves that to who applies it."""
        space = _mapping(self.data.get("metadata")).get("namespace")
        return space if isinstance(space, str) else ""

    @property
    def label(self) -> str:
        """`Deployment payments`."""
        return f"{self.kind[1]} {self.name}".rstrip()

    @property
    def hook(self) -> str:
        """When Helm applies it, if it is a hook or a test of a chart."""
        return str(_mapping(_mapping(self.data.get("metadata")).get("annotations")).get(HOOK, ""))

    @property
    def place(self) -> str:
        """File and line."""
        return f"{self.file}:{self.document.line(*self.at)}"

    def problem(self, at: Location, message: str, hint: str = "") -> None:
        """Notes a problem with what stands at `at` in it."""
        self.document.problem((*self.at, *at), message, hint)

    def remark(self, text: str, *at: str | int) -> Remark:
        """What a person should know about what stands at `at` in it."""
        return Remark(self.file, self.document.line(*self.at, *at), f"{self.label}: {text}")

    def left_out(self, reason: str, *fields: str) -> LeftOut:
        """What is left out of it (without fields: all of it), and why."""
        return LeftOut(self.file, self.document.line(*self.at), self.label, fields, reason)


def read_objects(path: Path, file: str) -> tuple[Document, tuple[Object, ...]]:
    """All objects of a file, those in lists too.  Raises SpecError when it is no YAML; notes what is no object."""
    document = read_many(path)
    return document, tuple(found for index, data in enumerate(document.data) for found in _objects(document, file, (index,), data))


def _objects(document: Document, file: str, at: Location, data: Any) -> Iterator[Object]:
    if data is None:  # an empty document, or one of comments only
        return
    missing = [word for word in _HEAD if not isinstance(data.get(word), str) or not data[word]] if isinstance(data, dict) else []
    if not isinstance(data, dict):
        document.problem(at, "this is no object of Kubernetes", "an object is a mapping with `apiVersion`, `kind` and `metadata`")
    elif missing:
        document.problem(at, f"this object has no {' and no '.join(f'`{word}`' for word in missing)}")
    elif data["kind"].endswith("List") and isinstance(data.get("items"), list):
        head = {} if data["kind"] == "List" else {"apiVersion": data["apiVersion"], "kind": data["kind"].removesuffix("List")}
        for index, item in enumerate(data["items"]):
            yield from _objects(document, file, (*at, "items", index), {**head, **item} if isinstance(item, dict) else item)
    else:
        bare, aside = _without_nulls(data), Document(document.file, lines=document.lines)
        check(aside, bare, schema("manifest"), at)
        yield Object(document, file, at, bare, tuple(aside.problems))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(each) for key, each in value.items() if each is not None}
    return [_without_nulls(each) for each in value] if isinstance(value, list) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
