"""What each verb is here: a call that never waits (csrc/attempt.c), what to wait for before it is made again,
and, for a disk's files, the request that Linux AIO itself carries out.
"""

from __future__ import annotations

import contextlib
import errno
import operator
import os
import select
from collections.abc import Callable
from typing import Any

from iocancel._native import ffi, lib
from iocancel.engines.refusal import VerbUnavailable, no_verb
from iocancel.engines.uring.entries import close_rights, control_bytes
from iocancel.libaio import Iocb, PollEvents
from iocancel.operation import Operation, Reach
from iocancel.uring import MsgHdr, SockAddr, memory
from iocancel.uring.prep_recv import control_messages
from iocancel.uring.prep_wait import child_state

_CLOEXEC_FDS = 0x40000000  # MSG_CMSG_CLOEXEC
_POLLABLE = int(PollEvents(0))
for _bit in PollEvents:
    _POLLABLE |= int(_bit)
DISK = lib.IOC_TRY_DISK
POLL, CONNECT = lib.IOC_TRY_POLL, lib.IOC_TRY_CONNECT


class Job:
    """One operation on its way: the engine's side of it."""

    __slots__ = (
        "accepted",
        "asked",
        "c",
        "disk",
        "epoll",
        "iocb",
        "kernel",
        "lost",
        "make",
        "pauses",
        "pidfd",
        "polled",
        "seconds",
        "token",
    )

    def __init__(self, token: int, kind: int = -1, fd: int = -1) -> None:
        self.token = token
        self.c: Any = None  # the call; None: there is none (a timeout, a flush)
        if kind >= 0:
            self.c = ffi.new("struct ioc_attempt *")
            self.c.kind, self.c.fd = kind, fd
            self.c.off = self.c.off2 = -1
        self.iocb: Any = None  # what the kernel has of it, or is to have
        self.kernel: Any = None  # the context that this is in
        self.make: Callable[[Job], Iocb] | None = None  # makes the request for a disk's file
        self.disk = False  # and it is that
        self.asked = False  # a cancel was asked for, and may have been accepted
        self.accepted = False  # the kernel has accepted it
        self.lost = 0  # how often somebody else was faster
        self.pauses = 0  # how often there was a pause for that
        self.epoll: Any = None  # in between, for what a poll of Linux AIO refuses
        self.polled = (-1, 0)  # what is in it
        self.pidfd = -1
        self.seconds = -1.0  # of a timeout

    def poll(self) -> Iocb:
        """The request that waits for what the call has asked for."""
        c = self.c
        return Iocb.poll(c.wait_fd, c.wait_events & _POLLABLE, data=self)

    def poll_by_epoll(self) -> Iocb:
        """The same for files that have more than one wait queue: an epoll set has one."""
        wanted = self.c.wait_fd, self.c.wait_events & _POLLABLE
        if self.epoll is None or self.polled != wanted:
            self.epoll = select.epoll()
            self.epoll.register(*wanted)
            self.polled = wanted
        return Iocb.poll(self.epoll.fileno(), PollEvents.IN, data=self)

    def over(self) -> None:
        """Give back what it had of its own."""
        self.iocb = self.make = None
        epoll, self.epoll = self.epoll, None
        if epoll is not None:
            epoll.close()
        pidfd, self.pidfd = self.pidfd, -1
        if pidfd >= 0:
            os.close(pidfd)

    def __del__(self) -> None:
        if getattr(self, "pidfd", -1) >= 0:  # it was never submitted
            self.over()


def _position(offset: int) -> int:
    number = operator.index(offset)
    if not -1 <= number < 1 << 63:
        raise ValueError(f"offset takes -1 or 0 to 2**63 - 1, not {offset}")
    return number


def _transfer(kind: int, write: bool, several: bool) -> Callable[..., Job]:
    one: Any = Iocb.pwrite if write else Iocb.pread
    many: Any = Iocb.pwritev if write else Iocb.preadv
    make = many if several else one

    def prepare(op: Operation[Any], what: Any, offset: int) -> Job:
        job = Job(op._token, kind, op._fd)
        where = _position(offset)
        vector, pins = memory.iovecs(what if several else [what], not write)
        c = job.c
        c.buf, c.n, c.off = memory.address(vector), len(pins) - 1, where
        op._pins = pins
        fd = op._fd
        job.make = lambda job: make(fd, what, max(where, 0), data=job)
        return job

    return prepare


def _stream(kind: int, write: bool) -> Callable[..., Job]:
    pin = memory.readable if write else memory.writable

    def prepare(op: Operation[Any], what: Any, flags: int) -> Job:
        job = Job(op._token, kind, op._fd)
        op._pins = pinned = pin(what)
        c = job.c
        c.buf, c.n, c.flags = memory.address(pinned), len(pinned), flags
        return job

    return prepare


def _fsync(op: Operation[Any], datasync: bool) -> Job:
    job, fd = Job(op._token), op._fd
    job.make = lambda job: (Iocb.fdsync if datasync else Iocb.fsync)(fd, data=job)
    return job


def _accept(op: Operation[Any]) -> Job:
    job = Job(op._token, lib.IOC_TRY_ACCEPT, op._fd)
    address = SockAddr()
    storage, length = op._pins = memory.pin_sockaddr(address, fill=True)
    c = job.c
    c.buf, c.n, c.len = memory.address(storage), len(storage), memory.address(length)
    op._address = lambda: address.value
    return job


def _connect(op: Operation[Any], address: Any) -> Job:
    job = Job(op._token, CONNECT, op._fd)
    storage, length = memory.pin_sockaddr(memory.socket_address(address, op._file))
    c = job.c
    c.buf, c.len = memory.address(storage), length[0]
    op._pins = storage
    return job


def _recvmsg(op: Operation[Any], bufsize: int, ancbufsize: int, flags: int) -> Job:
    job = Job(op._token, lib.IOC_TRY_RECVMSG, op._fd)
    buffer, control = bytearray(bufsize), bytearray(ancbufsize)
    header = MsgHdr([buffer], name=SockAddr(), control=control if ancbufsize else None)
    struct, op._pins = memory.message(header, write=True)
    job.c.buf, job.c.flags = memory.address(struct), flags | _CLOEXEC_FDS

    def ancillary() -> list[tuple[int, int, bytes]]:
        return control_messages(control[: header.controllen])

    def value(_op: Operation[Any], res: int) -> Any:
        return bytes(buffer[:res]), ancillary(), header.flags & ~_CLOEXEC_FDS, header.name

    op._value = value
    op._dispose = lambda _op, _res: close_rights(ancillary())
    return job


def _sendmsg(op: Operation[Any], buffers: list[Any], ancdata: list[Any], flags: int, address: Any) -> Job:
    job = Job(op._token, lib.IOC_TRY_SENDMSG, op._fd)
    name = None if address is None else memory.socket_address(address, op._file)
    control = control_bytes(ancdata) if ancdata else None
    struct, op._pins = memory.message(MsgHdr(buffers, name=name, control=control), write=False)
    job.c.buf, job.c.flags = memory.address(struct), flags
    return job


def _splice(op: Operation[Any], src: Any, count: int, off_src: int, off_dst: int, flags: int) -> Job:
    job = Job(op._token, lib.IOC_TRY_SPLICE, op._fd)
    c = job.c
    c.fd2, c.n, c.flags = memory.file_number(src), count, flags
    c.off2, c.off = _position(off_src), _position(off_dst)
    return job


def _tee(op: Operation[Any], src: Any, count: int, flags: int) -> Job:
    job = Job(op._token, lib.IOC_TRY_TEE, op._fd)
    job.c.fd2, job.c.n, job.c.flags = memory.file_number(src), count, flags
    return job


def _poll(op: Operation[Any], mask: int) -> Job:
    job = Job(op._token, POLL, op._fd)
    job.c.flags = mask & _POLLABLE
    return job


def _timeout(op: Operation[Any], seconds: float) -> Job:
    job = Job(op._token)
    job.seconds = seconds
    return job


def _waitid(op: Operation[Any], idtype: int, number: int, options: int) -> Job:
    if idtype not in (os.P_PID, os.P_PIDFD):
        raise _only("waitid", "for one process (P_PID, P_PIDFD)")
    if options & ~(os.WEXITED | os.WNOWAIT | os.WNOHANG):
        raise _only("waitid", "for an exit (WEXITED)")
    job = Job(op._token, lib.IOC_TRY_WAITID)
    c = job.c
    info = bytearray(lib.IOC_SIZEOF_SIGINFO)
    op._pins = pinned = memory.writable(info)
    c.buf, c.n, c.off, c.flags = memory.address(pinned), idtype, number, options
    if idtype == os.P_PIDFD:
        c.fd2 = number
    else:
        with contextlib.suppress(ProcessLookupError):  # then the call itself says ECHILD
            c.fd2 = job.pidfd = os.pidfd_open(number)
    op._value = lambda _op, _res: child_state(info)
    return job


def _close(op: Operation[Any]) -> Job:
    return Job(op._token, lib.IOC_TRY_CLOSE, op._fd)


def lacking(name: str) -> Callable[..., Job]:
    """For a verb that is not here."""

    def prepare(_op: Operation[Any], *_args: Any) -> Job:
        raise no_verb("libaio", name)

    return prepare


def _only(what: str, which: str) -> VerbUnavailable:
    """The exception for a part of a verb."""
    text = f"{os.strerror(errno.EOPNOTSUPP)}: libaio has {what} only {which}: the uring engine has more of it"
    error = VerbUnavailable(errno.EOPNOTSUPP, text)
    error.feature, error.since, error.running = what, "uring", "libaio"
    return error


TABLE: dict[str, Callable[..., Job]] = {
    "read": _transfer(lib.IOC_TRY_READ, False, False),
    "write": _transfer(lib.IOC_TRY_WRITE, True, False),
    "readv": _transfer(lib.IOC_TRY_READ, False, True),
    "writev": _transfer(lib.IOC_TRY_WRITE, True, True),
    "fsync": _fsync,
    "recv": _stream(lib.IOC_TRY_RECV, False),
    "send": _stream(lib.IOC_TRY_SEND, True),
    "recvmsg": _recvmsg,
    "sendmsg": _sendmsg,
    "accept": _accept,
    "connect": _connect,
    "splice": _splice,
    "tee": _tee,
    "poll": _poll,
    "timeout": _timeout,
    "waitid": _waitid,
    "close": _close,
}
"""verb -> what makes its job"""

# Until its call is made nothing has happened: total. A disk's files run to their end once the kernel has
# them, as flushes do; a MSG_WAITALL may have moved a part, and a connection may have been begun.
REACH = {
    "recv": Reach.PARTIAL,
    "send": Reach.PARTIAL,
    "connect": Reach.PARTIAL,
    "fsync": Reach.NONE,
    "close": Reach.NONE,
}
