"""What engines share when they describe nodes: the digest of a node, tools as mounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from envctl.engines.content import digest
from envctl.engines.interpreters import in_usr
from envctl.model.environment import Mount, NodeSpec
from envctl.toolchain.tool import Tool

PATH = "/usr/local/bin:/usr/bin:/bin"


def tool_mounts(*tools: Tool) -> tuple[Mount, ...]:
    """The parts of tools that a node does not see in /usr, at the places where they are on the host."""
    return tuple(Mount(root, str(root)) for tool in tools for root in tool.roots if not in_usr(root))


def tool_names(*tools: Tool) -> dict[str, str]:
    """Host path → name of what is there, for `sealed`."""
    named = {}
    for tool in tools:
        name = f"{tool.name}@{tool.version}"
        named.update({str(path): f"{name}:{program}" for program, path in tool.programs.items()})
        named.update({str(root): name for root in (*tool.roots, tool.home)})
    return named


def sealed(spec: NodeSpec, *, data: str = "", names: Mapping[str, str]) -> NodeSpec:
    """The spec with its digest: all of it, with host paths replaced by content ids, so that it is the same on every machine.

    `names` gives the content id or the name and version for each mount's source, and for other host paths that occur in
    the command or the environment; `data` is the content id of what `/data` starts from.
    """
    mounts = [(names[str(mount.source)], _named(mount.target, names), mount.writable) for mount in spec.mounts]
    command = [_named(argument, names) for argument in spec.command]
    env = {key: _named(value, names) for key, value in spec.env.items()}
    bare = replace(spec, command=(), env={}, mounts=(), data=None, digest="")
    return replace(spec, digest=digest(bare, command, env, mounts, data))


def _named(text: str, names: Mapping[str, str]) -> str:
    for path in sorted(names, key=len, reverse=True):  # the longest first, because one may lead to another
        text = text.replace(path, f"<{names[path]}>")
    return text
