"""Where the libraries of a living process keep the addresses of functions that they have from other libraries (x86-64 ELF).

System V Application Binary Interface, AMD64 supplement, chapters 4.4 (relocations) and 5.2 (the global offset table).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

_DYNAMIC = 2  # a segment's type
_STRINGS, _SYMBOLS, _RELOCATIONS, _RELOCATIONS_SIZE, _JUMPS_SIZE, _JUMPS = 5, 6, 7, 8, 2, 23  # tags in it
_OF_FUNCTIONS = (6, 7)  # types of relocations: R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT
_NAME = 64  # bytes of a symbol's name that are looked at
Read = Callable[[int, int], bytes]  # at an address, so many bytes


def libraries(maps: str, name: str) -> list[int]:
    """Where the files whose names have `name` in them begin in memory, by the text of `/proc/PID/maps`."""
    lines = re.findall(rf"^(\w+)-\w+ \S+ 0+ \S+ \d+ +\S*/[^/\n]*{re.escape(name)}[^/\n]*$", maps, re.MULTILINE)
    return [int(begin, 16) for begin in lines]


def executable(maps: str, address: int) -> bool:
    """Whether there is code at an address."""
    spans = re.findall(r"^(\w+)-(\w+) ..x", maps, re.MULTILINE)
    return any(int(begin, 16) <= address < int(end, 16) for begin, end in spans)


def slots(read: Read, base: int, names: Collection[str]) -> Mapping[str, int]:
    """The addresses at which the library at `base` keeps those of the functions `names`; of none where it is no such library."""
    with suppress(struct.error, OSError, KeyError):
        return _slots(read, base, {name.encode() for name in names})
    return {}


def _slots(read: Read, base: int, names: Collection[bytes]) -> Mapping[str, int]:
    tags = _tags(read, base)
    place = {tag: value if value >= base else value + base for tag, value in tags.items()}  # the loader has added it, or has not
    tables = [(place[_JUMPS], tags[_JUMPS_SIZE])] if _JUMPS in tags else []
    tables += [(place[_RELOCATIONS], tags[_RELOCATIONS_SIZE])] if _RELOCATIONS in tags else []
    found = {}
    for at, size in tables:
        for offset, info, _ in struct.iter_unpack("<QQq", read(at, size)):
            if info & 0xFFFFFFFF in _OF_FUNCTIONS:
                (name,) = struct.unpack("<I", read(place[_SYMBOLS] + 24 * (info >> 32), 4))
                text = read(place[_STRINGS] + name, _NAME).split(b"\0")[0]
                found.update({text.decode(): base + offset} if text in names else {})
    return found


def _tags(read: Read, base: int) -> Mapping[int, int]:
    """What the dynamic section of a library says.  Raises struct.error or KeyError where there is none."""
    head = read(base, 64)
    if not head.startswith(b"\x7fELF"):
        raise KeyError(base)
    headers, count = struct.unpack_from("<Q", head, 0x20)[0], struct.unpack_from("<H", head, 0x38)[0]
    parts = [struct.unpack_from("<IIQQQQ", read(base + headers, 56 * count), 56 * index) for index in range(count)]
    address, size = {part[0]: (part[3], part[5]) for part in parts}[_DYNAMIC]
    return dict(struct.iter_unpack("<qQ", read(base + address, size)))


def maps_of(pid: int | str) -> str:
    """What is mapped into a process.  Raises OSError for one that has ended."""
    return Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
