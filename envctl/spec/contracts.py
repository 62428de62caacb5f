"""The gRPC contracts of a stack: the .proto files below its `contracts/`, and the methods they declare."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

DIRECTORY = "contracts"
_NOISE = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)  # comments and strings
_WORDS = re.compile(
    r"\bpackage\s+(?P<package>[\w.]+)\s*;|\bservice\s+(?P<service>\w+)\s*\{"
    r"|\brpc\s+(?P<rpc>\w+)\s*\((?P<takes>[^)]*)\)\s*returns\s*\((?P<gives>[^)]*)\)"
)


def contract_files(stack: Path) -> tuple[Path, ...]:
    """All .proto files below `contracts/` of a stack's directory."""
    return tuple(sorted((stack / DIRECTORY).rglob("*.proto")))


def unary_methods(files: Iterable[Path]) -> tuple[str, ...]:
    """`package.Service/Method` of every unary method that the files declare.

    A reader of declarations, not a compiler: it knows which methods there are before anything is started; what their messages
    hold is the compiler's business.  Raises OSError for a file that can't be read.
    """
    return tuple(method for file in files for method in _declared(file.read_text(encoding="utf-8", errors="replace")))


def _declared(text: str) -> list[str]:
    found: list[str] = []
    package = service = ""
    for match in _WORDS.finditer(_NOISE.sub(" ", text)):
        package, service = match["package"] or package, match["service"] or service
        if match["rpc"] and not any(one.split()[:1] == ["stream"] and len(one.split()) > 1 for one in (match["takes"], match["gives"])):
            found.append(f"{package}.{service}/{match['rpc']}".lstrip("."))
    return found
