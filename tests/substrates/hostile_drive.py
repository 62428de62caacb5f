"""Puts hostile.py into a node beside a victim, as whoever runs this, and prints what it managed and what is left of its surroundings.

Uses the standard library and envctl only, so that any interpreter can run it: `python hostile_drive.py EMPTY_DIRECTORY`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from envctl.model.environment import NodeSpec
from envctl.substrates.embedded import Embedded


def drive(place: Path) -> dict[str, object]:
    realiser = Embedded.realiser(place / "envs" / "hostile")
    realiser.create_environment("hostile", ttl_s=60, labels={})
    reach = Embedded.attach(realiser.directory)
    secret = place / "secret"
    secret.write_text("secret")
    outside = subprocess.Popen(["sleep", "60"])
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as abstract:
            name = f"envctl-hostile-{os.getpid()}"
            abstract.bind("\0" + name)
            abstract.listen()
            realiser.start_node(_node("victim-0", "sh", "-c", "echo secret > /data/secret; exec sleep 60"), ready_timeout_s=10)
            directory = realiser.directory
            goal = {
                "secrets": [str(p) for p in (secret, directory, directory / "cell.sock", directory / "nodes/victim-0/data/secret", Path.home())],
                "victims": [outside.pid, *(p for p in _visible() if p != os.getpid())][:40],
                "port": listener.getsockname()[1], "abstract": name,
            }
            realiser.start_node(_node("hostile-0", "sleep", "60"), ready_timeout_s=10)
            script = Path(__file__).with_name("hostile.py").read_text()
            done = reach.run("hostile-0", ["python3", "-c", script, json.dumps(goal)], timeout_s=60)
            victim = reach.node("victim-0")
            return {
                "status": done.status, "stderr": done.stderr, **json.loads(done.stdout or "{}"),
                "outside_lives": outside.poll() is None, "secret": secret.read_text(), "victim_starts": victim.starts,
                "victim_state": victim.state, "interpreter": sys.version,
            }
    finally:
        outside.kill()
        outside.wait()
        realiser.end_environment()


def _visible() -> list[int]:
    return sorted((int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit()), reverse=True)


def _node(name: str, *command: str) -> NodeSpec:
    return NodeSpec(name, name[:-2], "service", "", command, "1")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(drive(Path(sys.argv[1]))))
