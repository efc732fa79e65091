"""facts.md 7, 9.7: where no ring is to be had, and that the exception says why and what helps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import FeatureUnavailable
from iocancel.uring import Ring, SetupFlags

from ..support import GUEST, need

Run = Callable[[str], subprocess.CompletedProcess[str]]

UNPRIVILEGED = """
import resource, time
from iocancel import EngineUnavailable
def become_nobody(limit, uid=54321):
    cancel_flags()  # what is loaded and found out once must not be in the way
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
def refusal(*args, **named):
    try:
        Ring(*args, **named).close()
    except EngineUnavailable as error:
        return error
    return None
"""

# A seccomp filter that answers one system call with an errno: load its number; is it this one?; deny; allow.
SECCOMP = """
import ctypes, struct
from iocancel import EngineUnavailable
def deny(number, errno):
    code = struct.pack("HBBI", 0x20, 0, 0, 0) + struct.pack("HBBI", 0x15, 0, 1, number)
    code += struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | errno) + struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
    program, prctl = Program(4, code), ctypes.CDLL(None, use_errno=True).prctl
    assert prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    if prctl(22, 2, ctypes.byref(program), 0, 0):  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        print("no seccomp")
        sys.exit()
"""


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    said = done.stdout.splitlines()
    need("no seccomp" not in said, "this kernel has no seccomp filters")
    return said


@pytest.mark.parametrize(("errno", "word"), [(1, "forbidden"), (38, "no io_uring")])
def test_seccomp_that_forbids_rings(run: Run, errno: int, word: str) -> None:
    done = run(
        f"""{SECCOMP}
deny(425, {errno})
for call in (Ring, cancel_flags):
    try:
        call()
    except EngineUnavailable as error:
        print(error.errno, error.reason, "|", error.remedy, "|", error)
"""
    )
    said = lines(done)
    assert len(said) == 2
    for line in said:
        assert line.startswith(f"{errno} ")
        assert word in line
        assert "seccomp" in line
        assert "io_uring_setup" in line


@pytest.mark.parametrize("errno", [1, 38])
def test_seccomp_on_rings_that_are_there(run: Run, errno: int) -> None:
    """The filter stands before them, too; an exception for each call, and close() gets through."""
    done = run(
        f"""{SECCOMP}
ring = Ring(8)
deny(426, {errno})
ring.get_sqe()
try:
    ring.submit()
except OSError as error:
    print(error.errno)
ring.close()
print(ring.closed)
"""
    )
    assert lines(done) == [str(errno), "True"]


def test_seccomp_on_register(run: Run) -> None:
    done = run(
        f"""{SECCOMP}
ring = Ring(8)
cancel_flags()
deny(427, 1)
for call in (ring.probe, lambda: ring.register_files([0]), lambda: ring.register_sync_cancel(1)):
    try:
        call()
    except OSError as error:
        print(error.errno)
ring.close()
"""
    )
    # Synchronous cancels are asked for first, and then said to be missing, where the filter hides them.
    assert lines(done) in (["1", "1", "1"], ["1", "1", "22"])


def test_no_memory_lock_at_all(run: Run) -> None:
    done = run(
        f"""{UNPRIVILEGED}
become_nobody(0)
error = refusal(8)
print(error.errno if error else "taken")
if error:
    print(error.reason, "|", error.remedy)
"""
    )
    said = done.stdout.splitlines()
    if said == ["taken"]:  # 5.10 to 6.12 don't count a ring's memory (facts 7, 9.7)
        return
    assert said[0] == "12"
    assert "RLIMIT_MEMLOCK is 0 bytes" in said[1]
    assert "ulimit -l" in said[1]


def test_64_kib_of_memory_lock(run: Run) -> None:
    """Some eight-entry rings fit on 6.18, any number elsewhere; registered buffers count everywhere."""
    done = run(
        f"""{UNPRIVILEGED}
become_nobody(65536)
ring = Ring(8)
error = refusal(4096)
print(error.errno if error else "taken")
try:
    ring.register_buffers([bytearray(1 << 20)])
except OSError as error:
    print(error.errno)
ring.close()
"""
    )
    ring, buffers = done.stdout.split()
    assert ring in ("taken", "12")
    assert buffers == "12"


def test_rings_one_after_the_other_within_64_kib(run: Run) -> None:
    """What a closed ring held is given back late (facts 7): setting up tries again, and gets it."""
    done = run(
        f"""{UNPRIVILEGED}
become_nobody(65536)
for number in range(40):
    Ring(8).close()
print("all")
"""
    )
    assert done.stdout == "all\n"


def test_no_fd_is_left(run: Run) -> None:
    done = run(
        """
import resource
from iocancel import EngineUnavailable
cancel_flags()
probe = os.dup(0)
os.close(probe)
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (probe, hard))
try:
    Ring(8)
except EngineUnavailable as error:
    print(error.errno, error.reason, error.remedy)
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
Ring(8).close()
"""
    )
    assert done.stdout.startswith("24 ")
    assert "RLIMIT_NOFILE" in done.stdout


@pytest.mark.parametrize("entries", [0, -1, 32769, 1 << 31, 1 << 64])
def test_numbers_of_entries_that_no_ring_has(entries: int) -> None:
    with pytest.raises(ValueError, match="entries takes 1 to 32768"):
        Ring(entries)


def test_the_largest_ring() -> None:
    with Ring(32768) as ring:
        assert ring.sq_entries == 32768
        assert ring.cq_entries == 65536
    with Ring(1 << 20, flags=SetupFlags.CLAMP) as ring:
        assert ring.sq_entries == 32768


@pytest.mark.parametrize(("entries", "becomes"), [(1, 1), (3, 4), (5, 8)])
def test_entries_are_rounded_up(entries: int, becomes: int) -> None:
    with Ring(entries) as ring:
        assert (ring.sq_entries, ring.cq_entries) == (becomes, 2 * becomes)


@pytest.mark.parametrize("flags", [1 << 21, 1 << 31])
def test_unknown_set_up_flags(flags: int) -> None:
    with pytest.raises(ValueError, match="SetupFlags does not know"):
        Ring(8, flags=flags)


@pytest.mark.parametrize("flags", [SetupFlags.DEFER_TASKRUN, SetupFlags.TASKRUN_FLAG, SetupFlags.SQ_AFF])
def test_flags_that_need_another(flags: SetupFlags) -> None:
    """-EINVAL from the kernel: no lack of a feature, unless it is one."""
    with pytest.raises(OSError) as caught:
        Ring(8, flags=flags).close()
    assert caught.value.errno == 22
    if isinstance(caught.value, FeatureUnavailable):
        assert caught.value.since in ("6.1", "5.19")


DISABLED = Path("/proc/sys/kernel/io_uring_disabled")


@pytest.mark.parametrize("level", ["1", "2"])
def test_io_uring_disabled(run: Run, level: str) -> None:
    """It is the whole machine's, so only in a guest, which is the tests' own."""
    if not GUEST:
        pytest.skip("kernel.io_uring_disabled is changed only in a guest (IOCANCEL_GUEST=1)")
    need(DISABLED.exists(), "kernel.io_uring_disabled is of Linux 6.6")
    assert os.getuid() == 0
    before = DISABLED.read_text()
    try:
        DISABLED.write_text(level)
        done = run(
            f"""{UNPRIVILEGED}
error = refusal(8)
print(error.errno if error else "taken")
if error:
    print(error.reason, error.remedy)
"""
        )
        assert done.stdout.split()[0] == ("taken" if level == "1" else "1")  # level 1 lets root
        unprivileged = run(f"{UNPRIVILEGED}\nos.setuid(54321)\nerror = refusal(8)\nprint(error.errno, error)")
        assert unprivileged.stdout.startswith("1 ")
        assert f"io_uring_disabled={level}" in unprivileged.stdout
    finally:
        DISABLED.write_text(before)


def test_existing_rings_go_on_working_when_disabled(run: Run) -> None:
    if not GUEST:
        pytest.skip("kernel.io_uring_disabled is changed only in a guest (IOCANCEL_GUEST=1)")
    need(DISABLED.exists(), "kernel.io_uring_disabled is of Linux 6.6")
    before = DISABLED.read_text()
    with Ring(8) as ring:
        try:
            DISABLED.write_text("2")
            ring.get_sqe()
            assert ring.submit() == 1
            assert [cqe.res for cqe in ring.wait(1)] == [0]
            assert ring.register_sync_cancel(1, flags=1) == 0
        finally:
            DISABLED.write_text(before)
