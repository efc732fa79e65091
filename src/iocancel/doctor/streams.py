"""io_uring: how far reads, writes and what sockets do can be cancelled here, found out with blocked ones."""

from __future__ import annotations

import contextlib
import os
import socket

from iocancel.doctor.live import Live, code
from iocancel.doctor.props import folder, pipe, pseudoterminal, sockets
from iocancel.doctor.reach import blocked, buffers, end, fill, multishot, tcp
from iocancel.doctor.report import Checks, Seen, Wrong
from iocancel.uring import MsgHdr, SqeFlags

__all__ = ["KINDS"]

KINDS: Checks[Live] = Checks("request")
_BIG = 1 << 20
_HUGE = 1 << 26  # more than any socket's buffers hold


@KINDS.add("read (empty pipe)")
def _read_pipe(live: Live) -> Seen:
    with pipe() as (read_end, _):
        return blocked(live, lambda sqe: sqe.prep_read(read_end, bytearray(8)))


@KINDS.add("readv (empty pipe)")
def _readv_pipe(live: Live) -> Seen:
    with pipe() as (read_end, _):
        return blocked(live, lambda sqe: sqe.prep_readv(read_end, [bytearray(8), bytearray(8)]))


@KINDS.add("read_fixed (empty pipe)")
def _read_fixed(live: Live) -> Seen:
    memory = bytearray(4096)
    live.ring.register_buffers([memory])
    try:
        with pipe() as (read_end, _):
            return blocked(live, lambda sqe: sqe.prep_read_fixed(read_end, memory))
    finally:
        live.finish()
        live.ring.unregister_buffers()


@KINDS.add("read in a worker (empty pipe, IOSQE_ASYNC)")
def _read_async(live: Live) -> Seen:
    with pipe() as (read_end, _):
        return blocked(live, lambda sqe: sqe.prep_read(read_end, bytearray(8)), SqeFlags.ASYNC)


@KINDS.add("read (terminal)")
def _read_terminal(live: Live) -> Seen:
    with pseudoterminal() as (_, slave):
        return blocked(live, lambda sqe: sqe.prep_read(slave, bytearray(8)))


@KINDS.add("read (eventfd)")
def _read_eventfd(live: Live) -> Seen:
    fd = os.eventfd(0)
    try:
        return blocked(live, lambda sqe: sqe.prep_read(fd, bytearray(8)))
    finally:
        os.close(fd)


@KINDS.add("multishot read (pipe)", "6.7")
def _read_multishot(live: Live) -> Seen:
    with pipe() as (read_end, write_end), buffers(live) as group:
        return multishot(
            live,
            lambda sqe: sqe.prep_read_multishot(read_end, 0, 0, group),
            lambda: os.write(write_end, b"x"),
        )


@KINDS.add("write (full pipe)")
def _write_pipe(live: Live) -> Seen:
    with pipe() as (_, write_end):
        os.set_blocking(write_end, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(write_end, bytes(65536))
        os.set_blocking(write_end, True)
        return blocked(live, lambda sqe: sqe.prep_write(write_end, bytes(4096)))


@KINDS.add("recv")
def _recv(live: Live) -> Seen:
    with sockets() as (here, _):
        return blocked(live, lambda sqe: sqe.prep_recv(here, bytearray(8)))


@KINDS.add("recvmsg")
def _recvmsg(live: Live) -> Seen:
    with sockets() as (here, _):
        return blocked(live, lambda sqe: sqe.prep_recvmsg(here, MsgHdr([bytearray(8)])))


@KINDS.add("recv with MSG_WAITALL, of which a part came", "6.1")
def _recv_part(live: Live) -> Seen:
    with sockets() as (here, there):
        there.send(b"one")
        buffer = bytearray(8)
        number = live.start(lambda sqe: sqe.prep_recv(here, buffer, socket.MSG_WAITALL))
        if (early := live.early(number)) is not None:
            raise Wrong(f"this kernel does not wait for all: it ended with {code(early.res)}")
        answer, cqe = live.cancel(number)
        if cqe.res < 0 and any(buffer):
            raise Wrong(f"it had taken 3 bytes, and ended with {code(cqe.res)}: nobody is told of them")
        return end(answer, cqe, 8)


@KINDS.add("multishot recv", "6.0")
def _recv_multishot(live: Live) -> Seen:
    with sockets() as (here, there), buffers(live) as group:
        return multishot(live, lambda sqe: sqe.prep_recv_multishot(here, group), lambda: there.send(b"x"))


@KINDS.add("send (full socket)")
def _send(live: Live) -> Seen:
    with sockets() as (here, _):
        fill(here)
        return blocked(live, lambda sqe: sqe.prep_send(here, bytes(_BIG), socket.MSG_NOSIGNAL), whole=_BIG)


@KINDS.add("send with MSG_WAITALL, of which a part went", "6.1")
def _send_part(live: Live) -> Seen:
    with tcp() as (here, there):
        data = bytes(_HUGE)
        flags = socket.MSG_NOSIGNAL | socket.MSG_WAITALL
        number = live.start(lambda sqe: sqe.prep_send(here, data, flags))
        if (early := live.early(number)) is not None:
            raise Wrong(f"this kernel does not wait for all: it ended with {code(early.res)}")
        answer, cqe = live.cancel(number)
        there.setblocking(False)
        if cqe.res < 0 and there.recv(1):
            raise Wrong(f"it had sent a part, and ended with {code(cqe.res)}: nobody is told of it")
        return end(answer, cqe, len(data))


@KINDS.add("zero-copy send, of which a part went", "6.0")
def _send_zc(live: Live) -> Seen:
    with tcp() as (here, there):
        flags = socket.MSG_NOSIGNAL | socket.MSG_WAITALL
        data = bytes(_HUGE)
        number = live.start(lambda sqe: sqe.prep_send_zc(here, data, flags))
        early = live.early(number)
        if early is not None:
            early.check()
            raise Wrong(f"it was to block, and ended with {code(early.res)}")
        answer = live.ask(lambda sqe: sqe.prep_cancel64(number))
        result = live.first(number)
        there.close()  # the memory is given back when the peer has gone, not when the send was cancelled
        live.final(number)
    seen = end(answer, result, len(data))
    return Seen(f"{seen.text}; its memory is free once the peer has gone", seen.reach)


@KINDS.add("accept")
def _accept(live: Live) -> Seen:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return blocked(live, lambda sqe: sqe.prep_accept(server), fd=True)


@KINDS.add("multishot accept", "5.19")
def _accept_multishot(live: Live) -> Seen:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        return multishot(
            live,
            lambda sqe: sqe.prep_multishot_accept(server),
            lambda: client.connect(server.getsockname()),
            fd=True,
        )


@KINDS.add("connect (unix socket, full backlog)")
def _connect(live: Live) -> Seen:
    with folder() as there, contextlib.ExitStack() as stack:
        path = str(there / "socket")
        server = stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(path)
        server.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        late = stack.enter_context(socket.socket(socket.AF_UNIX))
        return blocked(live, lambda sqe: sqe.prep_connect(late, path))
