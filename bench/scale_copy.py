"""Copies everything that one environment is in a cluster, within its etcd: as fast as etcd writes, where controllers would need an hour.

Names, keys and ids of a copy are its own and exactly as long as those they replace, so that they fit into what Kubernetes stores
(its protocol buffers say how long each text is).  Runs on the cluster's node: `python -m bench.scale_copy < JSON`.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.request
import uuid
from collections.abc import Iterator, Sequence

ETCD = "http://127.0.0.1:2379/v3/kv"
_UID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ADDRESS = re.compile(rb"198\.19\.\d{3}\.\d{3}")  # of a service
_PER_CALL, _CALL_BYTES = 100, 1 << 20

Pair = tuple[bytes, bytes]


def main() -> None:
    """Input: namespace and words of the one that is copied, the words of each copy in the same order, and which number the first one has."""
    asked = json.load(sys.stdin)
    model = [word.encode() for word in asked["model"]]
    pairs = list(_of(asked["namespace"].encode()))
    for number, words in enumerate(asked["copies"], asked["first"]):
        put([_copied(pair, model, [word.encode() for word in words], number) for pair in pairs])
    print(len(pairs))


def _of(namespace: bytes) -> Iterator[Pair]:
    """What is in the namespace, or says its name; events are no part of an environment."""
    everything = ask("range", {"key": _text(b"/registry/"), "range_end": _text(b"/registry0")})["kvs"]
    for each in everything:
        key, value = (base64.b64decode(each[name]) for name in ("key", "value"))
        if (namespace in key or namespace in value) and not key.startswith((b"/registry/events/", b"/registry/leases/")):
            yield key, value


def _copied(pair: Pair, model: Sequence[bytes], words: Sequence[bytes], number: int) -> Pair:
    address = f"198.19.{100 + number // 150}.{100 + number % 150}".encode()

    def one(text: bytes) -> bytes:
        for old, new in zip(model, words, strict=True):
            if len(old) != len(new):
                raise ValueError(f"{new!r} is not as long as {old!r}")
            text = text.replace(old, new)
        text = _UID.sub(lambda found: str(uuid.uuid5(uuid.NAMESPACE_OID, f"{number} {found[0].decode()}")).encode(), text)
        return _ADDRESS.sub(address, text)

    return one(pair[0]), one(pair[1])


def put(pairs: Sequence[Pair]) -> None:
    """Writes them, as many in one call as etcd takes."""
    call: list[object] = []
    size = 0
    for key, value in pairs:
        call.append({"requestPut": {"key": _text(key), "value": _text(value)}})
        size += len(value)
        if len(call) == _PER_CALL or size > _CALL_BYTES // 2:
            ask("txn", {"success": call})
            call, size = [], 0
    if call:
        ask("txn", {"success": call})


def ask(what: str, body: object) -> dict[str, list[dict[str, str]]]:
    request = urllib.request.Request(f"{ETCD}/{what}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, list[dict[str, str]]] = json.load(answer)
    return found


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


if __name__ == "__main__":
    main()
