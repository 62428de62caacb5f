"""Gives living processes another wall clock: x86-64 programs of every kind read it through code that the kernel has mapped into them.

In that code (the vDSO, a copy of its own for each process that is written to) the entries of `clock_gettime`, `gettimeofday` and `time`
jump to ours, which asks the kernel and shifts CLOCK_REALTIME; what waits goes by other clocks, and these stay as they are.  Libraries that
are known to wait until times of the wall clock are led to the kernel itself, and keep the machine's time.  Ours knows
when its lease ends, and shifts nothing from then on, whatever has happened to us.  What it replaced is kept beside it.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from envctl.errors import CapabilityError, ResourceError
from envctl.faults.programs.imports import executable, libraries, maps_of, slots
from envctl.faults.programs.standing import while_standing

_MAGIC = b"envctlsk"
_DATA = struct.Struct("<8sQQqq8s8s8s")  # magic, until, base, offset, drift; what the entries began with.  Nanoseconds; drift × 2³²
_CODE = bytes.fromhex(
    # clock_gettime: the system call; then, of CLOCK_REALTIME and CLOCK_REALTIME_COARSE, nanoseconds, shifted, as a timespec
    "b8e40000000f0585c0750985ff740683ff057401c3488b064869c000ca9a3b48034608e881000000b900ca9a3b31d248f7f14889064889560831c0c3"
    # gettimeofday: likewise, of a timeval
    "b8600000000f0585c0753f4885ff743a488b074869c000ca9a3b48694f08e80300004801c8e843000000b900ca9a3b31d248f7f14889074889d031d2"
    "b9e803000048f7f14889470831c0c3"
    # time: the seconds of the above
    "4883ec184989f831ff4889e6e868ffffff488b04244883c4184d85c07403498900c3"
    # shift: rax, where it is before `until`, becomes rax + offset + (rax - base) × drift ÷ 2³²
    "483b0518ffffff73204889c1482b0514ffffff48f72d1dffffff480facd0204801c848030506ffffffc3"
    # the system calls clock_gettime, gettimeofday and time, as they are
    "b8e40000000f05c3" "b8600000000f05c3" "b8c90000000f05c3",
)
_ENTRIES = {"__vdso_clock_gettime": 0x00, "__vdso_gettimeofday": 0x3C, "__vdso_time": 0x87}  # and where ours are in _CODE
_JUMP_BYTES = 8  # of each entry that are replaced; a jump takes the first five
_AT_SYSINFO_EHDR = 33
_WAIT_BY_IT = "librdkafka"
_TRUE = {"clock_gettime": 0xD3, "gettimeofday": 0xDB, "time": 0xE3}  # where the system calls are in _CODE
_SPARED = struct.Struct("<QQ")  # behind _CODE: an address of which it was told otherwise, and what stood there; a zero ends them
_STOP_S, _TRIES = 2.0, 50


@dataclass(frozen=True, slots=True)
class Skew:
    """How a clock differs from the machine's: by `offset_ns`, and since `base_ns` by `drift` seconds more each second."""

    base_ns: int
    offset_ns: int
    drift: float
    until_ns: int

    def head(self, entries: Sequence[bytes]) -> bytes:
        """What stands before our code."""
        return _DATA.pack(_MAGIC, self.until_ns, self.base_ns, self.offset_ns, round(self.drift * 2**32), *entries)


@dataclass(frozen=True, slots=True)
class _Image:
    """The kernel's code, the same for all 64-bit processes."""

    size: int
    entries: tuple[int, ...]  # where they are in it
    begins: tuple[bytes, ...]  # and what they begin with
    room: int  # where there is room for ours: the table of sections, which only debuggers read, and what follows it


@cache
def _image() -> _Image:
    if platform.machine() != "x86_64":
        raise CapabilityError(f"clocks can't be skewed on {platform.machine()}", hint="it works on x86_64 alone")
    libc = ctypes.CDLL(None)
    libc.getauxval.restype = ctypes.c_ulong
    start = libc.getauxval(_AT_SYSINFO_EHDR)
    size = next(end - begin for begin, end in _mapped("self") if begin == start)
    code = ctypes.string_at(start, size)
    found = _symbols(code)
    entries = tuple(found[name] for name in _ENTRIES)
    room = (struct.unpack_from("<Q", code, 0x28)[0] + 15) & ~15
    if size - room < _DATA.size + len(_CODE) + _SPARED.size * (len(_TRUE) + 1):
        raise CapabilityError("this kernel leaves no room beside its clocks", hint="another kernel may")
    return _Image(size, entries, tuple(code[at : at + _JUMP_BYTES] for at in entries), room)


def _symbols(code: bytes) -> dict[str, int]:
    """Names and places of an ELF image's functions, by its dynamic section."""
    headers, count = struct.unpack_from("<Q", code, 0x20)[0], struct.unpack_from("<H", code, 0x38)[0]
    parts = [struct.unpack_from("<IIQQQQ", code, headers + 56 * index) for index in range(count)]
    (dynamic,) = (part for part in parts if part[0] == 2)
    tags = dict(struct.unpack_from("<QQ", code, dynamic[2] + 16 * index) for index in range(dynamic[5] // 16))
    strings, symbols = tags[5], tags[6]
    number = struct.unpack_from("<II", code, tags[4])[1] if 4 in tags else (strings - symbols) // 24
    found = {}
    for index in range(number):
        name, _, _, _, value = struct.unpack_from("<IBBHQ", code, symbols + 24 * index)
        found[code[strings + name : code.index(b"\0", strings + name)].decode()] = value
    return found


def _mapped(pid: int | str) -> list[tuple[int, int]]:
    """Where the kernel's code is in a process; nothing in one that has ended."""
    try:
        maps = maps_of(pid)
    except OSError:
        return []
    return [(int(begin, 16), int(end, 16)) for begin, end in re.findall(r"^(\w+)-(\w+) .*\[vdso\]$", maps, re.MULTILINE)]


class Clock:
    """The wall clock of one process.  Raises OSError for one that has ended or can't be looked at."""

    def __init__(self, pid: int) -> None:
        self._pid, self._image = pid, _image()
        mapped = _mapped(pid)
        if not mapped:
            raise ProcessLookupError(pid)
        self._start, end = mapped[0]
        self._is_64_bit = end - self._start == self._image.size

    @property
    def name(self) -> str:
        """Of its process, for a person."""
        return _name(self._pid)

    def is_strange(self) -> bool:
        """Whether it is none that we know, as that of a 32-bit program: it can't be skewed."""
        return not self._is_64_bit or (self._entries() != list(self._image.begins) and not self._has_ours())

    def waits_by_it(self) -> bool:
        """Whether it is known to wait until times of the wall clock and can't be spared: with another time it would wait too long, or not at all."""
        found = libraries(maps_of(self._pid), _WAIT_BY_IT)
        return len(found) > 1 or any("clock_gettime" not in slots(self._read_at, base, _TRUE) for base in found)

    def spare(self) -> None:
        """In a process that is skewed, leaves libraries that wait until times of the wall clock the machine's, as soon as they are there."""
        if self._spared():
            return
        maps, code = maps_of(self._pid), self._start + self._image.room + _DATA.size
        told = []
        for base in libraries(maps, _WAIT_BY_IT):
            for name, at in slots(self._read_at, base, _TRUE).items():
                (before,) = struct.unpack("<Q", self._read_at(at, 8))
                if not executable(maps, before):
                    return  # it is being loaded
                told.append((at, before, code + _TRUE[name]))
        self._write(self._image.room + _DATA.size + len(_CODE), b"".join(_SPARED.pack(at, before) for at, before, _ in told) + bytes(8))
        for at, _, true in told:
            self._write_at(at, struct.pack("<Q", true))

    def _spared(self) -> list[tuple[int, int]]:
        table = self._read(self._image.room + _DATA.size + len(_CODE), _SPARED.size * len(_TRUE))
        return [(at, before) for at, before in _SPARED.iter_unpack(table) if at]

    def is_skewed(self) -> bool:
        """Whether its entries lead to our code."""
        return self._is_64_bit and self._entries() == self._jumps()

    def skew(self, skew: Skew) -> None:
        """Gives it another time; in one that has another time already only how it differs is changed.

        Raises CapabilityError for a process whose clock is none that we know.
        """
        if self.is_skewed():
            self._write(self._image.room, skew.head(self._image.begins))
            return
        if self.is_strange():
            raise CapabilityError(f"the clock of {self.name} can't be skewed: it is no ordinary 64-bit program")
        self._write(self._image.room, skew.head(self._image.begins) + _CODE + bytes(_SPARED.size * len(_TRUE)))
        self.spare()
        self._lead(self._jumps())

    def right(self) -> None:
        """Gives it the machine's time again; one that has it is fine."""
        if not self._has_ours():
            return
        begins = _DATA.unpack(self._read(self._image.room, _DATA.size))[5:]
        if self._entries() != list(begins):
            self._write(self._image.room + 8, struct.pack("<Q", 0))
            self._lead(begins)
        for at, before in self._spared():
            self._write_at(at, struct.pack("<Q", before))
        self._write(self._image.room + _DATA.size + len(_CODE), bytes(_SPARED.size * len(_TRUE)))

    def _has_ours(self) -> bool:
        """Whether our code is in it, whether or not its entries, or some of them, lead there."""
        return self._is_64_bit and self._read(self._image.room, len(_MAGIC)) == _MAGIC

    def _entries(self) -> list[bytes]:
        return [self._read(at, _JUMP_BYTES) for at in self._image.entries]

    def _jumps(self) -> list[bytes]:
        """Jumps from the entries to ours."""
        code = self._image.room + _DATA.size
        pairs = zip(self._image.entries, _ENTRIES.values(), self._image.begins, strict=True)
        return [b"\xe9" + struct.pack("<i", code + ours - (at + 5)) + begin[5:] for at, ours, begin in pairs]

    def _lead(self, entries: Sequence[bytes]) -> None:
        """Writes the entries while none of its threads is between their first bytes."""
        for _ in range(_TRIES):
            if while_standing(self._pid, lambda: self._replace(entries), _STOP_S):
                return
            time.sleep(0)
        raise ResourceError(f"{self.name} reads its clock all the time")

    def _replace(self, entries: Sequence[bytes]) -> bool:
        if any(at < place - self._start < at + _JUMP_BYTES for place in self._places() for at in self._image.entries):
            return False
        for at, code in zip(self._image.entries, entries, strict=True):
            self._write(at, code)
        return True

    def _places(self) -> list[int]:
        """Where each of its threads is in the program."""
        told = [(task / "syscall").read_text().split() for task in Path(f"/proc/{self._pid}/task").iterdir()]
        return [int(words[-1], 16) for words in told if len(words) > 1]

    def _read(self, at: int, size: int) -> bytes:
        return self._read_at(self._start + at, size)

    def _write(self, at: int, data: bytes) -> None:
        self._write_at(self._start + at, data)

    def _read_at(self, at: int, size: int) -> bytes:
        with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:  # noqa: PTH123
            return os.pread(memory.fileno(), size, at)

    def _write_at(self, at: int, data: bytes) -> None:
        with open(f"/proc/{self._pid}/mem", "r+b", buffering=0) as memory:  # noqa: PTH123
            os.pwrite(memory.fileno(), data, at)


def _name(pid: int) -> str:
    try:
        return f"the process {pid} ({Path(f'/proc/{pid}/exe').readlink().name})"
    except OSError:
        return f"the process {pid}"
