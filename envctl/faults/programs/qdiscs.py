"""Which queueing disciplines this kernel has: `python -m envctl.faults.programs.qdiscs htb netem` answers with a JSON object.

A discipline that needs options is asked for without them: one that the kernel has is refused as invalid (EINVAL), one that it lacks as
unknown (ENOENT); so nothing changes.  Source: qdisc_create() of net/sched/sch_api.c, rtnetlink(7).
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import sys

_NEW_QDISC, _REQUEST, _ACK, _EXCLUSIVE, _CREATE = 36, 0x1, 0x4, 0x200, 0x400
_ROOT = 0xFFFFFFFF
_KIND = 1


def known(kind: str) -> bool:
    """Whether the kernel has it, as a module or built in.  Only for disciplines that refuse to be without options: htb, netem.

    Raises PermissionError without the right to ask.
    """
    name = kind.encode() + b"\0"
    body = struct.pack("=BxxxiIII", 0, socket.if_nametoindex("lo"), 0, _ROOT, 0)
    body += struct.pack("=HH", 4 + len(name), _KIND) + name + bytes(-len(name) % 4)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.settimeout(5)
        netlink.send(struct.pack("=IHHII", 16 + len(body), _NEW_QDISC, _REQUEST | _ACK | _EXCLUSIVE | _CREATE, 1, 0) + body)
        code: int = struct.unpack_from("=i", netlink.recv(4096), 16)[0]
    if -code == errno.EPERM:
        raise PermissionError(errno.EPERM, "queueing disciplines can't be changed here")
    return -code == errno.EINVAL


if __name__ == "__main__":
    sys.stdout.write(json.dumps({kind: known(kind) for kind in sys.argv[1:]}) + "\n")
