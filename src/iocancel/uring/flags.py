"""The flags and numbers of io_uring, one type per C argument; every value comes from the C compiler.

The kernel takes whatever bits it is given: `IOSQE_IO_DRAIN` is 2, and so is
`IORING_ASYNC_CANCEL_FD`. Each argument here takes its own type (or a plain `int`) and nothing else.
"""

from enum import IntFlag
from typing import TypeVar

from iocancel._native import lib

__all__ = [
    "AcceptFlags",
    "CancelFlags",
    "CqeFlags",
    "Features",
    "FsyncFlags",
    "MsgRingFlags",
    "PollFlags",
    "RecvSendFlags",
    "SetupFlags",
    "SqeFlags",
    "TimeoutFlags",
    "bits",
]


class CancelFlags(IntFlag):
    """What a cancel matches (io_uring_prep_cancel(3), io_uring_register_sync_cancel(3)).

    0 and USERDATA match by user_data, one request. What a combination gives is in `docs/kernel-facts.md`.
    """

    ALL = lib.IORING_ASYNC_CANCEL_ALL
    """Every match and not only one; the result is their number, 0 where there is none. Linux 5.19."""
    FD = lib.IORING_ASYNC_CANCEL_FD
    """By the open file that an fd refers to (a dup of it matches, too). Linux 5.19."""
    ANY = lib.IORING_ASYNC_CANCEL_ANY
    """Everything in the ring; it means ALL by itself. Linux 5.19."""
    FD_FIXED = lib.IORING_ASYNC_CANCEL_FD_FIXED
    """The fd is an index of the registered files; ignored without FD. Linux 6.0."""
    USERDATA = lib.IORING_ASYNC_CANCEL_USERDATA
    """By user_data as well, beside FD or OP. Linux 6.6 (Debian's 6.1 takes it and ignores it)."""
    OP = lib.IORING_ASYNC_CANCEL_OP
    """By opcode. Linux 6.6 (Debian's 6.1 takes it and matches something else)."""


class SqeFlags(IntFlag):
    """How an entry is handled (io_uring_sqe_set_flags(3), io_uring_enter(2))."""

    FIXED_FILE = lib.IOSQE_FIXED_FILE
    """The entry's fd is an index of the registered files. Linux 5.1."""
    IO_DRAIN = lib.IOSQE_IO_DRAIN
    """Start only when all before it have ended; later entries wait, cancels too. Linux 5.2."""
    IO_LINK = lib.IOSQE_IO_LINK
    """The next entry starts when this one has succeeded, and is cancelled when it has not. Linux 5.3."""
    IO_HARDLINK = lib.IOSQE_IO_HARDLINK
    """The next entry starts when this one has ended, however it ended. Linux 5.5."""
    ASYNC = lib.IOSQE_ASYNC
    """Go to a worker thread at once. Linux 5.6."""
    BUFFER_SELECT = lib.IOSQE_BUFFER_SELECT
    """The kernel picks a buffer of the group `buf_group`. Linux 5.7."""
    CQE_SKIP_SUCCESS = lib.IOSQE_CQE_SKIP_SUCCESS
    """No completion where the request succeeds. Linux 5.17."""


class CqeFlags(IntFlag):
    """What a completion says beside its result (io_uring(7))."""

    BUFFER = lib.IORING_CQE_F_BUFFER
    """The upper 16 bits of the flags are the number of the buffer that was picked. Linux 5.7."""
    MORE = lib.IORING_CQE_F_MORE
    """The request goes on: more completions will come. Linux 5.13."""
    SOCK_NONEMPTY = lib.IORING_CQE_F_SOCK_NONEMPTY
    """The socket had more to read. Linux 5.19."""
    NOTIF = lib.IORING_CQE_F_NOTIF
    """A zero-copy send has given its memory back. Linux 6.0."""
    BUF_MORE = lib.IORING_CQE_F_BUF_MORE
    """The picked buffer has room left and will be used again. Linux 6.12."""
    SKIP = lib.IORING_CQE_F_SKIP
    """A gap in the queue, no completion. Linux 6.19."""
    CQE32 = lib.IORING_CQE_F_32
    """A completion of 32 bytes. Linux 6.18."""


class SetupFlags(IntFlag):
    """How a ring works (io_uring_setup(2)). `Ring` says which of them it offers."""

    IOPOLL = lib.IORING_SETUP_IOPOLL
    """Completions are polled for, for O_DIRECT on devices that can; such rings can't cancel. Linux 5.1."""
    SQPOLL = lib.IORING_SETUP_SQPOLL
    """A kernel thread submits. Linux 5.1, without privileges 5.11."""
    SQ_AFF = lib.IORING_SETUP_SQ_AFF
    """The SQPOLL thread stays on one processor. Linux 5.1."""
    CQSIZE = lib.IORING_SETUP_CQSIZE
    """The completion queue's size is given; `cq_entries=` sets it. Linux 5.5."""
    CLAMP = lib.IORING_SETUP_CLAMP
    """Sizes beyond the kernel's limits are brought down to them. Linux 5.6."""
    ATTACH_WQ = lib.IORING_SETUP_ATTACH_WQ
    """Share another ring's workers; `attach=` sets it. Linux 5.6."""
    R_DISABLED = lib.IORING_SETUP_R_DISABLED
    """Start disabled, until `Ring.enable()`. Linux 5.10."""
    SUBMIT_ALL = lib.IORING_SETUP_SUBMIT_ALL
    """An invalid entry does not stop the ones behind it from being submitted. Linux 5.18."""
    COOP_TASKRUN = lib.IORING_SETUP_COOP_TASKRUN
    """The submitting thread is not interrupted for completions. Linux 5.19."""
    TASKRUN_FLAG = lib.IORING_SETUP_TASKRUN_FLAG
    """A flag says that completions wait for the submitting thread. Linux 5.19."""
    SQE128 = lib.IORING_SETUP_SQE128
    """Entries of 128 bytes. Not offered: no request here fills them. Linux 5.19."""
    CQE32 = lib.IORING_SETUP_CQE32
    """Completions of 32 bytes. Not offered: no request here needs them. Linux 5.19."""
    SINGLE_ISSUER = lib.IORING_SETUP_SINGLE_ISSUER
    """Only one thread may use the ring. Linux 6.0."""
    DEFER_TASKRUN = lib.IORING_SETUP_DEFER_TASKRUN
    """Completions are made only when asked for; needs SINGLE_ISSUER. Linux 6.1."""
    NO_MMAP = lib.IORING_SETUP_NO_MMAP
    """The program brings the ring's memory. Not offered. Linux 6.5."""
    REGISTERED_FD_ONLY = lib.IORING_SETUP_REGISTERED_FD_ONLY
    """The ring has no fd. Not offered. Linux 6.5."""
    NO_SQARRAY = lib.IORING_SETUP_NO_SQARRAY
    """No index array. Not offered: liburing sees to it by itself. Linux 6.6."""
    HYBRID_IOPOLL = lib.IORING_SETUP_HYBRID_IOPOLL
    """With IOPOLL: sleep a while before polling. Linux 6.13."""
    CQE_MIXED = lib.IORING_SETUP_CQE_MIXED
    """Completions of both sizes. Not offered. Linux 6.18."""
    SQE_MIXED = lib.IORING_SETUP_SQE_MIXED
    """Entries of both sizes. Not offered. Linux 6.19."""
    SQ_REWIND = lib.IORING_SETUP_SQ_REWIND
    """The submission queue always starts at 0. Not offered. Linux 7.0."""


class Features(IntFlag):
    """What the kernel says that its rings can do (io_uring_setup(2))."""

    SINGLE_MMAP = lib.IORING_FEAT_SINGLE_MMAP
    """Both queues are one mapping. Linux 5.4."""
    NODROP = lib.IORING_FEAT_NODROP
    """Completions that find no room are kept. Linux 5.5."""
    SUBMIT_STABLE = lib.IORING_FEAT_SUBMIT_STABLE
    """What an entry points to is read at submission. Linux 5.5."""
    RW_CUR_POS = lib.IORING_FEAT_RW_CUR_POS
    """Offset -1 is the file's position. Linux 5.6."""
    CUR_PERSONALITY = lib.IORING_FEAT_CUR_PERSONALITY
    """Requests run with the credentials of who submits. Linux 5.6."""
    FAST_POLL = lib.IORING_FEAT_FAST_POLL
    """What would block is polled for, with no worker. Linux 5.7."""
    POLL_32BITS = lib.IORING_FEAT_POLL_32BITS
    """Poll masks have 32 bits. Linux 5.9."""
    SQPOLL_NONFIXED = lib.IORING_FEAT_SQPOLL_NONFIXED
    """SQPOLL works with files that are not registered. Linux 5.11."""
    EXT_ARG = lib.IORING_FEAT_EXT_ARG
    """A wait has a timeout of its own. Linux 5.11."""
    NATIVE_WORKERS = lib.IORING_FEAT_NATIVE_WORKERS
    """Workers are threads of the process. Linux 5.12."""
    RSRC_TAGS = lib.IORING_FEAT_RSRC_TAGS
    """Registered files and buffers have tags and updates. Linux 5.13."""
    CQE_SKIP = lib.IORING_FEAT_CQE_SKIP
    """`SqeFlags.CQE_SKIP_SUCCESS` works. Linux 5.17."""
    LINKED_FILE = lib.IORING_FEAT_LINKED_FILE
    """A linked entry's file is looked up when it starts. Linux 5.17."""
    REG_REG_RING = lib.IORING_FEAT_REG_REG_RING
    """Registration works by a registered ring fd. Linux 6.3."""
    RECVSEND_BUNDLE = lib.IORING_FEAT_RECVSEND_BUNDLE
    """Sends and receives can use several buffers at once. Linux 6.10."""
    MIN_TIMEOUT = lib.IORING_FEAT_MIN_TIMEOUT
    """A wait can have a least time. Linux 6.12."""
    RW_ATTR = lib.IORING_FEAT_RW_ATTR
    """Reads and writes carry attributes. Linux 6.13."""
    NO_IOWAIT = lib.IORING_FEAT_NO_IOWAIT
    """Waiting need not count as iowait. Linux 6.15."""


class TimeoutFlags(IntFlag):
    """How a timeout is meant (io_uring_prep_timeout(3))."""

    ABS = lib.IORING_TIMEOUT_ABS
    """A point of time and not a duration. Linux 5.5."""
    BOOTTIME = lib.IORING_TIMEOUT_BOOTTIME
    """By CLOCK_BOOTTIME. Linux 5.15."""
    REALTIME = lib.IORING_TIMEOUT_REALTIME
    """By CLOCK_REALTIME. Linux 5.15."""
    LINK_UPDATE = lib.IORING_LINK_TIMEOUT_UPDATE
    """The timeout to update is a link timeout. Linux 5.15."""
    ETIME_SUCCESS = lib.IORING_TIMEOUT_ETIME_SUCCESS
    """Running out counts as success for links and for CQE_SKIP_SUCCESS. Linux 5.16."""
    MULTISHOT = lib.IORING_TIMEOUT_MULTISHOT
    """It fires again and again. Linux 6.4."""


class PollFlags(IntFlag):
    """How a poll is updated (io_uring_prep_poll_update(3))."""

    ADD_MULTI = lib.IORING_POLL_ADD_MULTI
    """The poll stays armed. Linux 5.13."""
    UPDATE_EVENTS = lib.IORING_POLL_UPDATE_EVENTS
    """Change what is waited for. Linux 5.13."""
    UPDATE_USER_DATA = lib.IORING_POLL_UPDATE_USER_DATA
    """Change the user_data. Linux 5.13."""
    ADD_LEVEL = lib.IORING_POLL_ADD_LEVEL
    """Level-triggered; no kernel takes it in a poll's entry. Linux 6.0."""


class RecvSendFlags(IntFlag):
    """How io_uring goes about a send or receive: its `ioprio` (io_uring_prep_send(3))."""

    POLL_FIRST = lib.IORING_RECVSEND_POLL_FIRST
    """Poll before the first attempt. Linux 5.19."""
    RECV_MULTISHOT = lib.IORING_RECV_MULTISHOT
    """Receive again and again; `prep_recv_multishot` sets it. Linux 6.0."""
    FIXED_BUF = lib.IORING_RECVSEND_FIXED_BUF
    """The memory is a registered buffer. Linux 6.0."""
    SEND_ZC_REPORT_USAGE = lib.IORING_SEND_ZC_REPORT_USAGE
    """The notification says whether the data was copied. Linux 6.2."""
    BUNDLE = lib.IORING_RECVSEND_BUNDLE
    """Use several picked buffers at once. Linux 6.10."""
    SEND_VECTORIZED = lib.IORING_SEND_VECTORIZED
    """The memory is an array of iovecs. Linux 6.17."""


class AcceptFlags(IntFlag):
    """How io_uring goes about an accept: its `ioprio` (io_uring_prep_accept(3))."""

    MULTISHOT = lib.IORING_ACCEPT_MULTISHOT
    """Accept again and again; `prep_multishot_accept` sets it. Linux 5.19."""
    DONTWAIT = lib.IORING_ACCEPT_DONTWAIT
    """-EAGAIN where nobody waits. Linux 6.10."""
    POLL_FIRST = lib.IORING_ACCEPT_POLL_FIRST
    """Poll before the first attempt. Linux 6.10."""


class MsgRingFlags(IntFlag):
    """How a message to a ring is delivered (io_uring_prep_msg_ring(3))."""

    CQE_SKIP = lib.IORING_MSG_RING_CQE_SKIP
    """With an fd: no completion in the target ring. Linux 6.0."""
    FLAGS_PASS = lib.IORING_MSG_RING_FLAGS_PASS
    """The completion's flags are given, too. Linux 6.3."""


class FsyncFlags(IntFlag):
    """How a file is synced (io_uring_prep_fsync(3))."""

    DATASYNC = lib.IORING_FSYNC_DATASYNC
    """As fdatasync(2). Linux 5.1."""


_Flag = TypeVar("_Flag", bound=IntFlag)


def bits(kind: type[_Flag], value: int, argument: str) -> int:
    """The number behind a flags argument, or the exception for a wrong one.

    Args:
        kind: the flag type that the argument takes.
        value: what was given.
        argument: the argument's name, for the message.

    Raises:
        TypeError: for anything but `kind` and a plain `int`: flags of another kind above all.
        ValueError: for bits that `kind` does not have.
    """
    given = type(value)
    if given is not kind and given is not int:
        raise TypeError(f"{argument} takes {kind.__name__} or int, not {given.__name__}: {value!r}")
    number = int(value)
    if number & ~_ALL_BITS[kind]:
        raise ValueError(f"{argument}: {number:#x} has bits that {kind.__name__} does not know")
    return number


def _all_bits(kind: type[IntFlag]) -> int:
    total = 0
    for member in kind:
        total |= member.value
    return total


_ALL_BITS: dict[type[IntFlag], int] = {
    kind: _all_bits(kind) for kind in IntFlag.__subclasses__() if kind.__module__ == __name__
}
