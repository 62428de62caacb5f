"""Checks a document against its published JSON Schema and says in plain words what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from envctl.spec.document import Document, Location, did_you_mean, nearest, read

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

FORMATS = ("topology", "scenario", "seed", "project", "examples")
_WORDS = {
    "object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number", "number": "a number",
    "boolean": "true or false", "null": "nothing",
}


@cache
def schema(name: str) -> Mapping[str, Any]:
    """The published JSON Schema (draft 2020-12) of a format, by its name without version."""
    text = (resources.files("envctl.spec") / "schemas" / f"{name}.v1.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def open_document(file: Path, format: str, units: tuple[str, ...] = (), *, text: str | None = None) -> Document:
    """Reads a file of a format and checks its structure.

    Problems are noted in the document.  What they make unusable is taken out of `data`, so that the rest can still be checked:
    one entry where the top-level field is listed in `units`, else the whole field; list entries become None.  Raises SpecError
    when too little is left.
    """
    document = read(file, text)
    _check_version(document, format)
    broken = check(document, document.data, schema(format), ())
    for at in sorted(broken, key=len):
        _take_out(document, at, units)
    if any(field not in document.data for field in schema(format)["required"]):
        document.raise_problems()
    return document


def recorded(file: Path) -> bool:
    """Whether a file is the copy that a run keeps in its `inputs/`: what it refers to (sources, seeds) may be elsewhere or gone."""
    return file.parent.name == "inputs" and (file.parent.parent / "run.json").exists()


def _check_version(document: Document, format: str) -> None:
    wanted = f"{format}/v1"
    if not isinstance(document.data, dict):
        found = "nothing" if document.data is None else _word(document.data)
        document.problem((), f"the file holds {found}, not a mapping", f"start it with `envctl: {wanted}`")
    elif "envctl" not in document.data:
        document.problem((), "the format's name and version are missing", f"start the file with `envctl: {wanted}`")
    elif document.data["envctl"] != wanted:
        found = document.data["envctl"]
        document.problem(("envctl",), f"found {found!r}, allowed: {wanted}", _version_hint(found, format))
    document.raise_problems()


def _version_hint(found: Any, format: str) -> str:
    kind, _, version = str(found).partition("/")
    if kind in FORMATS and kind != format:
        return f"this is a {kind} file, a {format} file is needed here"
    return f"this envctl reads {format}/v1 only; a newer envctl may read {version}" if kind == format else ""


def _take_out(document: Document, at: Location, units: tuple[str, ...]) -> None:
    if not at or at[0] not in document.data:
        return
    container = document.data[at[0]]
    if len(at) == 1 or at[0] not in units:
        del document.data[at[0]]
    elif isinstance(container, list):
        container[int(at[1])] = None
    else:
        container.pop(at[1], None)


def check(document: Document, value: Any, rules: Mapping[str, Any], at: Location) -> list[Location]:
    """Notes every violation of a JSON Schema by the value that stands at `at`; returns where they are."""
    from jsonschema import Draft202012Validator

    broken: list[Location] = []
    for error in Draft202012Validator(dict(rules)).iter_errors(value):
        for where, message, hint in _explain(error):
            document.problem((*at, *where), message, hint)
            broken.append((*at, *where))
    return broken


def _explain(error: ValidationError) -> Iterator[tuple[Location, str, str]]:
    at: Location = tuple(error.absolute_path)
    rule, found, rules = error.validator, cast("Any", error.instance), cast("Mapping[str, Any]", error.schema)
    if "propertyNames" in error.absolute_schema_path:
        yield (*at, found), f"{found!r} is not a possible name", f"allowed: {rules.get('description', rules)}"
    elif rule in ("additionalProperties", "unevaluatedProperties"):
        known = rules.get("properties", {})
        for extra in (name for name in found if name not in known):
            yield (*at, extra), "unknown field", did_you_mean(extra, known)
    elif rule == "required" or (rule == "dependentRequired" and "properties" in rules):
        asked = rules["required"] if rule == "required" else [name for names in rules["dependentRequired"].values() for name in names]
        missing = next(name for name in asked if name not in found and f"{name!r} is" in error.message)
        if not _misspelt(missing, found, rules):
            yield at, f"{missing!r} is missing", rules.get("properties", {}).get(missing, {}).get("description", "")
    elif rule == "anyOf" and "x-missing" in rules:
        if not any(_misspelt(name, found, rules) for one in rules["anyOf"] for name in one["required"]):
            yield at, rules["x-missing"], ""
    elif rule in ("anyOf", "oneOf", "not", "dependentRequired"):
        yield at, rules.get("description") or error.message, ""
    else:
        yield at, f"found {_show(found)}, allowed: {_allowed(rule, error.validator_value, rules)}", _value_hint(rule, found, rules)


def _misspelt(missing: str, found: Mapping[str, Any], rules: Mapping[str, Any]) -> bool:
    """Whether an unknown field, which is reported anyway, is likely the missing one."""
    known = rules.get("properties", {})
    extras = [name for name in found if name not in known]
    return rules.get("additionalProperties") is False and missing in {nearest(extra, known) for extra in extras}


def _allowed(rule: Any, wanted: Any, rules: Mapping[str, Any]) -> str:
    texts = {
        "minimum": f"{wanted} or more", "maximum": f"{wanted} or less", "exclusiveMinimum": f"more than {wanted}",
        "uniqueItems": "each entry once", "minItems": f"at least {wanted} entries", "minLength": "a text that isn't empty",
        "minProperties": f"at least {wanted} field", "maxProperties": f"at most {wanted} field", "const": repr(wanted),
    }
    if rule in texts:
        return texts[rule]
    if rule == "enum":
        return ", ".join(map(str, wanted))
    if rule == "type":
        kinds = [wanted] if isinstance(wanted, str) else wanted
        plain = " or ".join(_WORDS[kind] for kind in kinds)
        return str(rules.get("description", plain)) if kinds == ["string"] else plain
    return str(rules.get("description", f"{rule} {wanted}"))


def _value_hint(rule: Any, found: Any, rules: Mapping[str, Any]) -> str:
    if rule == "enum":
        return did_you_mean(str(found), map(str, rules["enum"]))
    if rule == "type" and isinstance(found, float | int) and not isinstance(found, bool) and "string" in rules["type"]:
        return str(rules.get("x-hint", "write it in quotes"))
    return str(rules.get("x-hint", ""))


def _show(found: Any) -> str:
    if isinstance(found, dict | list):
        return _word(found)
    text = "nothing" if found is None else repr(found)
    return text if len(text) <= 60 else text[:57] + "…"


def _word(found: Any) -> str:
    return "a mapping" if isinstance(found, dict) else "a list" if isinstance(found, list) else repr(found)
