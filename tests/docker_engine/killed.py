"""Kills the user or the keeper of an engine, in a network of its own, and tells what it left there.

Run inside new network and mount namespaces: `killed.py user|keeper CACHE`.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

USE = "from docker_engine.engine import docker_engine\nwith docker_engine() as engine: print(engine.host, flush=True); input()"
DEADLINE_S = 60.0


def left():
    """Links, chains, rules and processes of an engine."""
    saved = subprocess.run(["iptables-save"], check=True, capture_output=True, text=True).stdout.splitlines()
    links = subprocess.run(["ip", "-br", "link"], check=True, capture_output=True, text=True).stdout.splitlines()
    found = [line for line in saved if line.startswith("-A") or " - " in line] + [line for line in links if not line.startswith("lo ")]
    return found + [pid for pid in pids() if cache.encode() in command(pid) and int(pid) != os.getpid()]


def pids():
    return [path.name for path in Path("/proc").iterdir() if path.name.isdigit()]


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def started():
    user = subprocess.Popen([sys.executable, "-c", USE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return user, user.stdout.readline().strip()


victim, cache = sys.argv[1:]
user, host = started()
subprocess.run(["docker", "-H", host, "network", "create", "some"], check=True, stdout=subprocess.DEVNULL)
assert left(), "an engine that can't be seen"
keepers = [int(pid) for pid in left() if pid.isdigit() and b"keeper.py" in command(pid)]
for pid in keepers if victim == "keeper" else [user.pid]:
    os.kill(pid, signal.SIGKILL)
if victim == "keeper":  # what is left is removed by the next
    user.communicate("\n")
    again, _ = started()
    again.communicate("\n")
deadline = time.monotonic() + DEADLINE_S
while left() and time.monotonic() < deadline:
    time.sleep(0.1)
sys.stdout.write("\n".join(left()))
