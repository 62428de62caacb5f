"""The resolver answers everything that can be sent to it, and correctly what is a question."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from envctl.substrates.embedded.names import answer

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)


def question(name: str, kind: int = 1, ident: int = 7) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", ident, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


@given(LABEL, st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=20), st.integers(0, 65535))
def test_a_known_name_gets_every_address(name: str, addresses: list[str], ident: int) -> None:
    asked = question(name.upper(), ident=ident)
    reply = answer(asked, lambda wanted: addresses if wanted == name else [])
    got, flags, questions, answers = struct.unpack("!HHHH", reply[:8])
    assert (got, flags & 0x800F, questions, answers) == (ident, 0x8000, 1, len(addresses))
    assert reply[12 : len(asked)] == asked[12:]
    records = reply[len(asked) :]
    assert [".".join(map(str, records[i + 12 : i + 16])) for i in range(0, len(records), 16)] == addresses


@given(LABEL)
def test_an_unknown_name_is_nxdomain_and_another_type_of_a_known_one_is_empty(name: str) -> None:
    assert struct.unpack("!H", answer(question(name), lambda _: [])[2:4])[0] & 15 == 3
    reply = answer(question(name, kind=28), lambda _: ["198.18.1.1"])
    assert (struct.unpack("!H", reply[2:4])[0] & 15, struct.unpack("!H", reply[6:8])[0]) == (0, 0)


@given(st.binary(max_size=80))
def test_no_message_breaks_it(data: bytes) -> None:
    reply = answer(data, lambda _: ["198.18.1.1"])
    assert reply == b"" or (reply[:2] == data[:2] and reply[2] & 0x80)
