"""What a cluster may have left on the machine; it shares nothing with the code that removes it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from envctl.toolchain import find

_SETTINGS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes", "net/ipv4/conf/all/route_localnet", "net/ipv4/conf/all/rp_filter", "net/netfilter/nf_conntrack_max",
)
_PLACES = ("/", "/etc", "/opt", "/run", "/var/lib", "/var/log", "/usr/libexec")
_OF_NEIGHBOURS = re.compile(r"docker|moby|/run/|netns|table ip6? (nat|filter|raw)|interface (br-|veth)")
"""What the Docker engines of other tests make and remove meanwhile."""


def machine() -> list[str]:
    """Interfaces, packet rules, mounts, control groups, settings, and the names in the places where clusters write."""
    found = [f"interface {path.name}" for path in Path("/sys/class/net").iterdir()]
    nft = find("nft")
    argv = [str(nft.programs["nft"]), "list", "tables"]
    found += subprocess.run(argv, env={**os.environ, **nft.env}, capture_output=True, text=True, check=True).stdout.splitlines()
    found += [f"mount {line.split()[4]}" for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    groups = Path("/sys/fs/cgroup")
    found += [f"group {path}" for pattern in ("", "*/") for path in groups.glob(f"{pattern}envctl-cluster-*")]
    found += [f"{name}={path.read_text().strip()}" for name in _SETTINGS if (path := Path("/proc/sys", name)).exists()]
    found += [f"file {path}" for place in _PLACES if Path(place).is_dir() for path in Path(place).iterdir()]
    return sorted(line for line in found if not _OF_NEIGHBOURS.search(line))


def traces(place: Path) -> list[str]:
    """Processes other than tests that speak of the place in their arguments, or see it mounted."""
    text, found = str(place).encode(), []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            try:
                command = (process / "cmdline").read_bytes()
                if text in command or text in (process / "mountinfo").read_bytes():
                    found.append(f"{process.name} {command.replace(bytes(1), b' ').decode(errors='replace')[:80]}")
            except OSError:
                continue
    return found
