"""Each verb on a file that is closed meanwhile, or becomes another, or has O_NONBLOCK."""

from __future__ import annotations

import errno
import os
import signal
from typing import Any

import pytest

from iocancel import CancelScope

from .helpers import SHORT, Thread, meanwhile, whole
from .verbs_stage import filed as filed
from .verbs_stage import goes_on
from .verbs_stage import nonblocking as nonblocking

# Files that go


def test_its_fd_is_closed_meanwhile(filed: Any) -> None:
    inside = CancelScope()
    gone = []

    def run() -> None:
        with inside:
            try:
                filed.call()
            except OSError as error:
                gone.append(error.errno)
            else:
                raise AssertionError("nothing ended it")

    thread = Thread(run)
    thread.until_blocked()
    filed.runs()
    os.close(filed.fd)
    inside.cancel()
    thread.join()
    # Where nothing tells of the end, libaio's engine tries again now and then, and looks the number up.
    assert inside.cancelled_caught if not gone else (filed.pool.name, gone) == ("libaio", [errno.EBADF])
    whole()


def reused(case: Any, thread: Thread) -> None:
    number, alone = case.other()
    keep = case.own(os.dup(number))
    old = case.own(os.dup(case.fd))
    os.dup2(number, case.fd, inheritable=False)
    case.ready()
    value, error = None, None
    try:
        value = thread.join()
    except OSError as caught:
        error = caught
    assert alone(), "the other file was touched"
    os.dup2(old, case.fd, inheritable=False)
    os.close(old)
    os.close(keep)
    if error is None:
        assert case.right(value)
    else:  # libaio looks the number up again
        assert case.pool.name == "libaio"
        assert error.errno == errno.EBADF
    whole()


def test_its_fd_is_another_files_meanwhile(filed: Any) -> None:
    thread = Thread(filed.call)
    thread.until_blocked()
    filed.runs()
    reused(filed, thread)


def test_its_nonblocking_fd_is_another_files_meanwhile(nonblocking: Any) -> None:
    thread = Thread(nonblocking.call)
    thread.until_blocked()
    reused(nonblocking, thread)


# O_NONBLOCK


def test_a_nonblocking_file_is_waited_for_all_the_same(nonblocking: Any) -> None:
    thread = Thread(nonblocking.call)
    thread.until_blocked()
    nonblocking.ready()
    assert nonblocking.right(thread.join())
    assert not os.get_blocking(nonblocking.fd)
    with pytest.raises(TimeoutError):
        nonblocking.call(timeout=SHORT)
    with CancelScope() as inside, meanwhile(inside.cancel):
        nonblocking.call()
    assert inside.cancelled_caught
    with (
        pytest.raises(KeyboardInterrupt) as caught,
        meanwhile(lambda: signal.raise_signal(signal.SIGINT)),
    ):
        nonblocking.call()
    assert not hasattr(caught.value, "operation")
    goes_on(nonblocking)
