"""io_uring: the ways of cancelling, and what goes with them, each tried on live requests."""

from __future__ import annotations

import errno
import os
import select

from iocancel.doctor.live import LIMIT, Live, Prepare, code, stopped
from iocancel.doctor.props import pipe, sockets
from iocancel.doctor.report import Checks, Seen, Wrong
from iocancel.doctor.workers import blocked_open
from iocancel.errors import CancelNotFound, CancelTimeout, CancelTooLate
from iocancel.uring import CancelFlags, Features, Opcode, PollFlags, Ring, SqeFlags, cancel_flags

__all__ = ["FLAGS", "MECHANISMS"]

FLAGS: Checks[Live] = Checks("cancel flag")
MECHANISMS: Checks[Live] = Checks("mechanism")
_LONG, _SHORT = 3600.0, 0.005
_SINCE = {"ALL": "5.19", "FD": "5.19", "ANY": "5.19", "FD_FIXED": "6.0", "USERDATA": "6.6", "OP": "6.6"}


def _must(right: bool, text: str) -> Seen:
    if not right:
        raise Wrong(text)
    return Seen(text)


def _cancelled(answer: int, res: int) -> Seen:
    return _must(
        answer == 0 and res == -errno.ECANCELED, f"the cancel's answer {code(answer)}, then {code(res)}"
    )


# By entries


@MECHANISMS.add("cancel by user_data (io_uring_prep_cancel64)")
def _by_user_data(live: Live) -> Seen:
    with pipe() as (read_end, _):
        answer, cqe = live.cancel(live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN)))
    return _cancelled(answer, cqe.res)


@MECHANISMS.add("io_uring_prep_poll_remove")
def _poll_remove(live: Live) -> Seen:
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        answer, cqe = live.cancel(number, lambda sqe: sqe.prep_poll_remove(number))
    return _cancelled(answer, cqe.res)


@MECHANISMS.add("io_uring_prep_poll_update", "5.13")
def _poll_update(live: Live) -> Seen:
    with pipe() as (read_end, write_end):
        os.write(write_end, b"x")
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLPRI))
        answer = _refusable(
            live, lambda sqe: sqe.prep_poll_update(number, 0, select.POLLIN, PollFlags.UPDATE_EVENTS)
        )
        res = live.final(number).res
    return _must(
        answer == 0 and res == select.POLLIN, f"{code(answer)}; the poll then ended with {code(res)}"
    )


@MECHANISMS.add("io_uring_prep_timeout_remove")
def _timeout_remove(live: Live) -> Seen:
    number = live.start(lambda sqe: sqe.prep_timeout(_LONG))
    answer, cqe = live.cancel(number, lambda sqe: sqe.prep_timeout_remove(number))
    return _cancelled(answer, cqe.res)


@MECHANISMS.add("io_uring_prep_timeout_update", "5.11")
def _timeout_update(live: Live) -> Seen:
    number = live.start(lambda sqe: sqe.prep_timeout(_LONG))
    answer = _refusable(live, lambda sqe: sqe.prep_timeout_update(_SHORT, number))
    res = live.final(number).res
    return _must(
        answer == 0 and res == -errno.ETIME, f"{code(answer)}; the timeout then ended with {code(res)}"
    )


@MECHANISMS.add("io_uring_prep_link_timeout")
def _link_timeout(live: Live) -> Seen:
    with pipe() as (read_end, _):
        number = live.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN), SqeFlags.IO_LINK)
        limit = live.put(lambda sqe: sqe.prep_link_timeout(_SHORT))
        live.go()
        fired, res = live.final(limit).res, live.final(number).res
    right = fired in (-errno.ETIME, -errno.EALREADY) and res == -errno.ECANCELED
    return _must(right, f"the timeout ended with {code(fired)}, its request with {code(res)}")


@MECHANISMS.add("IOSQE_CQE_SKIP_SUCCESS on a cancel", "5.17")
def _skip(live: Live) -> Seen:
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        cancel = live.put(lambda sqe: sqe.prep_cancel64(number), SqeFlags.CQE_SKIP_SUCCESS)
        live.go()
        live.collect(lambda: live.ended(number) is not None or live.ended(cancel) is not None)
        # Whatever the cancel has to say is there when a later request has ended.
        live.ask(lambda sqe: sqe.prep_nop())
        said, cqe = live.ended(cancel), live.ended(number)
    if said is not None:
        said.check()
        raise Wrong(f"it had a completion all the same: {code(said.res)}")
    live.forget(cancel)
    res = 0 if cqe is None else cqe.res
    return _must(res == -errno.ECANCELED, f"{code(res)}, and no completion of the cancel's own")


def _refusable(live: Live, prepare: Prepare) -> int:
    cqe = live.final(live.start(prepare))
    if cqe.res == -errno.EINVAL:
        cqe.check()
    return cqe.res


def _flag(name: str, since: str) -> None:
    @FLAGS.add(f"IORING_ASYNC_CANCEL_{name}", since)
    def try_it(_: Live) -> Seen:
        if not cancel_flags() & CancelFlags[name]:
            raise Wrong(
                "refused, or taken and not acted on, when one of two live polls was cancelled with it"
            )
        return Seen("it cancelled " + ("both polls" if name == "ANY" else "the right one of two live polls"))


for _name, _since in _SINCE.items():
    _flag(_name, _since)


# From outside the queue


@MECHANISMS.add("io_uring_register_sync_cancel", "6.0")
def _sync(live: Live) -> Seen:
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        answer = live.ring.register_sync_cancel(number, timeout=LIMIT)
        res = live.final(number).res
        try:
            live.ring.register_sync_cancel(number, timeout=LIMIT)
        except CancelNotFound:
            return _cancelled(answer, res)
    raise Wrong("a second one, with nothing left to cancel, was not answered with -ENOENT")


@MECHANISMS.add("io_uring_register_sync_cancel from another thread", "6.0")
def _sync_thread(live: Live) -> Seen:
    with pipe() as (read_end, _):
        number = live.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        return _cancelled(live.sync_cancel(number), live.final(number).res)


@MECHANISMS.add("io_uring_register_sync_cancel by opcode", "6.6")
def _sync_opcode(live: Live) -> Seen:
    with pipe() as (read_end, _), sockets() as (here, _):
        poll = live.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        recv = live.put(lambda sqe: sqe.prep_recv(here, bytearray(8)))
        live.go()
        answer = live.ring.register_sync_cancel(opcode=Opcode.RECV, timeout=LIMIT)
        res = live.final(recv).res
        other = live.ended(poll)
        live.cancel(poll)
    if other is not None:
        raise Wrong("it cancelled a request of another kind")
    return _cancelled(answer, res)


@MECHANISMS.add("io_uring_register_sync_cancel that does not wait (timeout 0)", "6.0")
def _sync_timeout(live: Live) -> Seen:
    answers: list[str] = []

    def cancel(number: int) -> int:
        ran = 0
        try:
            answers.append(code(live.ring.register_sync_cancel(number, timeout=0)))
        except CancelTimeout:
            answers.append("-ETIME")
            ran = -errno.EALREADY
        except (CancelNotFound, CancelTooLate) as error:
            answers.append(code(-(error.errno or 0)))
        live.cancel(number)
        return ran

    blocked_open(live, cancel)
    return Seen(f"an open in a worker: {answers[-1]} at once")


# What goes with them


@MECHANISMS.add("a wait with a timeout (IORING_FEAT_EXT_ARG)")
def _wait(live: Live) -> Seen:
    came = live.ring.wait(1, timeout=_SHORT)
    native = "by the wait itself" if live.ring.features & Features.EXT_ARG else "by a timeout request"
    return _must(not came, f"an idle ring's wait came back, {native}")


@MECHANISMS.add("no completion is lost when the queue overflows (IORING_FEAT_NODROP)")
def _overflow(live: Live) -> Seen:
    del live
    with Ring(64, cq_entries=64) as ring, pipe() as (read_end, _):
        small = Live(ring)
        numbers = [small.put(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN)) for _ in range(64)]
        small.go()
        cancels = [small.put(lambda sqe, n=n: sqe.prep_cancel64(n)) for n in reversed(numbers)]  # type: ignore[misc]
        small.go()
        results = {small.final(number).res for number in numbers}
        answers = {small.final(number).res for number in cancels}
        lost = ring.cq_overflow
    right = results == {-errno.ECANCELED} and answers == {0} and not lost
    return _must(right, "all 128 completions came through a queue of 64" if right else f"{lost} were lost")


@MECHANISMS.add("registered files")
def _files(live: Live) -> Seen:
    with pipe() as (read_end, _):
        live.ring.register_files([read_end])
        try:
            number = live.start(lambda sqe: sqe.prep_poll_add(0, select.POLLIN), SqeFlags.FIXED_FILE)
            answer, cqe = live.cancel(number)
        finally:
            live.ring.unregister_files()
    return _cancelled(answer, cqe.res)


@MECHANISMS.add("registered buffers")
def _buffers(live: Live) -> Seen:
    buffer = bytearray(4096)
    with pipe() as (read_end, write_end):
        live.ring.register_buffers([buffer])
        try:
            os.write(write_end, b"fixed")
            res = live.ask(lambda sqe: sqe.prep_read_fixed(read_end, buffer))
        finally:
            live.ring.unregister_buffers()
    return _must(res == 5 and buffer[:5] == b"fixed", f"a read into one: {code(res)}")


@MECHANISMS.add("rings of buffers (io_uring_register_buf_ring)", "5.19")
def _buf_ring(live: Live) -> Seen:
    group = live.ring.register_buf_ring(8, 64, 77)
    try:
        with sockets() as (here, there):
            there.send(b"picked")
            cqe = live.final(live.start(lambda sqe: sqe.prep_recv(here, None, buf_group=77)))
            data = group.take(cqe) if cqe.buffer_id is not None else b""
    finally:
        live.ring.unregister_buf_ring(77)
    return _must(data == b"picked", f"a recv that picked one: {code(cqe.res)}")


@MECHANISMS.add("notification by an eventfd")
def _eventfd(live: Live) -> Seen:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        live.ring.register_eventfd(fd)
        try:
            live.ask(lambda sqe: sqe.prep_nop())
            count = os.eventfd_read(fd)
        finally:
            live.ring.unregister_eventfd()
    finally:
        os.close(fd)
    return _must(count == 1, f"it counted {count} for one completion")


@MECHANISMS.add("IOSQE_IO_DRAIN holds cancels back, too")
def _drain(live: Live) -> Seen:
    del live  # no ring that CQE_SKIP_SUCCESS was used on takes this flag
    with Ring(8) as ring, pipe() as (read_end, write_end):
        fresh = Live(ring)
        number = fresh.start(lambda sqe: sqe.prep_poll_add(read_end, select.POLLIN))
        last = fresh.start(lambda sqe: sqe.prep_nop(), SqeFlags.IO_DRAIN)
        cancel = fresh.start(lambda sqe: sqe.prep_cancel64(number))
        waited = fresh.early(cancel) is None
        try:
            ring.register_sync_cancel(number, timeout=LIMIT)
            how = "a synchronous cancel reached the request"
        except OSError:
            os.write(write_end, b"x")
            how = "only the request's own end let them go"
        res = fresh.final(number).res
        fresh.final(last)
        fresh.final(cancel)
    return _must(waited and (stopped(res) or res > 0), how if waited else "the cancel was not held back")
