"""What `make demo` does, warm, step by step: everything around the scenario's own timeline."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

from bench import Figure, show, spread
from bench.project import ENVCTL, call, copied, envctl

TITLE = "The demo"
TIMES, TIMELINE_S = 3, 30.0
SCENARIO = "checkout-under-fire"
STEPS = ("plan", "up", "seed", "run", "judge", "report", "down")
LINE = re.compile(rf"^({'|'.join(STEPS)})\s+[✔✘·] .*?(\d+\.\d) s$", re.MULTILINE)
PARTS = ("preflight", "traffic", "settle", "drain")


def parts_of(root: Path) -> dict[str, float]:
    """Seconds of the parts of the newest run, from its record."""
    newest = max((root / ".envctl" / "runs").iterdir(), key=lambda path: path.name)
    edges: dict[tuple[str, str], float] = {}
    for line in (newest / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["kind"] == "step" and event["name"] in PARTS:
            edges[event["name"], event["edge"]] = event["at_ns"] / 1e9
    return {name: edges[name, "end"] - edges[name, "begin"] for name in PARTS}


def figures(times: int = TIMES) -> list[Figure]:
    """The demo `times` times after one that warms everything; each must pass."""
    totals: list[float] = []
    setup: list[float] = []
    steps: dict[str, list[float]] = {name: [] for name in (*STEPS, *PARTS)}
    with copied() as root:
        for number in range(times + 1):
            prepared, run = call([ENVCTL, "setup"]), envctl(root, "ci", "--full", "--scenario", SCENARIO)
            if not number:
                continue
            setup.append(prepared.wall_s)
            totals.append(prepared.wall_s + run.wall_s)
            for name, seconds in (*LINE.findall(run.output), *parts_of(root).items()):
                steps[name].append(float(seconds))
    more = statistics.median(totals) - TIMELINE_S
    rows = [
        Figure("the demo, `setup` and `ci`, wall", spread(totals, digits=1)),
        Figure(f"more than the scenario's {TIMELINE_S:.0f} s", f"{more:.1f} s", "≤ 25 s", more <= 25),
        Figure("setup", spread(setup, digits=1)),
    ]
    for name in STEPS:
        rows.append(Figure(name, spread(steps[name], digits=1)))
        rows += [Figure(f"… of it {part}", spread(steps[part], digits=1)) for part in PARTS if name == "run"]
    return rows


if __name__ == "__main__":
    show(figures())
