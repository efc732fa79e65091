"""The kinds of request (io_uring_enter(2)), and which kernel had each of them first."""

from enum import IntEnum

from iocancel._native import lib

__all__ = ["SINCE", "Opcode"]


class Opcode(IntEnum):
    """The kinds of request, by their C names less `IORING_OP_`."""

    NOP = lib.IORING_OP_NOP
    """Nothing. Linux 5.1."""
    READV = lib.IORING_OP_READV
    """preadv2(2). Linux 5.1."""
    WRITEV = lib.IORING_OP_WRITEV
    """pwritev2(2). Linux 5.1."""
    FSYNC = lib.IORING_OP_FSYNC
    """fsync(2), fdatasync(2). Linux 5.1."""
    READ_FIXED = lib.IORING_OP_READ_FIXED
    """A read into a registered buffer. Linux 5.1."""
    WRITE_FIXED = lib.IORING_OP_WRITE_FIXED
    """A write from a registered buffer. Linux 5.1."""
    POLL_ADD = lib.IORING_OP_POLL_ADD
    """poll(2) of one file, once or again and again. Linux 5.1."""
    POLL_REMOVE = lib.IORING_OP_POLL_REMOVE
    """Ends or changes a poll. Linux 5.1."""
    SYNC_FILE_RANGE = lib.IORING_OP_SYNC_FILE_RANGE
    """sync_file_range(2). Linux 5.2."""
    SENDMSG = lib.IORING_OP_SENDMSG
    """sendmsg(2). Linux 5.3."""
    RECVMSG = lib.IORING_OP_RECVMSG
    """recvmsg(2). Linux 5.3."""
    TIMEOUT = lib.IORING_OP_TIMEOUT
    """A timer. Linux 5.4."""
    TIMEOUT_REMOVE = lib.IORING_OP_TIMEOUT_REMOVE
    """Ends or changes a timer. Linux 5.5."""
    ACCEPT = lib.IORING_OP_ACCEPT
    """accept4(2). Linux 5.5."""
    ASYNC_CANCEL = lib.IORING_OP_ASYNC_CANCEL
    """Cancels requests. Linux 5.5."""
    LINK_TIMEOUT = lib.IORING_OP_LINK_TIMEOUT
    """A time limit for the request before it. Linux 5.5."""
    CONNECT = lib.IORING_OP_CONNECT
    """connect(2). Linux 5.5."""
    FALLOCATE = lib.IORING_OP_FALLOCATE
    """fallocate(2). Linux 5.6."""
    OPENAT = lib.IORING_OP_OPENAT
    """openat(2). Linux 5.6."""
    CLOSE = lib.IORING_OP_CLOSE
    """close(2). Linux 5.6."""
    FILES_UPDATE = lib.IORING_OP_FILES_UPDATE
    """Changes the registered files. Linux 5.6."""
    STATX = lib.IORING_OP_STATX
    """statx(2). Linux 5.6."""
    READ = lib.IORING_OP_READ
    """pread(2), read(2). Linux 5.6."""
    WRITE = lib.IORING_OP_WRITE
    """pwrite(2), write(2). Linux 5.6."""
    FADVISE = lib.IORING_OP_FADVISE
    """posix_fadvise(2). Linux 5.6."""
    MADVISE = lib.IORING_OP_MADVISE
    """madvise(2). Linux 5.6."""
    SEND = lib.IORING_OP_SEND
    """send(2). Linux 5.6."""
    RECV = lib.IORING_OP_RECV
    """recv(2). Linux 5.6."""
    OPENAT2 = lib.IORING_OP_OPENAT2
    """openat2(2). Linux 5.6."""
    EPOLL_CTL = lib.IORING_OP_EPOLL_CTL
    """epoll_ctl(2). Linux 5.6."""
    SPLICE = lib.IORING_OP_SPLICE
    """splice(2). Linux 5.7."""
    PROVIDE_BUFFERS = lib.IORING_OP_PROVIDE_BUFFERS
    """Gives the kernel buffers to pick from. Linux 5.7."""
    REMOVE_BUFFERS = lib.IORING_OP_REMOVE_BUFFERS
    """Takes them back. Linux 5.7."""
    TEE = lib.IORING_OP_TEE
    """tee(2). Linux 5.8."""
    SHUTDOWN = lib.IORING_OP_SHUTDOWN
    """shutdown(2). Linux 5.11."""
    RENAMEAT = lib.IORING_OP_RENAMEAT
    """renameat2(2). Linux 5.11."""
    UNLINKAT = lib.IORING_OP_UNLINKAT
    """unlinkat(2). Linux 5.11."""
    MKDIRAT = lib.IORING_OP_MKDIRAT
    """mkdirat(2). Linux 5.15."""
    SYMLINKAT = lib.IORING_OP_SYMLINKAT
    """symlinkat(2). Linux 5.15."""
    LINKAT = lib.IORING_OP_LINKAT
    """linkat(2). Linux 5.15."""
    MSG_RING = lib.IORING_OP_MSG_RING
    """A completion, or a file, for another ring. Linux 5.18."""
    FSETXATTR = lib.IORING_OP_FSETXATTR
    """fsetxattr(2). Linux 5.19."""
    SETXATTR = lib.IORING_OP_SETXATTR
    """setxattr(2). Linux 5.19."""
    FGETXATTR = lib.IORING_OP_FGETXATTR
    """fgetxattr(2). Linux 5.19."""
    GETXATTR = lib.IORING_OP_GETXATTR
    """getxattr(2). Linux 5.19."""
    SOCKET = lib.IORING_OP_SOCKET
    """socket(2). Linux 5.19."""
    URING_CMD = lib.IORING_OP_URING_CMD
    """A command of the file itself. Linux 5.19."""
    SEND_ZC = lib.IORING_OP_SEND_ZC
    """send(2) without copying. Linux 6.0."""
    SENDMSG_ZC = lib.IORING_OP_SENDMSG_ZC
    """sendmsg(2) without copying. Linux 6.1."""
    READ_MULTISHOT = lib.IORING_OP_READ_MULTISHOT
    """Reads again and again, into buffers that the kernel picks. Linux 6.7."""
    WAITID = lib.IORING_OP_WAITID
    """waitid(2). Linux 6.7."""
    FUTEX_WAIT = lib.IORING_OP_FUTEX_WAIT
    """futex_wait(2). Linux 6.7."""
    FUTEX_WAKE = lib.IORING_OP_FUTEX_WAKE
    """futex_wake(2). Linux 6.7."""
    FUTEX_WAITV = lib.IORING_OP_FUTEX_WAITV
    """futex_waitv(2). Linux 6.7."""
    FIXED_FD_INSTALL = lib.IORING_OP_FIXED_FD_INSTALL
    """Makes a registered file an ordinary one. Linux 6.8."""
    FTRUNCATE = lib.IORING_OP_FTRUNCATE
    """ftruncate(2). Linux 6.9."""
    BIND = lib.IORING_OP_BIND
    """bind(2). Linux 6.11."""
    LISTEN = lib.IORING_OP_LISTEN
    """listen(2). Linux 6.11."""
    RECV_ZC = lib.IORING_OP_RECV_ZC
    """Receives without copying. Linux 6.15."""
    EPOLL_WAIT = lib.IORING_OP_EPOLL_WAIT
    """epoll_wait(2). Linux 6.15."""
    READV_FIXED = lib.IORING_OP_READV_FIXED
    """preadv2(2) into a registered buffer. Linux 6.15."""
    WRITEV_FIXED = lib.IORING_OP_WRITEV_FIXED
    """pwritev2(2) from a registered buffer. Linux 6.15."""
    PIPE = lib.IORING_OP_PIPE
    """pipe2(2). Linux 6.16."""
    NOP128 = lib.IORING_OP_NOP128
    """Nothing, in an entry of 128 bytes. Linux 6.19."""
    URING_CMD128 = lib.IORING_OP_URING_CMD128
    """A command of the file itself, in an entry of 128 bytes. Linux 6.19."""


SINCE: dict[str, str] = {
    "NOP": "5.1",
    "READV": "5.1",
    "WRITEV": "5.1",
    "FSYNC": "5.1",
    "READ_FIXED": "5.1",
    "WRITE_FIXED": "5.1",
    "POLL_ADD": "5.1",
    "POLL_REMOVE": "5.1",
    "SYNC_FILE_RANGE": "5.2",
    "SENDMSG": "5.3",
    "RECVMSG": "5.3",
    "TIMEOUT": "5.4",
    "TIMEOUT_REMOVE": "5.5",
    "ACCEPT": "5.5",
    "ASYNC_CANCEL": "5.5",
    "LINK_TIMEOUT": "5.5",
    "CONNECT": "5.5",
    "FALLOCATE": "5.6",
    "OPENAT": "5.6",
    "CLOSE": "5.6",
    "FILES_UPDATE": "5.6",
    "STATX": "5.6",
    "READ": "5.6",
    "WRITE": "5.6",
    "FADVISE": "5.6",
    "MADVISE": "5.6",
    "SEND": "5.6",
    "RECV": "5.6",
    "OPENAT2": "5.6",
    "EPOLL_CTL": "5.6",
    "SPLICE": "5.7",
    "PROVIDE_BUFFERS": "5.7",
    "REMOVE_BUFFERS": "5.7",
    "TEE": "5.8",
    "SHUTDOWN": "5.11",
    "RENAMEAT": "5.11",
    "UNLINKAT": "5.11",
    "MKDIRAT": "5.15",
    "SYMLINKAT": "5.15",
    "LINKAT": "5.15",
    "MSG_RING": "5.18",
    "FSETXATTR": "5.19",
    "SETXATTR": "5.19",
    "FGETXATTR": "5.19",
    "GETXATTR": "5.19",
    "SOCKET": "5.19",
    "URING_CMD": "5.19",
    "SEND_ZC": "6.0",
    "SENDMSG_ZC": "6.1",
    "READ_MULTISHOT": "6.7",
    "WAITID": "6.7",
    "FUTEX_WAIT": "6.7",
    "FUTEX_WAKE": "6.7",
    "FUTEX_WAITV": "6.7",
    "FIXED_FD_INSTALL": "6.8",
    "FTRUNCATE": "6.9",
    "BIND": "6.11",
    "LISTEN": "6.11",
    "RECV_ZC": "6.15",
    "EPOLL_WAIT": "6.15",
    "READV_FIXED": "6.15",
    "WRITEV_FIXED": "6.15",
    "PIPE": "6.16",
    "NOP128": "6.19",
    "URING_CMD128": "6.19",
}
"""The first mainline kernel of each opcode. What runs here is found out by the probe, not by this."""
