"""Healthchecks → probes of envctl, where that means the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from envctl.compose.values import Cursor

Probe = Mapping[str, Any]
"""`ready:` of a topology; `port` and `tcp` are numbers."""

_URL = re.compile(r"http://(?P<host>[\w.-]+|\[::1\])(?::(?P<port>\d+))?(?P<path>/[^\s]*)?\Z")
_HARMLESS = {  # options of curl and wget that change nothing about what is asked: their names, and how many words follow
    "curl": {"-f": 0, "--fail": 0, "-s": 0, "--silent": 0, "-S": 0, "--show-error": 0, "-v": 0, "-i": 0, "-o": 1, "--output": 1,
             "-m": 1, "--max-time": 1, "--connect-timeout": 1, "--retry": 1},
    "wget": {"--spider": 0, "-q": 0, "--quiet": 0, "-nv": 0, "--no-verbose": 0, "-O": 1, "-O-": 0, "-qO-": 0, "-qO": 1, "-S": 0, "--tries": 1,
             "-t": 1, "-T": 1, "--timeout": 1, "--no-cache": 0},
}
_NC = {"-z": 0, "-v": 0, "-vz": 0, "-zv": 0, "-w": 1, "-w1": 0, "-w5": 0}
_FALSE_END = re.compile(r"\s*\|\|\s*(?:exit\s+1|false|kill\s+.*)\s*\Z")
_TO_NOWHERE = re.compile(r"\s*(?:\d?>\s*/dev/null|2>&1|&>\s*/dev/null)")


def probe_of(check: Cursor, own: Collection[str]) -> Probe | None:
    """The probe for a `healthcheck`; None for none.  `own` are names by which the container knows itself."""
    disabled = check.find("disable")
    test = check.find("test")
    if disabled and disabled.true():
        if test:
            test.mark()
        return None
    if test is None:
        return None
    if test.kind != "list":
        return _of_shell(test.text(), own) if test.text().strip() else None
    words = [each.text() for each in test.items()]
    if not words or words[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise test.error(f"found {words[:1]}, allowed: a list that begins with NONE, CMD or CMD-SHELL")
    if words[0] == "NONE":
        return None
    if not any(words[1:]):
        raise test.error(f"there is no command behind {words[0]}")
    if words[0] == "CMD-SHELL":
        return _of_shell(" ".join(words[1:]), own)
    return _native(words[1:], own) or {"exec": words[1:] if all(words) else ["sh", "-c", shlex.join(words[1:])]}


def _of_shell(text: str, own: Collection[str]) -> Probe:
    plain = _TO_NOWHERE.sub("", _FALSE_END.sub("", text))
    if not re.search(r"[|&;<>$`(){}*?\\\n]", plain):  # one command: what a shell makes of it is its words
        try:
            found = _native(shlex.split(plain), own)
        except ValueError:
            found = None
        if found:
            return found
    return {"exec": ["sh", "-c", text]}


def _native(words: list[str], own: Collection[str]) -> Probe | None:
    program = words[0].rpartition("/")[2] if words else ""
    if program == "curl" and not any(re.fullmatch(r"--fail|-[a-zA-Z]*f[a-zA-Z]*", word) for word in words):
        return None  # without it any answer will do
    if program in _HARMLESS:
        rest = _arguments(words[1:], _HARMLESS[program])
        match = _URL.match(rest[0]) if rest and len(rest) == 1 else None
        if match and match["host"] in own:
            return {"http": match["path"] or "/", "port": int(match["port"] or 80)}
    if program in ("nc", "ncat") and any(word in ("-z", "-zv", "-vz") for word in words):
        rest = _arguments(words[1:], _NC)
        if rest and len(rest) == 2 and rest[0] in own and rest[1].isdecimal():
            return {"tcp": int(rest[1])}
    if program == "grpc_health_probe":
        return _grpc(words[1:])
    return None


def _arguments(words: list[str], harmless: Mapping[str, int]) -> list[str] | None:
    """The words that are no options; None where one could change what is asked."""
    found: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, given, _ = word.partition("=")
        if not word.startswith("-"):
            found.append(word)
        elif name in harmless:
            del left[: 0 if given else harmless[name]]
        elif not (re.fullmatch(r"-[a-zA-Z]{2,}", word) and all(harmless.get(f"-{letter}") == 0 for letter in word[1:])):
            return None
    return found


def _grpc(words: list[str]) -> Probe | None:
    text = " ".join(words)
    match = re.fullmatch(r"--?addr[= ](?:localhost|127\.0\.0\.1)?:(\d+)(?: --?service[= ](\S+))?", text)
    return {"grpc": match[2] or "", "port": int(match[1])} if match else None
