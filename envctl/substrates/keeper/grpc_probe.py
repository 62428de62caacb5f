"""Asks a gRPC health service until it says SERVING: `python -m envctl.substrates.keeper.grpc_probe HOST:PORT [SERVICE]`.

A process of its own, so that only environments with gRPC probes pay for the library.  The protocol is
https://github.com/grpc/grpc/blob/master/doc/health-checking.md; both messages are small enough to be written out here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

_SERVING = b"\x08\x01"  # HealthCheckResponse: field 1 (status), varint 1 (SERVING)
_TRIES, _PAUSE_S = 40, 0.1


def request(service: str) -> bytes:
    """HealthCheckRequest: field 1 (service), a string of at most 127 bytes."""
    name = service.encode()
    return b"\x0a" + bytes([len(name)]) + name if name else b""


def main() -> int:
    """Exit status 0 once the service is SERVING, 1 when it is not within about 4 s."""
    import grpc

    target, service = sys.argv[1], (sys.argv[2:] or [""])[0]
    with grpc.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 200)]) as channel:
        check: Callable[..., bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        for _ in range(_TRIES):
            try:
                if check(request(service), timeout=1.0).startswith(_SERVING):
                    return 0
            except grpc.RpcError:
                pass
            time.sleep(_PAUSE_S)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
