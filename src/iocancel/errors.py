"""The exceptions, and the one place where a negated errno becomes one.

The kernel's interfaces answer with a negated errno. Python's own choice of subclass is right for I/O
(`BlockingIOError`, `ConnectionResetError` ...) but misleads about cancelling: ENOENT would become
FileNotFoundError, EALREADY BlockingIOError, EEXIST FileExistsError. So the calls that cancel, submit
and set up have exceptions of their own here, each an `OSError` with the true errno.
"""

import errno as _errno
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path

__all__ = [
    "CancelNotFound",
    "CancelTimeout",
    "CancelTooLate",
    "Cancelled",
    "EngineUnavailable",
    "FeatureUnavailable",
    "OperationCancelled",
    "OperationTimedOut",
    "QueueFull",
    "WrongThread",
    "check",
]


class OperationCancelled(OSError):
    """The operation was cancelled: it did not happen (errno ECANCELED)."""


class OperationTimedOut(OperationCancelled, TimeoutError):
    """The operation was cancelled by a deadline: it did not happen (errno ECANCELED)."""


class CancelNotFound(OSError):
    """Nothing matched the cancel (ENOENT from io_uring, EINVAL from io_cancel).

    It does not mean that the target has ended: direct I/O in flight is not found either. Only the
    target's own completion says that it has ended.
    """


class CancelTooLate(OSError):
    """The target was found, but runs and can't be stopped any more (EALREADY, EAGAIN).

    Its own completion will come, and says how it ended.
    """


class CancelTimeout(TimeoutError):
    """A synchronous cancel ran out of time (ETIME). The target may have been interrupted all the same."""


class WrongThread(OSError):
    """A single-issuer ring was used from a thread other than its own (EEXIST)."""


class QueueFull(OSError):
    """No submission entry is free, or the kernel has no room for another request (EAGAIN, EBUSY).

    Nothing was lost: submit and reap, then go on.
    """


class EngineUnavailable(OSError):
    """The system can't be had here: forbidden, absent, or out of a limited resource.

    Attributes:
        reason (str): why, as far as it can be found out.
        remedy (str): what to do about it.
    """

    reason: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.reason}. {self.remedy}" if self.reason else super().__str__()


class FeatureUnavailable(OSError):
    """This kernel, or this engine, lacks what was asked for (EINVAL, EOPNOTSUPP, ENOSYS).

    Attributes:
        feature (str): what was asked for, by its C name.
        since (str): the first kernel that has it, or what has it ("glibc").
        running (str): the kernel that runs here.
    """

    feature: str = ""
    since: str = ""
    running: str = ""

    def __str__(self) -> str:
        if not self.feature:
            return super().__str__()
        since = f"Linux {self.since}" if self.since[:1].isdigit() else self.since
        lacking = f"{self.feature} needs {since}" if since else f"{self.feature} is not there"
        return f"{super().__str__()}: {lacking}; this is {self.running}"


class Cancelled(BaseException):
    """Raised by a verb inside a cancelled scope; the scope that was cancelled catches it.

    A `BaseException`, so that `except Exception` does not swallow it: let it pass.
    """


def plain(number: int, call: str = "") -> OSError:
    """An `OSError` of no subclass, for an errno whose subclass would mislead.

    Args:
        number: the errno, positive.
        call: the call's name, or "".
    """
    error = OSError()  # with its arguments given here, Python would choose the subclass
    error.errno = number
    error.strerror = _text(number, call)
    error.args = (error.errno, error.strerror)
    return error


def feature_unavailable(
    feature: str, since: str, call: str, number: int = _errno.EINVAL
) -> FeatureUnavailable:
    """The exception for a feature that this kernel lacks.

    Args:
        feature: what was asked for, by its C name.
        since: the first kernel that has it, as "5.19".
        call: the call that refused it.
        number: the errno, positive.
    """
    error = FeatureUnavailable(number, _text(number, call))
    error.feature, error.since, error.running = feature, since, f"Linux {platform.release()}"
    return error


def engine_unavailable(number: int, call: str) -> EngineUnavailable:
    """The exception for a system that can't be had, with its reason and remedy looked up here and now.

    Args:
        number: the errno, positive.
        call: the call that was refused: "io_uring_setup" or "io_setup".
    """
    error = EngineUnavailable(number, _text(number, call))
    error.reason, error.remedy = (_aio_reason if call == "io_setup" else _uring_reason)(number)
    return error


def _text(number: int, call: str) -> str:
    return f"{os.strerror(number)}: {call}" if call else os.strerror(number)


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return ""


def _uring_reason(number: int) -> tuple[str, str]:
    disabled = _sysctl("kernel/io_uring_disabled")
    if number == _errno.EPERM and disabled in ("1", "2"):
        who = "every process" if disabled == "2" else "processes without CAP_SYS_ADMIN"
        return (
            f"kernel.io_uring_disabled={disabled} forbids io_uring to {who}",
            "set it to 0 (sysctl kernel.io_uring_disabled=0)"
            + (", or join the group of kernel.io_uring_group" if disabled == "1" else ""),
        )
    if number in (_errno.EPERM, _errno.EACCES):
        return (
            "io_uring is forbidden here, most likely by a seccomp profile (container engines have one)",
            (
                "run the container with a profile that allows io_uring_setup, io_uring_enter and "
                "io_uring_register (--security-opt seccomp=...), or use libaio or POSIX AIO"
            ),
        )
    if number == _errno.ENOSYS:
        return (
            "this kernel has no io_uring (before 5.1, built without it, or hidden by a seccomp profile)",
            (
                "use a kernel from 5.10 on, allow the io_uring calls in the seccomp profile, "
                "or use libaio or POSIX AIO"
            ),
        )
    if number == _errno.ENOMEM:
        soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        limit = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft} bytes"
        return (
            (
                f"no memory for the ring (RLIMIT_MEMLOCK is {limit}, for all rings of the user together, "
                "and what closed rings held is given back late)"
            ),
            "raise it (ulimit -l, LimitMEMLOCK=), use fewer or smaller rings, or try again after a moment",
        )
    if number in (_errno.EMFILE, _errno.ENFILE):
        return ("no file descriptor is left", "raise RLIMIT_NOFILE (ulimit -n) or close some")
    return ("the kernel refused the ring", "look at the set-up flags and at dmesg")


def _aio_reason(number: int) -> tuple[str, str]:
    if number == _errno.EAGAIN:
        used, most = _sysctl("fs/aio-nr"), _sysctl("fs/aio-max-nr")
        return (
            f"fs.aio-max-nr is reached ({used} of {most} requests are set aside)",
            "raise it (sysctl fs.aio-max-nr=1048576) or ask for fewer requests",
        )
    if number == _errno.ENOSYS:
        return (
            "this kernel has no Linux AIO (built without CONFIG_AIO, or hidden by a seccomp profile)",
            "allow io_setup, io_submit, io_cancel, io_getevents and io_destroy, or use io_uring or POSIX AIO",
        )
    if number in (_errno.EPERM, _errno.EACCES):
        return (
            "Linux AIO is forbidden here, most likely by a seccomp profile",
            "allow io_setup, io_submit, io_cancel, io_getevents and io_destroy, or use io_uring or POSIX AIO",
        )
    if number == _errno.ENOMEM:
        return ("no memory for the context", "ask for fewer requests")
    return ("the kernel refused the context", "look at the number of requests that was asked for")


# Calls by what their errnos mean. Prefixes are taken off, so that the C name of the preparing
# function, of the system call and of the opcode all name the same row.
_CANCELS = frozenset(
    [
        "cancel",
        "cancel64",
        "cancel_fd",
        "async_cancel",
        "register_sync_cancel",
        "sync_cancel",
        "poll_remove",
        "poll_update",
        "timeout_remove",
        "timeout_update",
    ]
)
_SUBMITS = frozenset(
    [
        "submit",
        "submit_and_wait",
        "submit_and_wait_timeout",
        "submit_and_get_events",
        "enter",
        "enter2",
        "get_events",
        "get_sqe",
    ]
)
_SETUPS = frozenset(["setup", "queue_init", "queue_init_params", "queue_init_mem"])
_AIO_CANCELS = frozenset(["io_cancel"])

_ALL_CALLS: dict[int, type[OSError]] = {_errno.ECANCELED: OperationCancelled}
_ROWS: tuple[tuple[Callable[[str], bool], dict[int, type[OSError]]], ...] = (
    (
        _CANCELS.__contains__,
        {
            _errno.ENOENT: CancelNotFound,
            _errno.EALREADY: CancelTooLate,
            _errno.EAGAIN: CancelTooLate,
            _errno.ETIME: CancelTimeout,
            _errno.EEXIST: WrongThread,
        },
    ),
    (_AIO_CANCELS.__contains__, {_errno.EINVAL: CancelNotFound, _errno.EAGAIN: CancelTooLate}),
    (
        _SUBMITS.__contains__,
        {_errno.EAGAIN: QueueFull, _errno.EBUSY: QueueFull, _errno.EEXIST: WrongThread},
    ),
    (lambda call: call.startswith("register_") or call == "enable_rings", {_errno.EEXIST: WrongThread}),
    (lambda call: call == "io_submit", {_errno.EAGAIN: QueueFull}),
)


def _short(call: str) -> str:
    for prefix in ("IORING_OP_", "io_uring_", "prep_"):
        call = call.removeprefix(prefix)
    return call.lower()


def check(res: int, call: str, *, feature: str = "", since: str = "") -> int:
    """The result of a call, or the exception for it.

    Args:
        res: what the call returned: a value `>= 0`, or a negated errno.
        call: the call's name, as the C library or the kernel spells it ("io_uring_prep_cancel64",
            "io_cancel", "openat"). It decides what an errno means, and is named in the message.
        feature: what the call needed that a kernel may lack, by its C name; with it, EINVAL, EOPNOTSUPP
            and ENOSYS become `FeatureUnavailable`.
        since: the first kernel that has `feature`.

    Returns:
        `res`, when it is `>= 0`.

    Raises:
        OSError: for any other result, with the true errno; the subclass is this module's where the call
            cancels, submits or sets up (see the module's text), and Python's own otherwise.
    """
    if res >= 0:
        return res
    number, short = -res, _short(call)
    if 512 <= number <= 516:
        # -ERESTARTSYS and its kin leak from a worker that a cancel interrupted: they mean EINTR.
        number = _errno.EINTR
    if feature and number in (_errno.EINVAL, _errno.EOPNOTSUPP, _errno.ENOSYS):
        raise feature_unavailable(feature, since, call, number)
    if short in _SETUPS or short == "io_setup":
        if number != _errno.EINVAL:
            raise engine_unavailable(number, "io_setup" if short == "io_setup" else "io_uring_setup")
        raise OSError(number, _text(number, call))
    for applies, row in _ROWS:
        if applies(short) and number in row:
            raise row[number](number, _text(number, call))
    if number in _ALL_CALLS:
        raise _ALL_CALLS[number](number, _text(number, call))
    if not call and number in (_errno.ENOENT, _errno.EALREADY, _errno.EEXIST, _errno.EAGAIN, _errno.ETIME):
        raise plain(number)  # nobody knows which call this was: no subclass can be right
    raise OSError(number, _text(number, call))
