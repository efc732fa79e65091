"""How the end of an operation is told: `SigEvent`.

Facts that this rests on:

- A notification of kind SIGEV_THREAD runs in a thread of the C library's, at some time after the
  operation has ended, also after everybody has forgotten the operation. So what it is given (the number
  of an eventfd that is our own, a duplicate of the caller's) lives in memory of malloc's and is only freed
  when as many notifications have come as were asked for.
- glibc says nothing when it can't start that thread (RLIMIT_NPROC, a container's limit on pids): the
  notification never comes, and the duplicate stays open to the end of the process.
- When a real-time signal can't be queued (RLIMIT_SIGPENDING), glibc *replaces the operation's result* by
  EAGAIN, although bytes were moved. SIGEV_THREAD and SIGEV_NONE have no such trap.
"""

import os
import signal
from collections import deque
from pathlib import Path
from typing import Protocol

from iocancel._native import ffi, lib
from iocancel.posix_aio.flags import Notify

__all__ = ["HasFileno", "SigEvent", "number"]

_INT_MAX = 2**31 - 1
_waiting: "deque[object]" = deque()  # notices whose SigEvent is gone, with notifications still to come


class HasFileno(Protocol):
    """What has a file descriptor: a file, a socket, a pipe's end."""

    def fileno(self) -> int:
        """The descriptor's number."""
        ...


def number(fd: object, asked: str) -> int:
    """The descriptor's number of `fd`, an int or an object with `fileno()`.

    Args:
        fd: what the caller gave.
        asked: the call, for the message.
    """
    value = fd
    if not isinstance(value, int):
        fileno = getattr(value, "fileno", None)
        if fileno is None:
            given = type(fd).__name__
            raise TypeError(f"{asked}: a file descriptor or an object with fileno() is needed, not {given}")
        value = fileno()
    if not isinstance(value, int) or not -1 <= value <= _INT_MAX:
        raise ValueError(f"{asked}: {value!r} is no file descriptor")
    return int(value)


def sweep(most: int) -> None:
    """Free those whose last notification has come by now, among the `most` notices waiting for longest."""
    for _ in range(most):
        try:
            notice = _waiting.popleft()
        except IndexError:
            return
        if not lib.ioc_notice_free(notice):
            _waiting.append(notice)


def waiting() -> int:
    """How many notices wait for notifications whose `SigEvent` is gone."""
    return len(_waiting)


class SigEvent:
    """How the end of an operation, or of a whole `lio_listio`, is told (sigevent(3type)).

    Made by `SigEvent.none()`, `SigEvent.signal()` and `SigEvent.thread()`; one may serve any number of
    operations, also at the same time.

    Attributes:
        notify (Notify): which kind.
        signo (int): the signal's number, 0 for the other kinds.
        value (int): what comes with the signal.
    """

    __slots__ = ("_c", "_notice", "notify", "signo", "value")

    def __init__(self) -> None:
        self._notice: object = None
        self._c = ffi.new("struct ioc_sigevent *")
        self.notify, self.signo, self.value = Notify.NONE, 0, 0
        lib.ioc_sigevent_none(self._c)

    @classmethod
    def none(cls) -> "SigEvent":
        """No notification: ask with `aio_error`, or wait with `aio_suspend`."""
        return cls()

    @classmethod
    def signal(cls, signo: int, value: int = 0) -> "SigEvent":
        """A signal, queued to the process when the operation ends (`si_code` is SI_ASYNCIO).

        The default action of most signals ends the process: install a handler, or block the signal, first.
        With a real-time signal a full queue (RLIMIT_SIGPENDING) costs the operation's result on glibc:
        `aio_error` is EAGAIN then, although the operation was done.

        Args:
            signo: the signal's number; SIGKILL and SIGSTOP, which nothing can handle, are refused.
            value: a C int that comes with it (`si_value.sival_int`).

        Returns:
            The description.

        Raises:
            ValueError: no such signal, one that can't be handled, or a value that is no C int.
            TypeError: something that is no int.

        POSIX, glibc 2.1, musl 1.1.9; man page: sigevent(3type).
        """
        if not isinstance(signo, int) or not isinstance(value, int):
            raise TypeError(f"SigEvent.signal({signo!r}, {value!r}): two integers are needed")
        if signo in (signal.SIGKILL, signal.SIGSTOP):
            name = signal.Signals(signo).name
            raise ValueError(f"SigEvent.signal: nothing can handle {name}: choose another signal")
        if signo not in signal.valid_signals():
            raise ValueError(f"SigEvent.signal: {signo} is no usable signal: see signal.valid_signals()")
        if not -_INT_MAX - 1 <= value <= _INT_MAX:
            raise ValueError(f"SigEvent.signal: the value {value} does not fit a C int")
        self = cls()
        self.notify, self.signo, self.value = Notify.SIGNAL, int(signo), value
        lib.ioc_sigevent_signal(self._c, self.signo, value)
        return self

    @classmethod
    def thread(cls, eventfd: "int | HasFileno") -> "SigEvent":
        """A thread of the C library's, which adds 1 to an eventfd when the operation ends.

        It is a C function that runs there, never Python. The eventfd is duplicated: closing yours is
        safe. An eventfd whose counter is full is left as it is.

        Args:
            eventfd: of `os.eventfd()`.

        Returns:
            The description; the duplicate is closed when it is collected and its last notification came.

        Raises:
            OSError: EBADF: it is not open; EMFILE: no descriptor is left for the duplicate.
            ValueError: it is not an eventfd.
            TypeError: it is neither an int nor an object with `fileno()`.

        POSIX, glibc 2.1, musl 1.1.9; man page: sigevent(3type). The thread is started anew each time; where
        it can't be, nothing is told and no error is seen (the man pages don't say so).
        """
        fd = number(eventfd, "SigEvent.thread")
        try:
            own = os.dup(fd)
        except OSError as error:
            text = f"{error.strerror}: SigEvent.thread: duplicating the eventfd {fd}"
            raise OSError(error.errno, text) from None
        try:
            kind = str(Path(f"/proc/self/fd/{own}").readlink())
        except OSError:  # no /proc: take it on trust
            kind = "[eventfd]"
        notice = lib.ioc_notice_new(own) if kind.endswith("[eventfd]") else None
        if not notice:
            os.close(own)
            if notice is None:
                raise ValueError(
                    f"SigEvent.thread: {fd} is {kind}, not an eventfd: make one with os.eventfd()"
                )
            raise MemoryError("SigEvent.thread")  # pragma: no cover - malloc has to fail
        self = cls()
        self.notify, self._notice = Notify.THREAD, notice
        lib.ioc_sigevent_thread(self._c, notice)
        return self

    def __del__(self) -> None:
        notice = getattr(self, "_notice", None)
        # `lib` is None where the interpreter has cleared this module.
        if notice is not None and lib is not None and not lib.ioc_notice_free(notice):
            _waiting.append(notice)

    def __repr__(self) -> str:
        if self.notify is Notify.SIGNAL:
            return f"SigEvent.signal({self.signo}, {self.value})"
        return f"<SigEvent {self.notify.name}>"
