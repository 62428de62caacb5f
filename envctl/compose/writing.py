"""A topology as people write it: short lists and mappings in one line, quotes only where they are needed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

_ORDER = (
    "kind", "version", "image", "brokers", "topics", "databases", "migrations", "settings", "replicas", "resources", "needs", "calls", "ports", "ready",
    "stop_grace", "env",
)
_WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z_/.(](?:[\w./@%+=~$;()*?<>|^-]|:(?=[\w/.])| (?=[\w./(<>=$-]))*|\d+(?:\.\d+)?(?:Ki|Mi|Gi|s)", re.ASCII)
_OTHER = re.compile(r"[-+.\d_]+(?:[eE][-+]?\d*)?|\.nan|\.inf|null|true|false|yes|no|on|off|y|n|=|<<", re.IGNORECASE)  # would be no text, here or elsewhere
_BLOCKS = ("env", "settings")  # one entry a line, however short


def topology_text(name: str, components: Sequence[Mapping[str, Any]], files: Sequence[str]) -> str:
    """The text of a topology.yaml.  `files`: what it was made from."""
    lines = [f"# Made from {', '.join(files)}.", "envctl: topology/v1", f"name: {name}", "components:"]
    for component in components:
        lines.append(f"  {component['name']}:")
        for key in sorted(component.keys() - {"name"}, key=_ORDER.index):
            value = component[key]
            if key == "env":
                value = {variable: text.replace("${", "$${") for variable, text in value.items()}
            lines += _entry(key, value, 4)
        lines.append("")
    return "\n".join(lines[:-1]) + "\n"


def _entry(key: str, value: Any, indent: int) -> list[str]:
    """A field in as few lines as it fits into."""
    space = " " * indent
    short = f"{space}{_scalar(key)}: {_flow(value)}"
    if isinstance(value, Mapping) and (key in _BLOCKS or len(short) > _WIDTH):
        return [f"{space}{_scalar(key)}:", *(line for name, below in value.items() for line in _entry(name, below, indent + 2))]
    if isinstance(value, list) and len(short) > _WIDTH:
        return [f"{space}{_scalar(key)}:", *(f"{space}  - {_flow(each)}" for each in value)]
    return [short]


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(below)}" for key, below in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(each) for each in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A scalar that YAML 1.2 reads as what it is."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value) and not _OTHER.fullmatch(value):
        return value
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]", value) or re.match(r"[-+.]?\d", value):
        return str(yaml.safe_dump(value, default_style='"', width=1 << 30)).strip()
    found: str = yaml.safe_dump([value], default_flow_style=True, width=1 << 30, allow_unicode=True)
    return found.strip()[1:-1]
