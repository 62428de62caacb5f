"""Probes that have arrived are counted, however late their receiver comes to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from envctl.faults.programs.udp_probe import Arrivals
from envctl.waiting import until

RECEIVER = "import envctl.faults.programs.udp_probe as probe; probe.DRAIN_S = 0.0; probe.receive('127.0.0.1')"


def test_what_has_arrived_is_counted_by_a_receiver_that_got_no_time_until_it_should_end() -> None:
    with subprocess.Popen([sys.executable, "-c", RECEIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as receiver:
        assert receiver.stdin
        assert receiver.stdout
        port = int(receiver.stdout.readline())
        os.kill(receiver.pid, signal.SIGSTOP)
        assert until(lambda: Path(f"/proc/{receiver.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", 30)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(100):
                sender.sendto(struct.pack("!I", number), ("127.0.0.1", port))
        receiver.stdin.write("done\n")
        receiver.stdin.flush()
        os.kill(receiver.pid, signal.SIGCONT)
        assert json.loads(receiver.stdout.readline()) == {"127.0.0.1": {"distinct": 100, "again": 0, "late": []}}


def test_what_comes_again_or_late_is_told_with_the_time_by_which_it_was_late() -> None:
    arrivals = Arrivals()
    for now, number in enumerate((0, 2, 2, 3, 1, 0, 4)):
        arrivals.note(number, float(now))
    assert arrivals.told() == {"distinct": 5, "again": 2, "late": [(1, 3.0)]}
