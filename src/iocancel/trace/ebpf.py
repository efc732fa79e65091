"""What a cancel aims at, read from the request itself: an extra, for root, used where libbpf is there.

No event carries the key, the fd and the flags of an io_uring cancel that was accepted, but the place where
its event comes from (io_uring_submit_req; before Linux 6.3 io_uring_submit_sqe) has the kernel's own request
at hand. A small eBPF program is called there too: it copies the head of each request (struct io_kiocb) whose
opcode is one that cancels into a queue, with the time and the thread. It knows nothing else. Where a field
is, and whether this kernel has it, is looked up here, in the kernel's own description of its types (BTF), by
libbpf. So there is nothing to compile, and nothing that is built for one kernel.

What that rests on:

- The fields of an entry have been copied into its request before that event: into its first bytes, which
  are a union of what each kind of request needs (`struct io_cancel`, `struct io_poll_update` ...).
- The kernel copies what the flags ask for and no more. Without IORING_ASYNC_CANCEL_FD, `io_cancel.fd` is what
  an earlier request has left there, and likewise `io_cancel.opcode` without OP: they count with their flags.
- The queue takes no more when it is full; the program counts what it could not put there.

Not read: synchronous cancels, which are no requests, and link timeouts, which name no target (what they are
linked to is told by io_uring_link).
"""

from __future__ import annotations

import ctypes
import operator
import os
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from iocancel.trace.libbpf import Btf, Member, Missing, asked, load
from iocancel.trace.program import HEAD, REQ, THREAD, TIME, assemble
from iocancel.uring import CancelFlags, Opcode, PollFlags

EVENTS = ("io_uring_submit_req", "io_uring_submit_sqe")
"""Where the program is called, by the first of these names that the kernel has."""
ROOM = 1 << 17
"""Requests that may wait to be read; each takes some 110 bytes of the kernel's memory."""

# ns from an event to what belongs to it: 90 as a rule, more where an interrupt comes in between. A traced
# cancel takes some 400, so that within 300 there can't be two of one address.
_LATE, _LATE_AFTER_LOSS = 1_000_000_000, 300

# linux/bpf.h. A test compares them with the compiler's.
MAP_TYPE_ARRAY, MAP_TYPE_QUEUE, PROG_TYPE_RAW_TRACEPOINT = 2, 22, 17
# bpf_probe_read_kernel is for programs that may be had under the GPL, too; this one is the project's, MIT.
_LICENSE = b"Dual MIT/GPL"

# Plain numbers: what is done with them for each request takes ten times as long with flags.
_FD, _OP, _USERDATA = int(CancelFlags.FD), int(CancelFlags.OP), int(CancelFlags.USERDATA)
_BY_OTHERS = int(CancelFlags.ANY) | _FD | _OP  # with one of these, it goes by user_data only with USERDATA
_EVENTS, _NUMBER = int(PollFlags.UPDATE_EVENTS), int(PollFlags.UPDATE_USER_DATA)
_ASYNC_CANCEL, _POLL_REMOVE = int(Opcode.ASYNC_CANCEL), int(Opcode.POLL_REMOVE)

# What is wanted of each kind of request, and in which struct the kernel has it.
_WANTED = {
    Opcode.ASYNC_CANCEL: ("io_cancel", ("addr", "flags", "fd", "opcode")),
    Opcode.TIMEOUT_REMOVE: ("io_timeout_rem", ("addr", "flags")),
    Opcode.POLL_REMOVE: ("io_poll_update", ("old_user_data", "update_events", "update_user_data")),
}
_OWN = (Member(TIME, 8, signed=False), Member(THREAD, 8, signed=False), Member(REQ, 8, signed=False))
_FRONT = struct.Struct("=QQQ").unpack_from  # the same
_INTEGERS = {1: "Bb", 2: "Hh", 4: "Ii", 8: "Qq"}


class Request(NamedTuple):
    """What a cancel asked for. None: it did not say, or this kernel has no such field.

    Attributes:
        time: ns of CLOCK_MONOTONIC, right after the request's own event.
        pid, tid: the process and the thread that the kernel took it from (with SQPOLL its own thread), as the
            machine's own process namespace counts.
        req: the kernel's address of the request, as in the event.
        user_data: its own.
        opcode: ASYNC_CANCEL, TIMEOUT_REMOVE or POLL_REMOVE.
        key: the user_data of what it is to cancel.
        fd: the file's number in the process; with FD_FIXED an index of the ring's registered files.
        flags: `CancelFlags` of an ASYNC_CANCEL, `TimeoutFlags` of a TIMEOUT_REMOVE, and of a POLL_REMOVE
            those of `PollFlags` that make it an update.
        only: the opcode of what it is to cancel (`CancelFlags.OP`).
    """

    time: int
    pid: int
    tid: int
    req: int
    user_data: int
    opcode: int
    key: int | None = None
    fd: int | None = None
    flags: int | None = None
    only: int | None = None


def available() -> str | None:
    """Why it can't be had here, in one line with the remedy; None where it can. Found by trying it."""
    try:
        with Requests(room=1):
            return None
    except Missing as error:
        return str(error)


class Requests:
    """Takes down the cancel requests of all processes, while its block lasts.

    Args:
        room: how many may wait until they are read. What comes when there is none is lost, and counted.

    Raises:
        Missing: (on entering) it can't be had here; it says why.
    """

    def __init__(self, *, room: int = ROOM) -> None:
        self._room = room
        self._fds: list[int] = []
        self._waiting: dict[int, deque[bytes]] = {}  # by address, in the order of time
        self._many = 0  # in there
        self._late = _LATE

    def __enter__(self) -> Requests:
        """Begin."""
        with Btf() as btf:
            event, argument = _event(btf)
            self._head = _Head(btf)
        size = HEAD + self._head.size
        self._record = ctypes.create_string_buffer(size)
        self._take = load().bpf_map_lookup_and_delete_elem
        try:
            self._queue = self._made("bpf_map_create", MAP_TYPE_QUEUE, b"cancels", 0, size, self._room, None)
            self._losses = self._made("bpf_map_create", MAP_TYPE_ARRAY, b"lost", 4, 8, 1, None)
            code = assemble(argument, self._head.size, self._head.opcode, _WANTED, self._queue, self._losses)
            program = self._made(
                "bpf_prog_load", PROG_TYPE_RAW_TRACEPOINT, b"iocancel", _LICENSE, code, len(code) // 8, None
            )
            self._made("bpf_raw_tracepoint_open", event.encode(), program)
            self._since = time.monotonic_ns()
        except BaseException as error:
            self._close()
            if isinstance(error, PermissionError):
                raise Missing(f"eBPF takes root (CAP_BPF and CAP_PERFMON): {error}") from None
            if isinstance(error, OSError):
                raise Missing(f"this kernel does not take the eBPF program: {error}") from None
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End. What was not read is gone."""
        self._close()

    def read(self) -> list[Request]:
        """Take what has come, in the order in which it came, as far as there is one. Does not wait.

        What an event tells that was read before is among them, unless it was lost.
        """
        return [self._head.decode(record) for record in self._records()]

    def collect(self) -> None:
        """Take what has come, for `find`: when events have been read, and before they are looked at."""
        waiting = self._waiting
        for record in self._records():
            _, _, req = _FRONT(record)
            of_same = waiting.get(req)
            if of_same is None:
                of_same = waiting[req] = deque()
            of_same.append(record)
            self._many += 1
        if self._many > 4 * self._room:  # nobody asks for them
            waiting.clear()
            self._many, self._late = 0, _LATE_AFTER_LOSS
        if self.lost:
            self._late = _LATE_AFTER_LOSS

    def find(self, when: int, req: int, user_data: int) -> Request | None:
        """What belongs to an event, or None where that was lost. Each is given once.

        An address is used again only when its request has ended. So what belongs to an event comes between
        it and the next one of the same address; since the program is called after the event was written (by
        an `Instance` that was entered before), it is the first one that is not older. Where some were lost,
        it may be that of a later one instead: then only what comes at once is taken.

        Args:
            when, req, user_data: the event's; those of one address in the order of time.
        """
        rest = self._waiting.get(req)
        if rest is None or when < self._since:  # before that the program may not have been there
            return None
        found = None
        while rest:
            came, _, _ = _FRONT(rest[0])
            if came >= when:
                if came - when <= self._late:
                    found = self._head.decode(rest[0])
                break
            rest.popleft()  # its event was not seen
            self._many -= 1
        if found is not None:
            if found.user_data != user_data:
                return None
            rest.popleft()
            self._many -= 1
        if not rest:
            del self._waiting[req]
        return found

    @property
    def lost(self) -> int:
        """How many there was no room for, so far."""
        number, count = ctypes.c_uint32(0), ctypes.c_uint64()
        asked("bpf_map_lookup_elem", self._losses, ctypes.byref(number), ctypes.byref(count))
        return count.value

    def _records(self) -> list[bytes]:
        take, queue, record = self._take, self._queue, self._record
        where = ctypes.c_void_p(ctypes.addressof(record))
        found = []
        # At most what there was room for: others may write faster than this reads.
        for _ in range(self._room):
            if take(queue, None, where) < 0:  # there is none
                break
            found.append(record.raw)
        return found

    def _made(self, call: str, *arguments: Any) -> int:
        fd = asked(call, *arguments)
        self._fds.append(fd)
        return fd

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


def _event(btf: Btf) -> tuple[str, int]:
    """Where the program is to be called, and which one of its arguments is the request."""
    for name in EVENTS:
        try:
            # The first parameter is the tracer's own, and no argument.
            arguments = btf.parameters(f"btf_trace_{name}")[1:]
        except Missing:
            continue
        if "io_kiocb" in arguments:
            return name, arguments.index("io_kiocb")
        raise Missing(f"this kernel's {name} has no request at hand (Linux 6.1 has)")
    raise Missing("this kernel does not tell what io_uring is given (CONFIG_IO_URING, CONFIG_TRACEPOINTS)")


class _Head:
    """How a request's first bytes are to be read."""

    def __init__(self, btf: Btf) -> None:
        opcode = btf.member("io_kiocb", "opcode")
        user_data = btf.member("io_kiocb", "cqe.user_data")
        self.opcode = opcode.offset
        self._opcode = HEAD + opcode.offset
        self._readers: dict[int, Callable[[bytes], tuple[Any, ...]]] = {}
        ends = [opcode.offset + opcode.size, user_data.offset + user_data.size]
        for kind, (name, fields) in _WANTED.items():
            # The first one is the key: without it there is nothing to tell.
            members = [btf.member(name, fields[0]), *(_perhaps(btf, name, field) for field in fields[1:])]
            ends += [each.offset + each.size for each in members if each is not None]
            inside = [each and each._replace(offset=HEAD + each.offset) for each in (user_data, *members)]
            self._readers[kind] = _reader([*_OWN, *inside])
        self.size = (max(ends) + 7) // 8 * 8

    def decode(self, record: bytes) -> Request:
        """A record as the program has written it."""
        opcode = record[self._opcode]
        when, thread, req, user_data, key, *more = self._readers[opcode](record)
        fd = only = None
        if opcode == _ASYNC_CANCEL:
            flags, fd, only = more
            if flags is None:  # they came with Linux 5.19
                fd = only = None
            else:
                if flags & _BY_OTHERS and not flags & _USERDATA:
                    key = None
                if not flags & _FD:
                    fd = None
                if not flags & _OP:
                    only = None
        elif opcode == _POLL_REMOVE:
            events, number = more
            flags = None if events is None or number is None else events * _EVENTS | number * _NUMBER
        else:
            [flags] = more
        return Request(when, thread >> 32, thread & 0xFFFFFFFF, req, user_data, opcode, key, fd, flags, only)


def _perhaps(btf: Btf, name: str, field: str) -> Member | None:
    try:
        return btf.member(name, field)
    except Missing:
        return None


def _reader(members: list[Member | None]) -> Callable[[bytes], tuple[Any, ...]]:
    """What reads these integers out of a record, in this order; None for a member that there is not."""
    text, end = "=", 0
    there = sorted((each.offset, number) for number, each in enumerate(members) if each is not None)
    for offset, number in there:
        member = members[number]
        assert member is not None
        text += f"{offset - end}x{_INTEGERS[member.size][member.signed]}"
        end = offset + member.size
    unpack = struct.Struct(text).unpack_from
    # A None is put behind what was read, for those that are not there.
    places = {number: place for place, (_, number) in enumerate(there)}
    order = operator.itemgetter(*(places.get(number, -1) for number in range(len(members))))
    return lambda record: order((*unpack(record), None))
