"""io_uring: what the demonstration starts and cancels."""

from __future__ import annotations

import array
import errno
import os
import select
import socket

from iocancel.demo.row import Scenes, Shown, answered, ended
from iocancel.doctor.live import Live, NotHere, code, interrupted
from iocancel.doctor.props import folder, pipe, sockets
from iocancel.doctor.workers import blocked_open, queued_open
from iocancel.uring import CancelFlags, SqeFlags, cancel_flags

__all__ = ["SCENES"]

_LONG = 3600.0  # seconds: a timeout that never fires here
_MANY = 64
SCENES: Scenes[Live] = Scenes()


def _needs(flag: CancelFlags, since: str) -> None:
    if not cancel_flags() & flag:
        raise NotHere(f"Linux {since} (IORING_ASYNC_CANCEL_{flag.name})")


def _gone(answer: int, res: int) -> bool:
    """Whether a cancel and its target's end fit: cancelled while it waited, or interrupted in a worker.

    7.2 says -ENOENT now and then of a request that it has interrupted.
    """
    if interrupted(res):
        return answer >= 0 or answer in (-errno.EALREADY, -errno.ENOENT)
    return res == -errno.ECANCELED and (answer >= 0 or answer == -errno.EALREADY)


@SCENES.add("read of an empty pipe", "by user_data")
def _pipe_read(live: Live) -> Shown:
    with pipe() as (read_end, write_end):
        buffer = bytearray(16)
        number = live.start(lambda sqe: sqe.prep_read(read_end, buffer))
        answer, cqe = live.cancel(number)
        os.write(write_end, b"later")  # nobody may have read it, and nothing may be in the buffer
        kept = os.read(read_end, 16) == b"later" and not any(buffer)
    text = f"{ended(cqe.res)}; later bytes are in the pipe" if kept else "the pipe lost bytes"
    return Shown(answered(answer), text, _gone(answer, cqe.res) and kept)


@SCENES.add("read of a pipe with data in it", "by user_data, too late")
def _beaten(live: Live) -> Shown:
    with pipe() as (read_end, write_end):
        os.write(write_end, b"first")
        buffer = bytearray(16)
        number = live.start(lambda sqe: sqe.prep_read(read_end, buffer))
        live.final(number)
        answer, cqe = live.cancel(number)
    right = answer == -errno.ENOENT and cqe.res == 5 and buffer[:5] == b"first"
    return Shown(answered(answer), ended(cqe.res, "the bytes that came first are delivered"), right)


@SCENES.add("recv on a socket", "by fd (all on it)")
def _recv_by_fd(live: Live) -> Shown:
    _needs(CancelFlags.FD, "5.19")
    with sockets() as (here, _):
        numbers = [live.put(lambda sqe: sqe.prep_recv(here, bytearray(16))) for _ in range(2)]
        live.go()
        answer, cqe = live.cancel(numbers[0], lambda sqe: sqe.prep_cancel_fd(here.fileno(), CancelFlags.ALL))
        results = [cqe.res, live.final(numbers[1]).res]
    return Shown(
        answered(answer), f"both {ended(cqe.res)}", answer == 2 and results == [-errno.ECANCELED] * 2
    )


@SCENES.add("recv of 8 bytes, all (MSG_WAITALL); 3 came", "by user_data")
def _partial(live: Live) -> Shown:
    with sockets() as (here, there):
        buffer = bytearray(8)
        number = live.put(lambda sqe: sqe.prep_recv(here, buffer, socket.MSG_WAITALL))
        there.send(b"one")
        live.go()
        answer, cqe = live.cancel(number)
        if cqe.res == -errno.ECANCELED and any(buffer):
            raise NotHere("a kernel that says what had come: this one took the bytes, and answers -ECANCELED")
    # A kernel that does not wait for all ends it with the 3 bytes, and the cancel finds nothing.
    right = answer in (0, -errno.ENOENT) and cqe.res == 3 and buffer[:3] == b"one"
    return Shown(answered(answer), ended(cqe.res, "the bytes that had come are delivered"), right)


@SCENES.add("accept on a listening socket", "by object")
def _accept(live: Live) -> Shown:
    with socket.create_server(("127.0.0.1", 0)) as server:
        mark = object()
        number = live.start(lambda sqe: sqe.prep_accept(server), data=mark, fd=True)
        answer, cqe = live.cancel(number, lambda sqe: sqe.prep_cancel(mark))
    return Shown(answered(answer), ended(cqe.res), _gone(answer, cqe.res))


@SCENES.add("poll of a pipe", "by poll_remove")
def _poll_remove(live: Live) -> Shown:
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        answer, cqe = live.cancel(number, lambda sqe: sqe.prep_poll_remove(number))
    return Shown(answered(answer), ended(cqe.res), answer == 0 and cqe.res == -errno.ECANCELED)


@SCENES.add("multishot poll, after one event", "by user_data")
def _multishot(live: Live) -> Shown:
    with pipe() as (read_end, write_end):
        number = live.start(lambda sqe: sqe.prep_poll_multishot(read_end, select.POLLIN))
        os.write(write_end, b"x")
        event = live.first(number)
        if event.res < 0:
            event.check()
        answer, cqe = live.cancel(number)
    right = event.res == select.POLLIN and event.more and answer == 0 and cqe.res == -errno.ECANCELED
    return Shown(answered(answer), f"one event, then {code(cqe.res)} without F_MORE", right)


@SCENES.add("64 polls of one pipe", "each by user_data, newest first")
def _many(live: Live) -> Shown:
    with pipe() as (read_end, _):
        numbers = [live.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN)) for _ in range(_MANY)]
        live.go()
        cancels = [live.put(lambda sqe, n=n: sqe.prep_cancel64(n)) for n in reversed(numbers)]  # type: ignore[misc]
        live.go()
        answers = {live.final(number).res for number in cancels}
        results = {live.final(number).res for number in numbers}
    text = f"64 times {ended(min(results))}" if len(results) == 1 else f"{len(results)} different endings"
    return Shown(f"64 times {answered(max(answers))}", text, answers == {0} and results == {-errno.ECANCELED})


@SCENES.add("timeout of an hour", "by timeout_remove")
def _timeout(live: Live) -> Shown:
    number = live.start(lambda sqe: sqe.prep_timeout(_LONG))
    answer, cqe = live.cancel(number, lambda sqe: sqe.prep_timeout_remove(number))
    return Shown(answered(answer), ended(cqe.res), answer == 0 and cqe.res == -errno.ECANCELED)


@SCENES.add("poll of a pipe, linked to a timeout of 10 ms", "by the timeout")
def _link_timeout(live: Live) -> Shown:
    with pipe() as (read_end, _):
        number = live.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN), SqeFlags.IO_LINK)
        limit = live.put(lambda sqe: sqe.prep_link_timeout(0.01))
        live.go()
        fired, cqe = live.final(limit).res, live.final(number)
    # A target that is taken down by a worker makes -EALREADY of the timeout's own result.
    right = fired in (-errno.ETIME, -errno.EALREADY) and cqe.res == -errno.ECANCELED
    return Shown(ended(fired), ended(cqe.res), right)


@SCENES.add("write to a file, queued behind a recv (IO_LINK)", "the recv, by user_data")
def _linked(live: Live) -> Shown:
    with sockets() as (here, _), folder() as there, (there / "file").open("wb", 0) as file:
        head = live.put(lambda sqe: sqe.prep_recv(here, bytearray(16)), SqeFlags.IO_LINK)
        write = live.put(lambda sqe: sqe.prep_write(file, b"never", 0))
        live.go()
        answer, cqe = live.cancel(head)
        behind, size = live.final(write).res, os.fstat(file.fileno()).st_size
    right = _gone(answer, cqe.res) and behind == -errno.ECANCELED and size == 0
    return Shown(answered(answer), f"recv {ended(cqe.res)}; write {ended(behind)}", right)


@SCENES.add("open of a FIFO without a writer, in a worker", "by user_data")
def _open(live: Live) -> Shown:
    seen: list[tuple[int, int]] = []

    def cancel(number: int) -> int:
        answer, cqe = live.cancel(number)
        seen.append((answer, cqe.res))
        return answer

    blocked_open(live, cancel)
    answer, res = seen[-1]
    return Shown(answered(answer), ended(res), all(_gone(*one) for one in seen))


@SCENES.add("open that makes a file, waiting for a worker", "by user_data")
def _queued(live: Live) -> Shown:
    del live  # it has workers already
    answer, cqe, made = queued_open()
    right = answer == 0 and cqe.res == -errno.ECANCELED and not made
    return Shown(answered(answer), f"{ended(cqe.res)}; there is {'a' if made else 'no'} file", right)


@SCENES.add("futex wait", "by user_data")
def _futex(live: Live) -> Shown:
    futex = array.array("I", [0])
    number = live.start(lambda sqe: sqe.prep_futex_wait(futex, 0))
    early = live.early(number)
    if early is not None and early.res == -errno.EINVAL:
        early.check()
    answer, cqe = live.cancel(number)
    if cqe.res == -errno.EINVAL:
        cqe.check()
    text = "1: found and cancelled (for others it is 0)" if answer == 1 else answered(answer)
    return Shown(text, ended(cqe.res), answer in (0, 1) and cqe.res == -errno.ECANCELED)


@SCENES.add("poll of a pipe, waited for by this thread", "synchronously, by another thread")
def _sync(live: Live) -> Shown:
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        answer = live.sync_cancel(number)
        res = live.final(number).res
    return Shown(answered(answer), ended(res), answer == 0 and res == -errno.ECANCELED)


@SCENES.add("poll, recv, accept and timeout together", "everything in the ring (ANY)")
def _any(live: Live) -> Shown:
    _needs(CancelFlags.ANY, "5.19")
    with pipe() as (read_end, _), sockets() as (here, _), socket.create_server(("127.0.0.1", 0)) as server:
        numbers = [
            live.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN)),
            live.put(lambda sqe: sqe.prep_recv(here, bytearray(16))),
            live.put(lambda sqe: sqe.prep_accept(server), fd=True),
            live.put(lambda sqe: sqe.prep_timeout(_LONG)),
        ]
        live.go()
        answer, _ = live.cancel(numbers[0], lambda sqe: sqe.prep_cancel64(0, CancelFlags.ANY))
        results = {live.final(number).res for number in numbers}
    right = answer == len(numbers) and results == {-errno.ECANCELED}
    text = f"all 4 {ended(-errno.ECANCELED)}" if right else ", ".join(map(ended, results))
    return Shown(answered(answer), text, right)
