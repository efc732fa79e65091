"""io_uring: how far waits and what files do can be cancelled here, found out with blocked ones."""

from __future__ import annotations

import array
import os
import select
import subprocess

from iocancel.doctor.live import Live, NotHere, code
from iocancel.doctor.props import direct_file, folder, pipe
from iocancel.doctor.reach import blocked, end, multishot, until_begun
from iocancel.doctor.report import Checks, Seen
from iocancel.doctor.workers import blocked_open, queued_open
from iocancel.uring import SqeFlags, TimeoutFlags

__all__ = ["KINDS"]

KINDS: Checks[Live] = Checks("request")
_LONG = 3600.0  # seconds: it never fires here


@KINDS.add("poll")
def _poll(live: Live) -> Seen:
    with pipe() as (read_end, _):
        return blocked(live, lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))


@KINDS.add("multishot poll", "5.13")
def _poll_multishot(live: Live) -> Seen:
    with pipe() as (read_end, write_end):
        return multishot(
            live,
            lambda sqe: sqe.prep_poll_multishot(read_end, select.POLLIN),
            lambda: os.write(write_end, b"x"),
        )


@KINDS.add("timeout")
def _timeout(live: Live) -> Seen:
    return blocked(live, lambda sqe: sqe.prep_timeout(_LONG))


@KINDS.add("multishot timeout", "6.4")
def _timeout_multishot(live: Live) -> Seen:
    return multishot(live, lambda sqe: sqe.prep_timeout(0.002, 0, TimeoutFlags.MULTISHOT), lambda: None)


@KINDS.add("futex_wait", "6.7")
def _futex(live: Live) -> Seen:
    futex = array.array("I", [0])
    return blocked(live, lambda sqe: sqe.prep_futex_wait(futex, 0))


@KINDS.add("futex_waitv", "6.7")
def _futexes(live: Live) -> Seen:
    futexes = [(array.array("I", [0]), 0), (array.array("I", [0]), 0)]
    return blocked(live, lambda sqe: sqe.prep_futex_waitv(futexes))


@KINDS.add("waitid", "6.7")
def _waitid(live: Live) -> Seen:
    try:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    except OSError as error:
        raise NotHere(f"a child process ({error})") from None
    with child:
        return blocked(live, lambda sqe: sqe.prep_waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT))


@KINDS.add("epoll_wait", "6.15")
def _epoll(live: Live) -> Seen:
    with select.epoll() as epoll:
        return blocked(live, lambda sqe: sqe.prep_epoll_wait(epoll, bytearray(64)))


# Files


@KINDS.add("open (FIFO, IOSQE_ASYNC)")
def _open(live: Live) -> Seen:
    seen: list[Seen] = []

    def cancel(number: int) -> int:
        answer, cqe = live.cancel(number)
        seen.append(end(answer, cqe))
        return answer

    blocked_open(live, cancel)
    return seen[-1]


@KINDS.add("splice (empty pipe)")
def _splice(live: Live) -> Seen:
    with pipe() as (read_end, _), pipe() as (_, write_end):
        return blocked(live, lambda sqe: sqe.prep_splice(read_end, -1, write_end, -1, 8))


@KINDS.add("tee (empty pipe)")
def _tee(live: Live) -> Seen:
    with pipe() as (read_end, _), pipe() as (_, write_end):
        return blocked(live, lambda sqe: sqe.prep_tee(read_end, write_end, 8))


@KINDS.add("read (regular file)")
def _read_file(live: Live) -> Seen:
    with folder() as there:
        (there / "file").write_bytes(b"content")
        with (there / "file").open("rb", 0) as file:

            def attempt() -> Seen:
                return end(*live.cancel(live.start(lambda sqe: sqe.prep_read(file, bytearray(7), 0))), 7)

            return until_begun(attempt)


@KINDS.add("write (regular file)")
def _write_file(live: Live) -> Seen:
    with folder() as there, (there / "file").open("wb", 0) as file:

        def attempt() -> Seen:
            return end(*live.cancel(live.start(lambda sqe: sqe.prep_write(file, b"content", 0))), 7)

        return until_begun(attempt)


@KINDS.add("read (regular file, O_DIRECT)")
def _read_direct(live: Live) -> Seen:
    with direct_file() as (fd, memory):

        def attempt() -> Seen:
            number = live.start(lambda sqe: sqe.prep_read(fd, memory, 0))
            return end(*live.cancel(number), len(memory))

        return until_begun(attempt)


@KINDS.add("any, queued for a worker")
def _queued(live: Live) -> Seen:
    del live  # it has workers already
    answer, cqe, _ = queued_open()
    return end(answer, cqe)


@KINDS.add("any, linked behind another (which is cancelled)")
def _linked(live: Live) -> Seen:
    with pipe() as (read_end, _), folder() as there, (there / "file").open("wb", 0) as file:
        head = live.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN), SqeFlags.IO_LINK)
        write = live.put(lambda sqe: sqe.prep_write(file, b"never", 0))
        live.go()
        itself = live.ask(lambda sqe: sqe.prep_cancel64(write))
        answer, _ = live.cancel(head)
        seen = end(answer, live.final(write), 5)
    return Seen(f"{seen.text}; asked for by itself: {code(itself)}", seen.reach)
