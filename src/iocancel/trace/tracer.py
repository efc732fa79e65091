"""The tracer: from the kernel's events to whole cancels."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from iocancel.trace.ebpf import Requests
from iocancel.trace.events import Cancel
from iocancel.trace.format import Format
from iocancel.trace.join import Joiner
from iocancel.trace.libbpf import Missing
from iocancel.trace.names import MACHINES, Names, threads
from iocancel.trace.recorded import Recorded
from iocancel.trace.summary import Losses
from iocancel.trace.telling import LINGER
from iocancel.trace.tracefs import Instance, TracingUnavailable, without

SYSTEMS = ("uring", "libaio")
BUFFER = 8 << 20  # bytes for each processor: some 80,000 events
_TURN = 0.2  # seconds for which one look at the buffers waits at most

_URING = (
    "io_uring/io_uring_create",
    "io_uring/io_uring_submit_req",
    "io_uring/io_uring_submit_sqe",  # its name before Linux 6.3
    "io_uring/io_uring_complete",
    "io_uring/io_uring_cqe_overflow",  # from Linux 5.18 on it is in the place of that, where there is no room
    "io_uring/io_uring_link",
    "io_uring/io_uring_fail_link",
    "io_uring/io_uring_task_add",
    "io_uring/io_uring_req_failed",
    "io_uring/io_uring_register",
    "syscalls/sys_enter_io_uring_register",
    "syscalls/sys_exit_io_uring_register",
    "syscalls/sys_exit_io_uring_enter",
)
# Whose a thread is, and its name, as they were then: /proc knows nothing of what has ended.
_TASKS = ("task/task_newtask", "task/task_rename")
_LIBAIO = ("syscalls/sys_enter_io_cancel", "syscalls/sys_exit_io_cancel")
_TELLS = {"uring": "io_uring/io_uring_complete", "libaio": _LIBAIO[0]}  # without it there is nothing to show


def events(system: str) -> tuple[str, ...]:
    """The kernel's events that tell of a system's cancels, each as "system/name"."""
    return _URING if system == "uring" else _LIBAIO


class Tracer:
    """Cancels, one after the other. A context manager, and an iterator within it.

    Iterating waits; it ends when `duration` is over, when all of `pids` and their children have ended, or
    after `stop()`. Each cancel comes when all of it is
    known: its answer, and the endings of what it found; or a second after its answer.

    Args:
        pids: processes to look at, with their threads and the children that they make from now on; None: all.
        comm: only processes of this name (15 bytes, as in /proc/PID/comm); None: any.
        systems: "uring", "libaio", or both.
        duration: seconds; None: until `stop`.
        buffer: bytes of the kernel's memory for each processor. What does not fit until it is read is lost,
            and counted.
        record: a file to which programs on this library record (`iocancel.record_to`, IOCANCEL_RECORD): what
            their cancels aimed at is taken from there, from now on.
        ebpf: read from the kernel what io_uring's cancels aim at, where that can be had: with libbpf, from
            Linux 6.0 on. `without_keys` says why not.
        tracefs: where it is mounted; None: where it usually is.

    Raises:
        TracingUnavailable: (on entering) it can't be: no privilege, no tracefs, no such events. It says
            which, and the remedy.
        ProcessLookupError: (on entering) there is no such process.
    """

    def __init__(
        self,
        pids: Iterable[int] | None = None,
        comm: str | None = None,
        systems: Sequence[str] = SYSTEMS,
        *,
        duration: float | None = None,
        buffer: int = BUFFER,
        record: str | os.PathLike[str] | None = None,
        ebpf: bool = True,
        tracefs: str | None = None,
    ) -> None:
        for system in systems:
            if system not in SYSTEMS:
                raise ValueError(f"a system is one of {', '.join(SYSTEMS)}, not {system!r}")
        self._pids = None if pids is None else list(pids)
        self._comm = comm
        self._systems = tuple(systems)
        self._duration = duration
        self._buffer, self._tracefs = buffer, tracefs
        self._recorded = None if record is None else Recorded(record)
        self._ready: deque[Cancel] = deque()
        self._family: set[int] = set()  # the threads of `pids`, and of what they have made since
        self._instance: Any = None
        self._requests: Requests | None = None
        self._keys_lost = 0
        self._handlers: dict[int, Handler] = {}
        self._names: Any = None
        self._joiner: Joiner | None = None
        self._until: float | None = None
        self._doubted = 0  # events before that time may have been lost
        self._stopped = self._over = False
        self.lost = 0
        """Events that the kernel had no room for, so far. What they told is missing."""
        self.strays = 0
        """Requests that ended as cancelled by nothing that was seen: their ring was closed, their thread
        ended, or one of several cancels may have been it."""
        self.without_keys: str | None = None if ebpf else "not asked for"
        """Why what io_uring's cancels aim at is not read from the kernel; None where it is."""
        self.missing: tuple[str, ...] = ()
        """Events that were wanted and that this kernel lacks."""

    def __enter__(self) -> Tracer:
        """Begin."""
        wanted = [event for system in self._systems for event in events(system)] + list(_TASKS)
        if self._pids is not None:
            # Not by the kernel's own filter, which does not follow io_uring's threads: no fork makes them.
            _check_numbers()
            for pid in self._pids:
                if not Path(f"/proc/{pid}").exists():
                    raise ProcessLookupError(errno.ESRCH, f"there is no such process: {pid}")
            self._family = {tid for pid in self._pids for tid in threads(pid)}
        if self._recorded is not None:
            self._recorded.__enter__()
        try:
            self._instance = Instance(events=wanted, buffer=self._buffer, tracefs=self._tracefs).__enter__()
            self.missing = tuple(self._instance.missing)
            if len(self.missing_systems) == len(self._systems):
                raise without([event for system in self._systems for event in events(system)])
            self._names = Names(self._instance)
            self._joiner = Joiner(self._came, self._names.of, self._strayed)
            if self._recorded is not None:
                self._joiner.recorded = self._recorded.of
            if "uring" in self._systems and self.without_keys is None:
                self._begin_requests(self._joiner)
            self._handlers = handlers(self._joiner, self._instance.formats)
            self._follow_tasks(self._instance)
            if self._pids is not None:  # those that were made before the first event
                self._family |= {tid for pid in self._pids for tid in threads(pid)}
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if self._duration is not None:
            self._until = time.monotonic() + self._duration
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End, and leave nothing of it in the kernel."""
        self._over = True
        requests, self._requests = self._requests, None
        if requests is not None:
            self._keys_lost = requests.lost
            requests.__exit__()
        if self._instance is not None:
            self._instance.__exit__(kind, error, trace)
        if self._recorded is not None:
            self._recorded.__exit__()

    def _begin_requests(self, joiner: Joiner) -> None:
        """After the instance: so that each request is told later than its event."""
        try:
            self._requests = Requests().__enter__()
        except Missing as error:
            self.without_keys = str(error)
        else:
            joiner.asked = self._requests.find

    @property
    def losses(self) -> Losses:
        """What is not known so far, of what was to be seen."""
        keys = self._keys_lost if self._requests is None else self._requests.lost
        return Losses(self.lost, 0 if self._instance is None else self._instance.late, keys, self.strays)

    @property
    def over(self) -> bool:
        """Whether nothing more comes: its duration is over, or it was stopped, and all was read."""
        return self._over

    @property
    def missing_systems(self) -> list[str]:
        """The systems of which this kernel tells nothing."""
        return [name for name in self._systems if _TELLS[name] in self.missing]

    def stop(self) -> None:
        """End it: what has been recorded still comes. From anywhere, also from a signal's handler."""
        self._stopped = True

    def __iter__(self) -> Tracer:
        """Itself."""
        return self

    def __next__(self) -> Cancel:
        """The next one; waits for it."""
        while not self._ready:
            if self._over:
                raise StopIteration
            self._look(_TURN)
        return self._ready.popleft()

    def read(self, timeout: float = 0.0) -> list[Cancel]:
        """What has come, without waiting for longer.

        Args:
            timeout: seconds.

        Returns:
            The cancels. When it is over, nothing more.
        """
        if not self._over:
            self._look(timeout)
        found = list(self._ready)
        self._ready.clear()
        return found

    def _look(self, timeout: float) -> None:
        joiner, instance = self._joiner, self._instance
        if joiner is None:
            raise RuntimeError("a Tracer is used in a with block")
        left = None if self._until is None else self._until - time.monotonic()
        last = self._stopped or (left is not None and left <= 0) or self._deserted()
        if left is not None:
            timeout = max(0.0, min(timeout, left))
        batch = instance.finish() if last else instance.read(timeout)
        self.lost += batch.lost
        if self._requests is not None:
            self._requests.collect()
        if self._recorded is not None:
            self._recorded.read()  # behind the events: what they tell of was written down before them
        if batch.lost:  # somewhere among what was read so far, of which some is held back yet
            self._doubted = time.monotonic_ns()
        doubt = bool(batch.records) and batch.records[0][0] <= self._doubted
        if doubt and not joiner.doubt:
            joiner.lose()
        joiner.doubt = doubt
        handlers = self._handlers
        for when, kind, raw in batch.records:
            handler = handlers.get(kind)
            if handler is not None:
                handler(when, raw)
        # It is as late as what was read; only where nothing was there, it is now, less what may yet come.
        if doubt:
            joiner.lose()
        now = time.monotonic_ns() - LINGER // 10
        joiner.advance(batch.records[-1][0] if batch.records else now)
        if last:
            joiner.finish()
            self._over = True

    def _follow_tasks(self, instance: Instance) -> None:
        for fmt in instance.formats:
            if fmt.name == "task_newtask":
                self._handlers[fmt.id] = self._made(fmt)
            elif fmt.name == "task_rename":
                self._handlers[fmt.id] = self._renamed(fmt)

    def _made(self, fmt: Format) -> Handler:
        fields = fmt.reader("common_pid", "pid", "comm", "clone_flags")

        def handle(_: int, raw: bytes) -> None:
            parent, child, comm, flags = fields(raw)
            self._names.made(parent, child, comm, flags)
            if parent in self._family:
                self._family.add(child)
            else:
                self._family.discard(child)  # the number was one of them, and is another one's now

        return handle

    def _renamed(self, fmt: Format) -> Handler:
        fields = fmt.reader("common_pid", "pid", "newcomm")

        def handle(_: int, raw: bytes) -> None:
            current, tid, comm = fields(raw)
            self._names.renamed(current if tid is None else tid, comm)

        return handle

    def _deserted(self) -> bool:
        """Whether all processes that it was to look at have ended."""
        return self._pids is not None and not any(Path(f"/proc/{tid}").exists() for tid in self._family)

    def _wanted(self, pid: int, tid: int, comm: str) -> bool:
        if self._comm is not None and comm != self._comm:
            return False
        return self._pids is None or pid in self._family or tid in self._family

    def _came(self, cancel: Cancel) -> None:
        if self._wanted(cancel.pid, cancel.tid, cancel.comm):
            self._ready.append(cancel)

    def _strayed(self, tid: int) -> None:
        pid, comm = self._names.of(tid)
        if self._wanted(pid, tid, comm):
            self.strays += 1


def _check_numbers() -> None:
    """Whether processes have the numbers here that the kernel's events have."""
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
    except OSError as error:
        raise TracingUnavailable(
            errno.ENOENT,
            f"processes can't be looked at without /proc: {error.strerror}",
            "Try mount -t proc proc /proc",
        ) from error
    if space != MACHINES:
        raise TracingUnavailable(
            errno.ENOTSUP,
            "the kernel's events have other numbers of processes than this PID namespace",
            "Choose processes outside of the container, or trace all, by name (--comm)",
        )


Handler = Callable[[int, bytes], object]
_INTERRUPTS = 0x08 | 0x10  # of common_flags: a hard or a soft interrupt, which may come in between anything
_SUBMITS = ("io_uring_submit_req", "io_uring_submit_sqe")


def handlers(joiner: Joiner, formats: Iterable[Format]) -> dict[int, Handler]:
    """What deals with each event, by its number: the fields that are wanted of it, to the joiner."""
    found: dict[int, Handler] = {}
    by_name = {fmt.name: fmt for fmt in formats}
    complete = by_name.get("io_uring_complete")
    told = complete is not None and any(field.name == "req" for field in complete.fields)
    for name, fmt in by_name.items():
        if name in _SUBMITS:
            found[fmt.id] = _submit(joiner, fmt, told)
        elif name in _MAKERS:
            found[fmt.id] = _MAKERS[name](joiner, fmt)
    return found


def _create(joiner: Joiner, fmt: Format) -> Handler:
    fields = fmt.reader("ctx", "fd")

    def handle(_: int, raw: bytes) -> None:
        joiner.create(*fields(raw))

    return handle


def _submit(joiner: Joiner, fmt: Format, told: bool) -> Handler:
    fields = fmt.reader("common_pid", "ctx", "req", "user_data", "opcode", "flags")

    def handle(time: int, raw: bytes) -> None:
        joiner.submit(time, *fields(raw))

    def nameless(time: int, raw: bytes) -> None:
        tid, ctx, req, user_data, opcode, flags = fields(raw)
        joiner.submit(time, tid, ctx, None, user_data, opcode, flags, req)

    return handle if told else nameless


def _complete(joiner: Joiner, fmt: Format) -> Handler:
    fields = fmt.reader("common_pid", "ctx", "req", "user_data", "res", "cflags")

    def handle(time: int, raw: bytes) -> None:
        tid, ctx, req, user_data, res, cflags = fields(raw)
        joiner.complete(time, tid, ctx, req, user_data, res, cflags or 0)

    return handle


def _link(joiner: Joiner, fmt: Format) -> Handler:
    fields = fmt.reader("ctx", "req", "target_req")

    def handle(_: int, raw: bytes) -> None:
        joiner.link(*fields(raw))

    return handle


def _fail_link(joiner: Joiner, fmt: Format) -> Handler:
    fields = fmt.reader("ctx", "link")

    def handle(_: int, raw: bytes) -> None:
        joiner.fail_link(*fields(raw))

    return handle


def _task_add(joiner: Joiner, fmt: Format) -> Handler:
    fields = fmt.reader("common_pid", "common_flags", "ctx", "req", "user_data", "mask")

    def handle(_: int, raw: bytes) -> None:
        tid, flags, ctx, req, user_data, mask = fields(raw)
        joiner.task_add(tid, flags & _INTERRUPTS != 0, ctx, req, user_data, mask)

    return handle


def _failed(joiner: Joiner, fmt: Format) -> Handler:
    fields = fmt.reader("common_pid", "ctx", "req", "user_data", "opcode", "addr", "op_flags", "error")

    def handle(time: int, raw: bytes) -> None:
        joiner.failed(time, *fields(raw))

    return handle


def _called(name: str, *names: str, when: bool = True) -> Callable[[Joiner, Format], Handler]:
    def make(joiner: Joiner, fmt: Format) -> Handler:
        fields = fmt.reader("common_pid", *names)
        call = getattr(joiner, name)

        def handle(time: int, raw: bytes) -> None:
            if when:
                call(time, *fields(raw))
            else:
                call(*fields(raw))

        return handle

    return make


_MAKERS: dict[str, Callable[[Joiner, Format], Handler]] = {
    "io_uring_create": _create,
    "io_uring_complete": _complete,
    "io_uring_link": _link,
    "io_uring_fail_link": _fail_link,
    "io_uring_task_add": _task_add,
    "io_uring_cqe_overflow": _called("overflow", "ctx", "user_data", "res", "cflags"),
    "io_uring_req_failed": _failed,
    "io_uring_register": _called("register", "ctx", "opcode", "ret"),
    "sys_enter_io_uring_register": _called("enter_register", "fd", "opcode"),
    "sys_exit_io_uring_register": _called("exit_register", "ret"),
    "sys_exit_io_uring_enter": _called("exit_enter", when=False),
    "sys_enter_io_cancel": _called("enter_io_cancel", "ctx_id", "iocb", "result"),
    "sys_exit_io_cancel": _called("exit_io_cancel", "ret"),
}
