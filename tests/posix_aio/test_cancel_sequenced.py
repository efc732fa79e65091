"""aio_cancel of what waits for a write: musl's would hang for ever, and with it all signals.

Each is in a process of its own: what hangs there can only be killed.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb, CancelStatus

from ..support import GUEST

Fresh = Callable[..., str]


def test_a_write_behind_another(fresh: Fresh, glibc: bool) -> None:
    out = fresh("""
        r, w = os.pipe()
        first, second = Aiocb(w, bytearray(1 << 20)), Aiocb(w, b"behind")
        aio_write(first), aio_write(second)
        print(aio_cancel(w, second).name)
        got = 0
        while got < 1 << 20:
            got += len(os.read(r, 1 << 20))
        aio_suspend([first]), aio_suspend([second])
        print(aio_return(first), errno.errorcode.get(aio_error(second)))
        if not aio_error(second):
            print(os.read(r, 100))
        os.close(w)
        print(os.read(r, 100), in_progress())
    """)
    # glibc has it in its queue; musl can't be asked for it, and it is written.
    assert out.splitlines() == (
        ["CANCELED", "1048576 ECANCELED", "b'' 0"]
        if glibc
        else ["NOTCANCELED", "1048576 None", "b'behind'", "b'' 0"]
    )


def test_all_of_a_descriptor_that_has_two(fresh: Fresh, glibc: bool) -> None:
    out = fresh("""
        import select
        r, w = os.pipe()
        first, second = Aiocb(w, bytearray(1 << 20)), Aiocb(w, b"behind")
        aio_write(first), aio_write(second)
        select.select([r], [], [])  # a thread has the first, and has written what the pipe takes
        print(aio_cancel(w).name)
        parts = []
        while aio_error(first) == errno.EINPROGRESS or aio_error(second) == errno.EINPROGRESS:
            if select.select([r], [], [], 0.1)[0]:
                parts.append(os.read(r, 1 << 20))
        os.close(w)
        parts.append(os.read(r, 1 << 20))
        total = b"".join(parts)
        print(aio_return(first) == len(total) - 6 * total.endswith(b"behind"))
        print(aio_return(first) < 1 << 20, errno.errorcode.get(aio_error(second)), in_progress())
    """)
    # glibc lets the first go on, and has the second in its queue; musl ends the first, of which a part was
    # written, which is its result, and goes on with the second.
    assert out.splitlines() == ["NOTCANCELED", "True", "False ECANCELED 0" if glibc else "True None 0"]


@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_sync_behind_a_write(fresh: Fresh, glibc: bool, all_of_it: bool) -> None:
    out = fresh(
        """
        r, w = os.pipe()
        write, sync = Aiocb(w, bytearray(1 << 20)), Aiocb(w)
        aio_write(write), aio_fsync(os.O_SYNC, sync)
        print(aio_cancel(w, *([] if ALL else [sync])).name)
        while aio_error(write) == errno.EINPROGRESS:
            os.set_blocking(r, False)
            try:
                os.read(r, 1 << 20)
            except BlockingIOError:
                aio_suspend([write], 0.01)
        aio_suspend([sync])
        print(errno.errorcode[aio_error(sync)], in_progress())  # a pipe has nothing to be synced
    """.replace("ALL", str(all_of_it))
    )
    answer, ending = out.splitlines()
    assert answer in (("CANCELED", "NOTCANCELED") if glibc else ("NOTCANCELED",))
    assert ending in (("ECANCELED 0",) if glibc else ("EINVAL 0",))


def test_the_interpreter_ends_with_two(fresh: Fresh) -> None:
    out = fresh(
        """
        r, w = os.pipe()
        blocks = Aiocb(w, bytearray(1 << 20)), Aiocb(w, bytearray(1 << 20))
        for block in blocks:
            aio_write(block)
        print("begun")
        """,
        "-Wdefault",
        stderr="in progress",
    )
    assert out == "begun\n"


def test_an_answer_is_final() -> None:
    """Whom aio_cancel says to be cancelled, or over, has ended, and his memory is free."""
    read, write = os.pipe()
    try:
        for _ in range(20 if GUEST else 200):
            blocks = [Aiocb(read, bytearray(1)) for _ in range(2)]
            for block in blocks:
                aio.aio_read(block)
            status = aio.aio_cancel(read, blocks[1])
            assert status is CancelStatus.CANCELED
            assert aio.aio_error(blocks[1]) == errno.ECANCELED
            blocks[1].buf.append(1)  # not exported any more
            os.write(write, b"x")
            assert aio.aio_suspend([blocks[0]], 60)
            assert aio.aio_return(blocks[0]) == 1
    finally:
        os.close(write)
        os.close(read)


def test_a_regular_file_is_not_waited_for(tmp_path: Path, glibc: bool) -> None:
    """What a disk has in hand nothing can interrupt; musl's aio_cancel would wait for it."""
    with (tmp_path / "file").open("w+b", 0) as file:
        write, sync = Aiocb(file, b"content"), Aiocb(file)
        aio.aio_write(write)
        aio.aio_fsync(os.O_SYNC, sync)
        for block in (sync, write):
            status = aio.aio_cancel(file, block)
            assert aio.aio_suspend([block], 60)
            assert (status is CancelStatus.CANCELED) == (aio.aio_error(block) == errno.ECANCELED)
            assert glibc or status is not CancelStatus.CANCELED
