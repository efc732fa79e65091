"""Rings that are forgotten, that outlive the interpreter, and that a forked child has."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import warnings
from typing import Any

import pytest

from iocancel import _lifetime, errors
from iocancel.uring import Ring, SetupFlags

from ..support import BOUND, python
from .helpers import pending_read


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return python(textwrap.dedent(code), "-X", "faulthandler", "-W", "default")


@pytest.mark.leak
def test_a_ring_that_is_forgotten_warns_and_is_closed(pipe: tuple[int, int]) -> None:
    ring = Ring(4)
    buffer = pending_read(ring, pipe[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del ring
        gc.collect()
    [warning] = [w for w in caught if "unclosed <Ring" in str(w.message)]
    assert warning.category is ResourceWarning
    buffer.append(0)


def test_a_warning_that_is_an_error_does_not_keep_the_ring_open(pipe: tuple[int, int]) -> None:
    ring = Ring(4)
    buffer = pending_read(ring, pipe[0])
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        seen: list[Any] = []
        patch.setattr(sys, "unraisablehook", seen.append)
        del ring
        gc.collect()
    assert len(seen) == 1
    buffer.append(0)


def test_a_single_issuers_ring_collected_in_another_thread_keeps_its_memory() -> None:
    try:
        ring = Ring(4, flags=SetupFlags.SINGLE_ISSUER)
    except errors.FeatureUnavailable as error:
        pytest.skip(str(error))
    read_end, write_end = os.pipe()
    kept = _lifetime.kept()
    buffer = pending_read(ring, read_end)
    holder = [ring]
    del ring

    def drop() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            holder.clear()
            gc.collect()

    thread = threading.Thread(target=drop)
    thread.start()
    thread.join(BOUND)
    assert _lifetime.kept() == kept + 1
    with pytest.raises(BufferError):
        buffer.append(0)
    _lifetime._kept.pop()
    os.close(read_end)
    os.close(write_end)


def test_leaving_the_interpreter_with_requests_in_flight() -> None:
    done = run_python(
        """
        import os, socket
        from iocancel.uring import Ring, SqeFlags
        r, w = os.pipe()
        keep = []
        for flags in (0, SqeFlags.ASYNC):
            ring = Ring(8)
            keep.append(ring)
            for _ in range(5):
                sqe = ring.get_sqe()
                sqe.prep_read(r, bytearray(4096))
                sqe.flags = flags
            ring.submit()
        import atexit
        print("leaving")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "leaving\n"
    assert done.stderr.count("ResourceWarning: unclosed <Ring") == 2
    assert "Traceback" not in done.stderr


def test_leaving_with_what_does_not_end() -> None:
    done = run_python(
        """
        import os
        from iocancel import _lifetime
        from iocancel.uring import Ring, limbo
        Ring._cancel_all = lambda *_: False
        limbo.sweep = lambda: len(limbo._waiting)  # the barrier never hangs up
        read_end, write_end = os.pipe()
        ring = Ring(8)
        sqe = ring.get_sqe()
        sqe.prep_read(read_end, bytearray(4096))
        ring.submit()
        limbo.keep(os.dup(read_end), bytearray(4096))
        limbo._at_exit()
        assert _lifetime.kept() == 1
        """
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_a_forked_child_can_do_nothing_to_its_parents_ring(pipe: tuple[int, int]) -> None:
    ring = Ring(8)
    buffer = pending_read(ring, pipe[0])
    group = ring.prep_nop_many
    number = ring.fileno()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of forks with threads
        pid = os.fork()
    if not pid:
        status = 1
        try:
            for call in (ring.submit, ring.wait, ring.get_sqe, ring.fileno, lambda: group([1])):
                try:
                    call()
                except RuntimeError as error:
                    if "parent" not in str(error):
                        os._exit(5)
                else:
                    os._exit(2)
            ring.close()
            ring.close()
            try:
                os.fstat(number)
                status = 3
            except OSError:
                status = 0
            del ring
            gc.collect()
            with Ring(4) as mine:  # one of its own works
                mine.get_sqe()
                mine.submit_and_wait(1, BOUND)
        except BaseException:  # noqa: BLE001 - the child must not return into pytest
            status = status or 4
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    os.write(pipe[1], b"parent")
    [cqe] = ring.wait(1, BOUND)
    assert cqe.res == 6
    assert buffer[:6] == b"parent"
    ring.close()


def test_after_a_fork_that_python_does_not_see_the_child_keeps_off() -> None:
    done = run_python(
        """
        import ctypes, gc, os
        from iocancel.uring import Ring
        libc = ctypes.CDLL(None)
        r, w = os.pipe()
        ring = Ring(8)
        sqe = ring.get_sqe()
        sqe.prep_read(r, bytearray(16))
        sqe.user_data = 1
        ring.submit()
        pid = libc.fork()
        if not pid:
            for call in (ring.submit, ring.wait, ring.peek, ring.probe, ring.register_sync_cancel):
                try:
                    call()
                except RuntimeError as error:
                    assert "parent" in str(error)
                else:
                    os._exit(2)
            ring.close()
            del ring
            gc.collect()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        os.write(w, b"x")
        [cqe] = ring.wait(1, 60)
        assert cqe.res == 1
        ring.close()
        """
    )
    assert done.returncode == 0, done.stderr
