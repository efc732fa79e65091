"""aio_cancel: its answers, and what they mean for the operations and their memory."""

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Callable

import pytest

from iocancel import errors
from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb, CancelStatus

from ..support import GUEST

Pipe = Callable[[], tuple[int, int]]


def readers(read: int, count: int) -> list[Aiocb]:
    blocks = [Aiocb(read, bytearray(1)) for _ in range(count)]
    for block in blocks:
        aio.aio_read(block)
    return blocks


def test_one_that_is_queued(pipe: Pipe) -> None:
    read, write = pipe()
    first, second, third = readers(read, 3)
    assert aio.aio_cancel(read, second) is CancelStatus.CANCELED
    assert aio.aio_error(second) == errno.ECANCELED
    for _ in range(2):  # it can be asked again
        with pytest.raises(errors.OperationCancelled, match="aio_return") as e:
            aio.aio_return(second)
        assert e.value.errno == errno.ECANCELED
    second.buf.append(1)
    assert aio.aio_cancel(read, second) is CancelStatus.ALLDONE  # cancelled before
    os.write(write, b"ab")
    assert aio.aio_suspend([first], 60)
    assert aio.aio_suspend([third], 60)
    # musl runs them side by side, so that either may get either byte.
    assert sorted(bytes(first.buf + third.buf)) == sorted(b"ab")


def test_one_that_runs_is_not_interrupted_by_glibc(
    pipe: Pipe, glibc: bool, blocked_on: Callable[[int], None]
) -> None:
    read, write = pipe()
    (block,) = readers(read, 1)
    blocked_on(read)
    if glibc:
        assert aio.aio_cancel(read, block) is CancelStatus.NOTCANCELED
        assert aio.aio_cancel(read) is CancelStatus.NOTCANCELED
        assert aio.aio_error(block) == errno.EINPROGRESS
        os.write(write, b"x")
        assert aio.aio_suspend([block], 60)
        assert (aio.aio_return(block), block.buf) == (1, b"x")
    else:
        assert aio.aio_cancel(read, block) is CancelStatus.CANCELED
        assert aio.aio_error(block) == errno.ECANCELED
        os.write(write, b"x")
        assert os.read(read, 2) == b"x"


def test_the_first_one_of_a_process_runs_at_once(fresh: Callable[..., str], glibc: bool) -> None:
    out = fresh("""
        r, w = os.pipe()
        block = Aiocb(r, bytearray(3))
        aio_read(block)
        print(aio_cancel(r, block).name, errno.errorcode[aio_error(block)])
        os.write(w, b"abc")
        aio_suspend([block])
        print(errno.errorcode.get(aio_error(block), "done"), bytes(block.buf))
    """)
    # In glibc a new thread has it from the start; musl cancels it, and the bytes stay in the pipe.
    assert out.splitlines() == (
        ["NOTCANCELED EINPROGRESS", "done b'abc'"]
        if glibc
        else ["CANCELED ECANCELED", "ECANCELED b'\\x00\\x00\\x00'"]
    )


def test_all_of_a_descriptor(pipe: Pipe) -> None:
    read, write = pipe()
    first, second, third = readers(read, 3)
    status = aio.aio_cancel(read)
    assert (aio.aio_error(second), aio.aio_error(third)) == (errno.ECANCELED, errno.ECANCELED)
    if status is CancelStatus.NOTCANCELED:  # the first one runs (glibc): its result is still delivered
        assert aio.aio_error(first) == errno.EINPROGRESS
        os.write(write, b"x")
        assert aio.aio_suspend([first], 60)
        assert (aio.aio_return(first), first.buf) == (1, b"x")
    else:  # no thread had it yet, or musl, which interrupts
        assert status is CancelStatus.CANCELED
        assert aio.aio_error(first) == errno.ECANCELED


def test_nothing_to_cancel(pipe: Pipe) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1))
    assert aio.aio_cancel(read) is CancelStatus.ALLDONE
    assert aio.aio_cancel(read, block) is CancelStatus.ALLDONE  # never started
    os.write(write, b"x")
    aio.aio_read(block)
    assert aio.aio_suspend([block], 60)
    assert aio.aio_cancel(read, block) is CancelStatus.ALLDONE
    assert aio.aio_cancel(read) is CancelStatus.ALLDONE
    assert aio.aio_return(block) == 1


def test_another_descriptor(pipe: Pipe) -> None:
    read, write = pipe()
    block = Aiocb(read, bytearray(1))

    def refused() -> None:
        with pytest.raises(OSError, match=r"Invalid argument: aio_cancel\(fd \d+, aio_.*pass the one") as e:
            aio.aio_cancel(write, block)
        assert e.value.errno == errno.EINVAL

    refused()  # never started
    aio.aio_read(block)
    refused()  # in progress
    os.write(write, b"x")
    assert aio.aio_suspend([block], 60)
    refused()  # done


def test_a_closed_descriptor(pipe: Pipe, glibc: bool, blocked_on: Callable[[int], None]) -> None:
    read, write = pipe()
    first, second = readers(read, 2)
    blocked_on(read)
    extra = os.dup(read)  # the same pipe by another number
    os.close(read)
    if not glibc:  # musl's close() cancels all that is in progress on the number
        assert aio.aio_suspend([first], 60)
        assert aio.aio_suspend([second], 60)
        assert {aio.aio_error(first), aio.aio_error(second)} == {errno.ECANCELED}
    else:
        with pytest.raises(OSError, match=r"Bad file descriptor: aio_cancel\(fd \d+") as e:
            aio.aio_cancel(read, second)
        assert e.value.errno == errno.EBADF
        with pytest.raises(OSError, match="open again"):
            aio.aio_cancel(read)
        assert aio.aio_error(second) == errno.EINPROGRESS  # queued for a number that is not open
        os.dup2(extra, read)
        assert aio.aio_cancel(read, second) is CancelStatus.CANCELED
    os.write(write, b"x")
    assert aio.aio_suspend([first], 60)
    os.close(extra)


def test_a_new_file_of_the_same_number_waits_behind_the_old_one(
    pipe: Pipe, glibc: bool, blocked_on: Callable[[int], None]
) -> None:
    read, write = pipe()
    (block,) = readers(read, 1)
    blocked_on(read)
    keep = os.dup(read)
    other, feed = pipe()
    os.write(feed, b"new")
    os.dup2(other, read)  # closes the number, and opens it as the other pipe
    later = Aiocb(read, bytearray(3))
    aio.aio_read(later)
    if glibc:
        assert not aio.aio_suspend([later], 0)  # though its file is ready
        assert aio.aio_error(block) == errno.EINPROGRESS  # and the old one is not ended by the close
    os.write(write, b"x")
    assert aio.aio_suspend([later], 60)
    assert (aio.aio_return(later), later.buf) == (3, b"new")
    assert aio.aio_suspend([block], 60)
    if aio.aio_error(block) == 0:
        assert block.buf == b"x"  # from the old file
    else:  # musl's dup2, as its close, may cancel it
        assert aio.aio_error(block) == errno.ECANCELED
    os.close(keep)


def test_duplicates_have_queues_of_their_own(pipe: Pipe) -> None:
    read, write = pipe()
    extra = os.dup(read)
    (first,) = readers(read, 1)
    (other,) = readers(extra, 1)
    assert aio.aio_cancel(extra) in (CancelStatus.CANCELED, CancelStatus.NOTCANCELED)
    assert aio.aio_error(first) == errno.EINPROGRESS  # another number: untouched
    os.write(write, b"ab")
    assert aio.aio_suspend([first], 60)
    assert aio.aio_suspend([other], 60)
    os.close(extra)


def test_a_signal_is_sent_before_it_returns(pipe: Pipe) -> None:
    read, write = pipe()
    (first,) = readers(read, 1)  # in front of it, so that it is queued
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        block = Aiocb(read, bytearray(1), sigevent=aio.SigEvent.signal(signal.SIGUSR1, 5))
        aio.aio_read(block)
        assert aio.aio_cancel(read, block) is CancelStatus.CANCELED
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)
    os.write(write, b"x")
    assert aio.aio_suspend([first], 60)


def test_forty_blocked_pipes(fresh: Callable[..., str], glibc: bool) -> None:
    out = fresh("""
        pipes = [os.pipe() for _ in range(40)]
        blocks = [Aiocb(r, bytearray(1)) for r, _ in pipes]
        for block in blocks:
            aio_read(block)
        answers = [aio_cancel(r, b).name for (r, _), b in zip(pipes, blocks)]
        print(answers.count("NOTCANCELED"), answers.count("CANCELED"))
        for _, w in pipes:
            os.write(w, b"x")
        for block in blocks:
            aio_suspend([block])
        print([aio_error(b) for b in blocks].count(errno.ECANCELED), in_progress())
    """)
    # glibc has twenty threads, and interrupts none; musl has forty, and interrupts all.
    assert out.split() == (["20", "20", "20", "0"] if glibc else ["0", "40", "40", "0"])


def test_cancelling_a_queued_head_strands_its_successor(fresh: Callable[..., str], glibc: bool) -> None:
    out = fresh(
        """
        if GLIBC:
            aio_init(threads=1)
        busy, feed = os.pipe()
        r, w = os.pipe()
        blocker = Aiocb(busy, bytearray(1))
        aio_read(blocker)
        head, next_ = Aiocb(r, bytearray(1)), Aiocb(r, bytearray(1))
        aio_read(head), aio_read(next_)
        print(aio_cancel(r, head).name)
        os.write(w, b"abcdef")      # there is data for it,
        os.write(feed, b"x")
        aio_suspend([blocker])      # and a thread,
        aio_read(blocker), os.write(feed, b"x"), aio_suspend([blocker])   # which serves others
        done = aio_suspend([next_], 0 if GLIBC else 60)
        if done:                    # musl, or a glibc without the bug
            print("done")
        else:
            later = Aiocb(r, bytearray(1))
            aio_read(later)         # stuck behind it
            assert not aio_suspend([next_, later], 0.2)
            try:
                next_.buf.append(1)
            except BufferError:
                pass                # its memory is kept as long as it hangs there
            else:
                sys.exit("resized")
            print("stranded", aio_cancel(r).name, aio_error(next_) == aio_error(later) == errno.ECANCELED)
        aio_read(head), aio_suspend([head])     # the number can be used again
        print(aio_return(head), in_progress())
    """.replace("GLIBC", str(glibc))
    )
    lines = out.splitlines()
    assert lines[0] == "CANCELED"
    assert lines[1] in ("stranded CANCELED True", "done")
    assert lines[2] == "1 0"


def test_races_with_the_data(pipe: Pipe) -> None:
    read, write = pipe()
    start = threading.Barrier(2)
    rounds = 20 if GUEST else 300

    def feed() -> None:
        for _ in range(rounds):
            start.wait()
            os.write(write, b"x")
            start.wait()

    thread = threading.Thread(target=feed)
    thread.start()
    for _ in range(rounds):
        block = Aiocb(read, bytearray(1))
        aio.aio_read(block)
        start.wait()
        status = aio.aio_cancel(read, block)
        start.wait()
        assert aio.aio_suspend([block], 60)
        if status is CancelStatus.CANCELED:  # did not happen: the byte is still there
            assert aio.aio_error(block) == errno.ECANCELED
            assert os.read(read, 2) == b"x"
        else:  # a success that beats the cancel is delivered
            assert (aio.aio_return(block), block.buf) == (1, b"x")
    thread.join()


@pytest.mark.parametrize("junk", [None, "x", b"x", 1.5, 2**31, -5, 2**70, object()])
def test_no_descriptor(junk: object) -> None:
    with pytest.raises((TypeError, ValueError), match="aio_cancel"):
        aio.aio_cancel(junk)  # type: ignore[arg-type]


@pytest.mark.parametrize("junk", [3, "x", object(), []])
def test_no_control_block(junk: object) -> None:
    with pytest.raises(TypeError, match="Aiocb"):
        aio.aio_cancel(0, junk)  # type: ignore[arg-type]


def test_minus_one_is_not_open(glibc: bool) -> None:
    if not glibc:  # musl 1.2.3 does not look
        with contextlib.suppress(OSError):
            assert aio.aio_cancel(-1) is CancelStatus.ALLDONE
        return
    with pytest.raises(OSError, match="not open") as e:
        aio.aio_cancel(-1)
    assert e.value.errno == errno.EBADF
