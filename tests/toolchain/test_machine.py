from __future__ import annotations

import re
import subprocess
import sys

import pytest

from envctl.toolchain.machine import Signs, attempt, diagnose, machine_problems

FORBIDDEN_INSIDE = """
echo 0 > /proc/sys/user/max_user_namespaces
exec "$0" -c 'from envctl.toolchain.machine import machine_problems; print(*machine_problems())'
"""

FILTER_UNSHARE = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 272, "aarch64": 97}[__import__("platform").machine()]
load, jump_if_equal, answer = 0x20, 0x15, 0x06
steps = [(load, 0, 0, 0), (jump_if_equal, 0, 1, number), (answer, 0, 0, 0x00050001), (answer, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("program", ctypes.c_void_p)]
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps), ctypes.addressof(program)))) == 0, ctypes.get_errno()
from envctl.toolchain.machine import machine_problems
print(*machine_problems())
"""


@pytest.mark.parametrize(
    ("signs", "what", "step"),
    [
        (Signs("no", max_user_namespaces=0), "no user namespaces", "user.max_user_namespaces="),
        (Signs("no", unprivileged_userns_clone=0), "ordinary users", "kernel.unprivileged_userns_clone=1"),
        (Signs("no", apparmor_restrict_unprivileged_userns=1), "AppArmor", "kernel.apparmor_restrict_unprivileged_userns=0"),
        (Signs("mount /proc: no", container=True), "container may not.*mount /proc: no", "systempaths=unconfined"),
        (Signs("no", seccomp=2), "filtered", "seccomp=unconfined"),
        (Signs("out of space", max_user_namespaces=9, unprivileged_userns_clone=1), "out of space", "unshare"),
        (Signs("no", max_user_namespaces=0, container=True), "no user namespaces", "user.max_user_namespaces="),
    ],
)
def test_each_cause_is_named_with_the_one_step_that_lifts_it(signs: Signs, what: str, step: str) -> None:
    lack = diagnose(signs)
    assert step in lack.step
    assert re.search(what, lack.what)


def test_another_system_than_linux_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    (lack,) = machine_problems()
    assert "this is darwin" in lack.what


@pytest.mark.cell
def test_a_machine_that_can_hold_environments_has_no_problem() -> None:
    assert machine_problems() == ()


@pytest.mark.cell
def test_a_command_that_fails_in_new_namespaces_gives_its_error() -> None:
    assert attempt(("sh", "-c", "echo refused >&2; exit 1")) == "refused"
    assert attempt(("false",)) == "status 1"


@pytest.mark.cell
def test_a_kernel_that_allows_no_more_namespaces_is_recognised() -> None:
    inside = ["unshare", "--user", "--map-root-user", "sh", "-c", FORBIDDEN_INSIDE, sys.executable]
    done = subprocess.run(inside, capture_output=True, text=True, check=True)
    assert "this kernel allows no user namespaces: sudo sysctl -w" in done.stdout


@pytest.mark.cell
def test_filtered_system_calls_are_recognised() -> None:
    done = subprocess.run([sys.executable, "-c", FILTER_UNSHARE], capture_output=True, text=True, check=True)
    assert "its system calls are filtered" in done.stdout
    assert "Operation not permitted" in done.stdout
