"""What `envctl doctor` looks at: each fact about this machine, with what it means for environments and what to do."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from envctl.errors import CapabilityError
from envctl.toolchain.lookup import PROGRAMS, PULUMI_VERSION, available, find, which
from envctl.toolchain.machine import answer, attempt, machine_problems
from envctl.toolchain.tool import Tool, cache_dir

_GIB = 1024**3
_LINKS = "ip link add envctl0 type bridge && ip link add envctl1 type veth peer name envctl2 master envctl0"
_RULES = "nft add table inet t && nft add set inet t s '{ type ipv4_addr; flags timeout; }'"
_DISCIPLINES = (sys.executable, "-m", "envctl.faults.programs.qdiscs", "netem", "htb")
_QUEUE = (sys.executable, "-m", "envctl.faults.programs.queue_holder", "try")


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that was looked at.  `missing` stops environments, a `note` only takes something away."""

    topic: str
    state: Literal["ok", "note", "missing"]
    found: str
    step: str = ""  # what the user can do


def examine() -> Iterator[Fact]:
    """Looks at the machine, in the order in which things depend on each other."""
    yield Fact("system", "ok", f"{platform.system()} {platform.release()} on {platform.machine()}, Python {platform.python_version()}")
    lacks = machine_problems()
    yield from (Fact("namespaces", "missing", lack.what, lack.step) for lack in lacks)
    if not lacks:
        yield Fact("namespaces", "ok", "an ordinary user can make user, network, mount and process namespaces")
    for name in PROGRAMS:
        yield _tool(name)
    if not lacks:
        yield from _network()
    if sys.platform == "linux":
        yield Fact("limits", "note", "`resources:` of components is checked, but not enforced yet on the embedded substrate")
    yield _space()


def can_run(facts: tuple[Fact, ...]) -> bool:
    """Whether environments can run here now."""
    return all(fact.state != "missing" for fact in facts)


def _tool(name: str) -> Fact:
    try:
        tool = find(name)
    except CapabilityError as error:
        return Fact(name, "missing", error.message, f"run `envctl setup`: {_supplier(name)}")
    others = [other.version for other in available(name) if other.version != tool.version]
    beside = f"; also {', '.join(others)}" if others else ""
    return Fact(name, "ok", f"{tool.version} from the {tool.source} ({tool.home}){beside}")


def _supplier(name: str) -> str:
    """What setup would do for a missing tool here."""
    if name == "java":
        return "it takes a Java runtime from a wheel (35 MB) by pip"
    if name == "pulumi":
        go = "with the Go that is here, or" if which("go") else "with"
        return (
            f"it builds the CLI {PULUMI_VERSION} from source {go} a Go from a wheel (5 to 10 minutes, once); "
            "Pulumi's own installer does as well"
        )
    apt = which("apt-get")
    if name == "kafka":
        maven = "by the Maven that is here" if which("mvn") else "by a Maven that apt-get downloads" if apt else "once you install Maven"
        return f"it fetches the jars (43 MB) {maven}"
    return "it unpacks what apt-get downloads, without root" if apt else "install it with this machine's package manager (no apt-get here)"


def _network() -> Iterator[Fact]:
    """Tries in a namespace what cells and faults need of the kernel."""
    tools = {name: tool for name in ("ip", "nft") if (tool := _found(name))}
    if "ip" in tools:
        yield _tried("network", "bridges and virtual interfaces", _LINKS, tools["ip"], step="sudo modprobe -a bridge veth")
    if "nft" in tools:
        yield _tried("packet rules", "nftables sets with timeouts", _RULES, tools["nft"], step="sudo modprobe nf_tables")
    yield _shaping()


def _shaping() -> Fact:
    """By which means the faults that shape links can work: each mechanism is asked for in a network namespace."""
    kernel = json.loads(answer(_DISCIPLINES)[0] or "{}")
    queue = answer(_QUEUE)[0]
    queue = "" if queue in ("", "None") else f"a queue of netfilter ({queue})"
    means = {"latency": "netem" if kernel.get("netem") else queue, "reorder and corrupt": queue, "bandwidth": "HTB" if kernel.get("htb") else ""}
    text = ", ".join(f"{fault} by {what}" if what else f"no {fault}" for fault, what in means.items())
    if all(means.values()):
        return Fact("shaping", "ok", text)
    return Fact("shaping", "note", text, "sudo modprobe -a sch_htb sch_netem nfnetlink_queue nft_queue (or xt_NFQUEUE nft_compat)")


def _tried(topic: str, what: str, script: str, tool: Tool, *, step: str) -> Fact:
    path = ":".join(str(program.parent) for program in tool.programs.values())
    said = attempt(("sh", "-ec", script), {**os.environ, **tool.env, "PATH": f"{path}:{os.environ.get('PATH', '')}"})
    return Fact(topic, "missing", f"{what}: {said.splitlines()[0]}", step) if said else Fact(topic, "ok", f"{what} work")


def _found(name: str) -> Tool | None:
    try:
        return find(name)
    except CapabilityError:
        return None


def _space() -> Fact:
    """Free space for the cache, more of it where the CLI is still to be built."""
    cache = cache_dir()
    need = 2 * _GIB if _found("pulumi") else 6 * _GIB
    free = shutil.disk_usage(cache).free
    text = f"{free / _GIB:.1f} GiB free for {cache}"
    if free >= need:
        return Fact("space", "ok", text)
    return Fact("space", "note", f"{text}; {need // _GIB} GiB are comfortable", "make room, or set ENVCTL_CACHE to a larger disk")
