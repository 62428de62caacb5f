"""seeds/shop-large: generated, loaded, kept as a snapshot, started from."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench import Figure, show
from bench.project import HERE, copied, envctl

TITLE = "A large seed"
SEED, ROWS, MESSAGES = "shop-large", 2_100_000, 500_000
LINE = re.compile(r"^seed\s+✔ .*?(\d+\.\d) s$", re.MULTILINE)
PEAK = re.compile(r"VmHWM:\s+(\d+)")


def size_mb(path: Path) -> float:
    """Megabytes on disk."""
    return int(subprocess.run(["du", "-sk", str(path)], capture_output=True, text=True, check=True).stdout.split()[0]) / 1024


def generated() -> tuple[float, float]:
    """Seconds and megabytes of generating the data."""
    with tempfile.TemporaryDirectory() as out:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "../generate.py", "large"], cwd=HERE / "seeds" / SEED, check=True,
                       env={**os.environ, "OUT": out}, stderr=subprocess.DEVNULL)
        return time.perf_counter() - begun, size_mb(Path(out))


class Peak:
    """The peak resident memory of the loader, looked at while it runs."""

    def __init__(self) -> None:
        self.mb = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if b"envctl.seeding.load" in (process / "cmdline").read_bytes():
                        found = PEAK.search((process / "status").read_text())
                        self.mb = max(self.mb, int(found[1]) / 1024 if found else 0.0)


@dataclass(frozen=True, slots=True)
class Kept:
    """What a snapshot cost and what starting from it takes."""

    made_s: float
    mb: float
    up_s: float
    verified_s: float


def kept(root: Path) -> Kept:
    """Makes a snapshot, starts the shop from it, verifies all of it, removes it."""
    from envctl import seeding, session
    from envctl.plugins import load
    from envctl.spec import load_project
    from envctl.stack import bring_up
    from envctl.toolchain import cache_dir

    project = load_project(root)
    plan, _ = session.make_plan(project, None, session.Asked(full=True))
    seed = session.seed_named(project, plan, SEED)
    begun = time.perf_counter()
    snapshot = seeding.prepare(plan, seed, lambda _: None)
    made = time.perf_counter()
    home = cache_dir() / "snapshots" / snapshot.key
    try:
        environment = bring_up(plan, seed_key=snapshot.key).environment
        up = time.perf_counter()
        reach = load("envctl.substrates", "embedded").attach(environment.directory)
        seeding.load_seed_into(reach, plan.topology, seed, plan.components, lambda _: None, started_from=snapshot)
        return Kept(made - begun, size_mb(home), up - made, time.perf_counter() - up)
    finally:
        envctl(root, "down")
        shutil.rmtree(home)


def figures() -> list[Figure]:
    """Once each: loading is a matter of minutes, not of milliseconds."""
    seconds, megabytes = generated()
    with copied() as root:
        empty = envctl(root, "up", "--full").wall_s
        with Peak() as peak:
            loaded = envctl(root, "seed", SEED, "--full")
        seed_s = float(LINE.findall(loaded.output)[-1])
        data = Path(json.loads(envctl(root, "status", "--output", "json").output)["directory"]) / "nodes"
        disk = size_mb(data)
        envctl(root, "down")
        from_snapshot = kept(root)
    return [
        Figure("data generated and written", f"{seconds:.1f} s, {megabytes:.0f} MB"),
        Figure(f"`envctl seed {SEED}`: {ROWS:,} rows and {MESSAGES:,} messages, counted and summed afterwards", f"{seed_s:.1f} s"),
        Figure("rate", f"{(ROWS + MESSAGES) / seed_s:,.0f} a second"),
        Figure("the loader's peak memory", f"{peak.mb:.0f} MB"),
        Figure("all nodes' data on disk, replicas and standby included", f"{disk:.0f} MB"),
        Figure("snapshot: engines up, loaded, verified, stopped, copied", f"{from_snapshot.made_s:.1f} s, {from_snapshot.mb:.0f} MB"),
        Figure("warm `up` of the whole shop without data", f"{empty:.1f} s"),
        Figure("`up` from the snapshot", f"{from_snapshot.up_s:.1f} s ({from_snapshot.up_s / empty:.2f} ×)"),
        Figure("everything in it counted and summed again", f"{from_snapshot.verified_s:.1f} s"),
    ]


if __name__ == "__main__":
    show(figures())
