"""What goes wrong around a ring, or its end: no fd left, nothing taken, nobody who asked."""

from __future__ import annotations

import select
import subprocess
import time
from array import array
from collections.abc import Callable

import pytest

from iocancel.uring import (
    Features,
    Opcode,
    Ring,
    SetupFlags,
    SqeFlags,
)

from ..support import BOUND, need, open_fds, python
from .conftest import make_ring
from .helpers import Asked, need_op
from .stage import PATIENCE

SILENT = SqeFlags.CQE_SKIP_SUCCESS
Run = Callable[[str], subprocess.CompletedProcess[str]]
NO_FD_LEFT = """
import errno, resource

def use_up_fds():
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    hold = []
    try:
        while True:
            hold.append(os.dup(0))
    except OSError as error:
        assert error.errno == errno.EMFILE
    return hold
"""


def need_silent(ring: Ring) -> None:
    need(ring.features & Features.CQE_SKIP, "CQE_SKIP_SUCCESS needs Linux 5.17")


def quickly_closed(ring: Ring) -> None:
    before = time.monotonic()
    ring.close(PATIENCE)
    assert time.monotonic() - before < PATIENCE / 2


def test_closing_with_no_fd_left_keeps_what_the_kernel_uses(run: Run) -> None:
    run(
        NO_FD_LEFT
        + """
from iocancel import _lifetime
ring = Ring(8)
if ring.features & Features.CQE_SKIP:
    read_end, write_end = os.pipe()
    buffer = bytearray(64)
    sqe = ring.get_sqe()
    sqe.prep_read(read_end, buffer)
    sqe.flags = SqeFlags.CQE_SKIP_SUCCESS
    ring.submit()
    os.dup(ring.fileno())  # so it is not ended by the last close
    hold = use_up_fds()
    ring.close(0.01)
    assert ring.closed
    assert _lifetime.kept() == 1
    del ring, sqe
    try:
        buffer.append(0)
    except BufferError:
        pass
    else:
        raise AssertionError("what the kernel reads into was resized")
else:
    ring.close()
"""
    )


def test_keeping_something_for_ever_needs_no_fd(run: Run) -> None:
    run(
        NO_FD_LEFT
        + """
from iocancel import _lifetime
hold = use_up_fds()
_lifetime.keep_forever(bytearray(8))
assert _lifetime.kept() == 1
"""
    )


def test_wait_brings_what_there_is_with_no_fd_left(run: Run) -> None:
    run(
        NO_FD_LEFT
        + f"""
ring = Ring(8)
refused = ring.get_sqe()
refused.user_data, refused.personality = 1, 99
refused.prep_cancel64(1)
ring.submit()
ring.get_sqe().user_data = 2
ring.submit()
hold = use_up_fds()
told = ring.wait(2, {BOUND})
assert sorted((cqe.user_data, cqe.res) for cqe in told) == [(1, -errno.EINVAL), (2, 0)], told
ring.close()
"""
    )


@pytest.mark.parametrize("how", ["behind an invalid one", "in a disabled ring"])
def test_what_the_kernel_never_took_is_not_done_by_close(how: str, pipe: tuple[int, int]) -> None:
    disabled = how == "in a disabled ring"
    ring = make_ring(8, SetupFlags.R_DISABLED if disabled else 0, None)
    if not disabled:
        ring.get_sqe().personality = 77
    ring.get_sqe().prep_write(pipe[1], b"x")
    if disabled:
        with pytest.raises(OSError):
            ring.submit()
    else:
        ring.submit()
    ring.close()
    poll = select.poll()
    poll.register(pipe[0], select.POLLIN)
    assert not poll.poll(0)


def test_pipes_that_nobody_asked_for_are_closed_though_they_share_a_number(asked: Asked) -> None:
    ring = asked.ring
    need_op(ring, Opcode.PIPE)
    before = set(open_fds())
    for _ in range(2):
        asked.put(1, "pipe", array("i", [0, 0]))
    ring.submit_and_wait(2, BOUND)
    at = str(ring.fileno())
    ring.close()
    assert set(open_fds()) == before - {at}


def test_the_interpreter_ends_while_a_daemon_waits_in_a_single_issuers_ring() -> None:
    make_ring(4, SetupFlags.SINGLE_ISSUER, None).close()
    # On 6.1 and 6.12 the closing wakes the daemon, which is told that the ring is closed; a traceback printed
    # while the interpreter ends may abort it.
    program = """
import contextlib, threading
from iocancel.uring import Ring, SetupFlags
rings = []
def wait():
    rings.append(Ring(8, flags=SetupFlags.SINGLE_ISSUER))
    with contextlib.suppress(ValueError):
        rings[0].wait()
threading.Thread(target=wait, daemon=True).start()
while not rings or not rings[0]._reaper:
    pass
"""
    done = python(program, "-W", "ignore")
    assert (done.returncode, done.stderr) == (0, "")


def test_closing_is_quick_behind_a_silent_chain_whose_head_failed(pipe: tuple[int, int]) -> None:
    with Ring(1) as ring:
        need_silent(ring)
    ring = Ring(8)
    sqe = ring.get_sqe()
    sqe.user_data, sqe.flags = 1, SqeFlags.IO_LINK | SILENT
    sqe.prep_read(1 << 20, bytearray(1))
    sqe = ring.get_sqe()
    sqe.user_data = 2
    sqe.prep_read(pipe[0], bytearray(8))
    ring.submit()
    quickly_closed(ring)
