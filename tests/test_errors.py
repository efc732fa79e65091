"""The table of errnos and exceptions."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from typing import Any

import pytest

import iocancel
from iocancel import errors

ROWS: list[tuple[int, str, type[OSError]]] = [
    (errno.ECANCELED, "io_uring_prep_read", errors.OperationCancelled),
    (errno.ECANCELED, "aio_return", errors.OperationCancelled),
    (errno.ENOENT, "io_uring_prep_cancel", errors.CancelNotFound),
    (errno.ENOENT, "io_uring_prep_cancel64", errors.CancelNotFound),
    (errno.ENOENT, "io_uring_prep_cancel_fd", errors.CancelNotFound),
    (errno.ENOENT, "IORING_OP_ASYNC_CANCEL", errors.CancelNotFound),
    (errno.ENOENT, "io_uring_register_sync_cancel", errors.CancelNotFound),
    (errno.ENOENT, "io_uring_prep_timeout_remove", errors.CancelNotFound),
    (errno.ENOENT, "io_uring_prep_poll_remove", errors.CancelNotFound),
    (errno.EINVAL, "io_cancel", errors.CancelNotFound),
    (errno.EALREADY, "io_uring_prep_cancel64", errors.CancelTooLate),
    (errno.EAGAIN, "io_cancel", errors.CancelTooLate),
    (errno.ETIME, "io_uring_register_sync_cancel", errors.CancelTimeout),
    (errno.EEXIST, "io_uring_submit", errors.WrongThread),
    (errno.EEXIST, "io_uring_register_sync_cancel", errors.WrongThread),
    (errno.EEXIST, "io_uring_register_files", errors.WrongThread),
    (errno.EAGAIN, "io_uring_submit", errors.QueueFull),
    (errno.EBUSY, "io_uring_enter", errors.QueueFull),
    (errno.EAGAIN, "io_submit", errors.QueueFull),
    (errno.EPERM, "io_uring_queue_init_params", errors.EngineUnavailable),
    (errno.ENOSYS, "io_uring_setup", errors.EngineUnavailable),
    (errno.ENOMEM, "io_uring_setup", errors.EngineUnavailable),
    (errno.EMFILE, "io_uring_setup", errors.EngineUnavailable),
    (errno.EIO, "io_uring_setup", errors.EngineUnavailable),
    (errno.EAGAIN, "io_setup", errors.EngineUnavailable),
    (errno.ENOSYS, "io_setup", errors.EngineUnavailable),
    (errno.EPERM, "io_setup", errors.EngineUnavailable),
    (errno.ENOMEM, "io_setup", errors.EngineUnavailable),
    (errno.EIO, "io_setup", errors.EngineUnavailable),
]


@pytest.mark.parametrize(("number", "call", "kind"), ROWS)
def test_the_table(number: int, call: str, kind: type[OSError]) -> None:
    with pytest.raises(kind) as caught:
        errors.check(-number, call)
    assert type(caught.value) is kind
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    if not issubclass(kind, errors.EngineUnavailable):
        assert call in str(caught.value)


@pytest.mark.parametrize(
    ("number", "call", "kind"),
    [
        (errno.ENOENT, "io_uring_prep_openat", FileNotFoundError),
        (errno.EAGAIN, "io_uring_prep_read", BlockingIOError),
        (errno.ECONNRESET, "io_uring_prep_recv", ConnectionResetError),
        (errno.EEXIST, "io_uring_prep_mkdirat", FileExistsError),
        (errno.EINTR, "io_uring_prep_read", InterruptedError),
        (errno.EPIPE, "write", BrokenPipeError),
        (errno.EINVAL, "io_uring_setup", OSError),
        (errno.EINVAL, "io_uring_prep_cancel64", OSError),
    ],
)
def test_elsewhere_pythons_own_choice_stands(number: int, call: str, kind: type[OSError]) -> None:
    with pytest.raises(kind) as caught:
        errors.check(-number, call)
    assert type(caught.value) is kind
    assert caught.value.errno == number
    assert call in str(caught.value)


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EALREADY, errno.EEXIST, errno.EAGAIN, errno.ETIME])
def test_without_a_call_what_is_ambiguous_is_a_plain_error(number: int) -> None:
    with pytest.raises(OSError) as caught:
        errors.check(-number, "")
    assert type(caught.value) is OSError
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)


def test_results_pass() -> None:
    assert errors.check(0, "anything") == 0
    assert errors.check(5, "io_cancel") == 5
    assert iocancel.check is errors.check


@pytest.mark.parametrize("leaked", [512, 513, 514, 516])
def test_what_the_kernel_leaks_means_eintr(leaked: int) -> None:
    with pytest.raises(InterruptedError) as caught:
        errors.check(-leaked, "io_uring_prep_openat")
    assert caught.value.errno == errno.EINTR


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_feature_that_is_not_there(number: int) -> None:
    with pytest.raises(errors.FeatureUnavailable) as caught:
        errors.check(-number, "io_uring_register_sync_cancel", feature="SYNC_CANCEL", since="6.0")
    error = caught.value
    assert (error.errno, error.feature, error.since) == (number, "SYNC_CANCEL", "6.0")
    assert error.running == f"Linux {os.uname().release}"
    assert "SYNC_CANCEL needs Linux 6.0; this is Linux" in str(error)
    with pytest.raises(FileNotFoundError):
        errors.check(-errno.ENOENT, "openat", feature="X", since="6.0")
    other = errors.feature_unavailable("aio_init", "glibc", "aio_init")
    assert "aio_init needs glibc" in str(other)
    assert "X is not there" in str(errors.feature_unavailable("X", "", "x"))
    assert str(errors.FeatureUnavailable(22, "text")) == "[Errno 22] text"
    assert str(errors.EngineUnavailable(1, "text")) == "[Errno 1] text"


@pytest.mark.parametrize(
    ("number", "disabled", "reason", "remedy"),
    [
        (errno.EPERM, "2", "io_uring_disabled=2 forbids io_uring to every process", "set it to 0"),
        (errno.EPERM, "1", "without CAP_SYS_ADMIN", "io_uring_group"),
        (errno.EPERM, "0", "seccomp", "--security-opt"),
        (errno.EPERM, "", "seccomp", "libaio"),
        (errno.ENOSYS, "0", "no io_uring", "5.10"),
        (errno.ENOMEM, "0", "RLIMIT_MEMLOCK is", "ulimit -l"),
        (errno.EMFILE, "0", "file descriptor", "RLIMIT_NOFILE"),
    ],
)
def test_reasons_and_remedies(
    monkeypatch: pytest.MonkeyPatch, number: int, disabled: str, reason: str, remedy: str
) -> None:
    monkeypatch.setattr(errors, "_sysctl", lambda name: disabled)
    error = errors.engine_unavailable(number, "io_uring_setup")
    assert reason in error.reason
    assert remedy in error.remedy
    assert error.reason in str(error)
    assert error.remedy in str(error)


def test_the_sysctls_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors._sysctl("kernel/osrelease") == os.uname().release
    assert errors._sysctl("kernel/there/is/none") == ""
    assert "aio-max-nr" in errors.engine_unavailable(errno.EAGAIN, "io_setup").reason
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert "unlimited" in errors.engine_unavailable(errno.ENOMEM, "io_uring_setup").reason


def test_what_they_are() -> None:
    assert issubclass(errors.CancelTimeout, TimeoutError)
    assert not issubclass(errors.Cancelled, Exception)
    for name in errors.__all__:
        thing: Any = getattr(errors, name)
        assert getattr(iocancel, name) is thing
        if isinstance(thing, type) and issubclass(thing, OSError):
            copy = pickle.loads(pickle.dumps(thing(5, "text")))
            assert (type(copy), copy.errno) == (thing, 5)
    error = pickle.loads(pickle.dumps(errors.engine_unavailable(errno.ENOSYS, "io_uring_setup")))
    assert error.remedy
