"""Every request that liburing makes, as Python and as C: the entries have to be the same."""

import socket
import struct
from array import array
from collections.abc import Callable
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

from iocancel._native import ffi, lib
from iocancel.uring import CancelFlags, MsgHdr, PollFlags, RecvSendFlags, SockAddr, TimeoutFlags
from iocancel.uring.flags import AcceptFlags, FsyncFlags, MsgRingFlags
from iocancel.uring.prep_help import AT_FDCWD, FILE_INDEX_ALLOC

USER_DATA = 0x1122334455667788
LOOPBACK = SockAddr(socket.AF_INET, ("127.0.0.1", 80))


class Memory:
    """What the cases point to."""

    def __init__(self) -> None:
        self.buf, self.other = bytearray(256), bytearray(64)
        self.map = mmap(-1, 4096)
        self.futex, self.pair = array("I", [0]), array("i", [3, -1])
        self.peer, self.empty = LOOPBACK, SockAddr()
        self.msg = MsgHdr([self.buf, self.other], name=SockAddr(), control=bytearray(64))
        self.iovecs = struct.pack("PNPN", address(self.buf), 256, address(self.other), 64)


def address(buffer: Any) -> int:
    return int(ffi.cast("uintptr_t", ffi.from_buffer("uint8_t[]", buffer)))


class Case(NamedTuple):
    prepare: Callable[[Any, Memory], object]
    # liburing's call, less its prefix. OFF, ADDR and ADDR3 are what the entry holds in these fields.
    c: str
    # What is there, for each of these that is not a buffer of Memory.
    there: Callable[[Memory], dict[str, bytes]] = lambda m: {}
    since: tuple[int, int] = (0, 0)  # the liburing whose function came to do the same

    @property
    def name(self) -> str:
        return self.c.partition("(")[0]


def path(text: bytes) -> Callable[[Memory], dict[str, bytes]]:
    return lambda m: {"ADDR": text + b"\0"}


def paths(old: bytes, new: bytes) -> Callable[[Memory], dict[str, bytes]]:
    return lambda m: {"ADDR": old + b"\0", "OFF": new + b"\0"}


def iovecs(m: Memory) -> dict[str, bytes]:
    return {"ADDR": m.iovecs}


def a_time(field: str = "ADDR") -> Callable[[Memory], dict[str, bytes]]:
    return lambda m: {field: struct.pack("=qq", 1, 500_000_000)}


def filled_address(m: Memory) -> dict[str, bytes]:
    return {"OFF": struct.pack("=I", 128), "ADDR": bytes(128)}


def loopback(field: str) -> Callable[[Memory], dict[str, bytes]]:
    return lambda m: {field: LOOPBACK.raw}


_ALLOC = FILE_INDEX_ALLOC


_C_ALLOC = "IORING_FILE_INDEX_ALLOC"


_SELECT = "; sqe->flags |= IOSQE_BUFFER_SELECT; sqe->buf_group = 9"


RW = [
    Case(lambda s, m: s.prep_read(7, m.buf, 1 << 40), "read(sqe, 7, ADDR, 256, 1LL << 40)"),
    Case(lambda s, m: s.prep_read(7, m.buf), "read(sqe, 7, ADDR, 256, -1)"),
    Case(lambda s, m: s.prep_read(7, None, 5, nbytes=33, buf_group=9), "read(sqe, 7, NULL, 33, 5)" + _SELECT),
    Case(lambda s, m: s.prep_write(7, m.buf, 4096), "write(sqe, 7, ADDR, 256, 4096)"),
    Case(lambda s, m: s.prep_read_multishot(7, 64, -1, 9), "read_multishot(sqe, 7, 64, -1, 9)"),
    Case(lambda s, m: s.prep_readv(7, [m.buf, m.other], 6), "readv(sqe, 7, ADDR, 2, 6)", iovecs),
    Case(lambda s, m: s.prep_readv2(7, [m.buf, m.other], 6, 8), "readv2(sqe, 7, ADDR, 2, 6, 8)", iovecs),
    Case(lambda s, m: s.prep_writev(7, [m.buf, m.other]), "writev(sqe, 7, ADDR, 2, -1)", iovecs),
    Case(lambda s, m: s.prep_writev2(7, [m.buf, m.other], 6, 2), "writev2(sqe, 7, ADDR, 2, 6, 2)", iovecs),
    Case(
        lambda s, m: s.prep_readv_fixed(7, [m.buf, m.other], 6, 2, 3),
        "readv_fixed(sqe, 7, ADDR, 2, 6, 2, 3)",
        iovecs,
    ),
    Case(
        lambda s, m: s.prep_writev_fixed(7, [m.buf, m.other], 6, 2, 3),
        "writev_fixed(sqe, 7, ADDR, 2, 6, 2, 3)",
        iovecs,
    ),
    Case(lambda s, m: s.prep_read_fixed(7, m.buf, 5, 3), "read_fixed(sqe, 7, ADDR, 256, 5, 3)"),
    Case(lambda s, m: s.prep_write_fixed(7, m.buf, 5, 3), "write_fixed(sqe, 7, ADDR, 256, 5, 3)"),
]


NET = [
    Case(lambda s, m: s.prep_recv(7, m.buf, 2), "recv(sqe, 7, ADDR, 256, 2)"),
    Case(
        lambda s, m: s.prep_recv(7, m.buf, ioprio=RecvSendFlags.POLL_FIRST),
        "recv(sqe, 7, ADDR, 256, 0); sqe->ioprio = IORING_RECVSEND_POLL_FIRST",
    ),
    Case(lambda s, m: s.prep_recv(7, None, 2, buf_group=9), "recv(sqe, 7, NULL, 0, 2)" + _SELECT),
    Case(
        lambda s, m: s.prep_recv_multishot(7, 9, 2, nbytes=5), "recv_multishot(sqe, 7, NULL, 5, 2)" + _SELECT
    ),
    Case(lambda s, m: s.prep_recvmsg(7, m.msg, 2), "recvmsg(sqe, 7, ADDR, 2)"),
    Case(lambda s, m: s.prep_recvmsg(7, m.msg, 2, buf_group=9), "recvmsg(sqe, 7, ADDR, 2)" + _SELECT),
    Case(
        lambda s, m: s.prep_recvmsg_multishot(7, m.msg, 9, 2), "recvmsg_multishot(sqe, 7, ADDR, 2)" + _SELECT
    ),
    Case(lambda s, m: s.prep_send(7, m.buf, 0x4000), "send(sqe, 7, ADDR, 256, 0x4000)"),
    Case(lambda s, m: s.prep_send(7, None, 2, nbytes=5, buf_group=9), "send(sqe, 7, NULL, 5, 2)" + _SELECT),
    Case(lambda s, m: s.prep_send_bundle(7, 99, 2, 9), "send_bundle(sqe, 7, 99, 2)" + _SELECT),
    Case(
        lambda s, m: s.prep_sendto(7, m.buf, 2, m.peer),
        "sendto(sqe, 7, ADDR, 256, 2, OFF, 16)",
        loopback("OFF"),
    ),
    Case(
        lambda s, m: (s.prep_send(7, m.buf, 2), s.prep_send_set_addr(m.peer)),
        "send_set_addr(sqe, OFF, 16); io_uring_prep_send(sqe, 7, ADDR, 256, 2);"
        "io_uring_prep_send_set_addr(sqe, OFF, 16)",
        loopback("OFF"),
    ),
    Case(
        lambda s, m: s.prep_send_zc(7, m.buf, 2, RecvSendFlags.POLL_FIRST),
        "send_zc(sqe, 7, ADDR, 256, 2, IORING_RECVSEND_POLL_FIRST)",
    ),
    Case(lambda s, m: s.prep_send_zc_fixed(7, m.buf, 2, 1, 3), "send_zc_fixed(sqe, 7, ADDR, 256, 2, 1, 3)"),
    Case(lambda s, m: s.prep_sendmsg(7, m.msg, 2), "sendmsg(sqe, 7, ADDR, 2)"),
    Case(lambda s, m: s.prep_sendmsg_zc(7, m.msg, 2), "sendmsg_zc(sqe, 7, ADDR, 2)"),
    Case(lambda s, m: s.prep_sendmsg_zc_fixed(7, m.msg, 2, 3), "sendmsg_zc_fixed(sqe, 7, ADDR, 2, 3)"),
    Case(lambda s, m: s.prep_accept(7), "accept(sqe, 7, NULL, NULL, 0)"),
    Case(lambda s, m: s.prep_accept(7, m.empty, 0x800), "accept(sqe, 7, ADDR, OFF, 0x800)", filled_address),
    Case(
        lambda s, m: s.prep_accept(7, ioprio=AcceptFlags.DONTWAIT),
        "accept(sqe, 7, NULL, NULL, 0); sqe->ioprio = IORING_ACCEPT_DONTWAIT",
    ),
    Case(
        lambda s, m: s.prep_accept_direct(7, m.empty, 4, 5),
        "accept_direct(sqe, 7, ADDR, OFF, 4, 5)",
        filled_address,
    ),
    Case(
        lambda s, m: s.prep_accept_direct(7, None, 0, -1),
        f"accept_direct(sqe, 7, NULL, NULL, 0, {_C_ALLOC})",
        since=(2, 4),
    ),
    Case(
        lambda s, m: s.prep_multishot_accept(7, m.empty, 4),
        "multishot_accept(sqe, 7, ADDR, OFF, 4)",
        filled_address,
    ),
    Case(
        lambda s, m: s.prep_multishot_accept_direct(7, None, 4),
        "multishot_accept_direct(sqe, 7, NULL, NULL, 4)",
    ),
    Case(lambda s, m: s.prep_connect(7, m.peer), "connect(sqe, 7, ADDR, 16)", loopback("ADDR")),
    Case(lambda s, m: s.prep_bind(7, m.peer.raw), "bind(sqe, 7, ADDR, 16)", loopback("ADDR")),
    Case(lambda s, m: s.prep_listen(7, 128), "listen(sqe, 7, 128)"),
    Case(lambda s, m: s.prep_shutdown(7, 2), "shutdown(sqe, 7, 2)"),
    Case(lambda s, m: s.prep_socket(2, 1, 6, 0), "socket(sqe, 2, 1, 6, 0)"),
    Case(lambda s, m: s.prep_socket_direct(2, 1, 6, 5, 0), "socket_direct(sqe, 2, 1, 6, 5, 0)"),
    Case(
        lambda s, m: s.prep_socket_direct(2, 1, 6, _ALLOC),
        f"socket_direct(sqe, 2, 1, 6, {_C_ALLOC}, 0)",
        since=(2, 4),
    ),
    Case(lambda s, m: s.prep_socket_direct_alloc(2, 1, 6), "socket_direct_alloc(sqe, 2, 1, 6, 0)"),
    Case(
        lambda s, m: s.prep_cmd_sock(2, 7, 1, 3, m.buf),
        "cmd_sock(sqe, SOCKET_URING_OP_GETSOCKOPT, 7, 1, 3, ADDR3, 256)",
    ),
    Case(lambda s, m: s.prep_cmd_sock(0, 7), "cmd_sock(sqe, SOCKET_URING_OP_SIOCINQ, 7, 0, 0, NULL, 0)"),
    Case(
        lambda s, m: s.prep_cmd_getsockname(7, m.empty, True),
        "cmd_getsockname(sqe, 7, ADDR, ADDR3, 1)",
        lambda m: {"ADDR": bytes(128), "ADDR3": struct.pack("=I", 128)},
    ),
]


TIME = [
    Case(lambda s, m: s.prep_poll_add(7, 0x80000001), "poll_add(sqe, 7, 0x80000001)"),
    Case(lambda s, m: s.prep_poll_multishot(7, 0x10004), "poll_multishot(sqe, 7, 0x10004)"),
    Case(lambda s, m: s.prep_poll_remove(1 << 63), "poll_remove(sqe, 1ULL << 63)"),
    Case(
        lambda s, m: s.prep_poll_update(8, 9, 0x10001, PollFlags.UPDATE_EVENTS | PollFlags.UPDATE_USER_DATA),
        "poll_update(sqe, 8, 9, 0x10001, IORING_POLL_UPDATE_EVENTS | IORING_POLL_UPDATE_USER_DATA)",
    ),
    Case(
        lambda s, m: s.prep_timeout(1.5, 3, TimeoutFlags.BOOTTIME),
        "timeout(sqe, ADDR, 3, IORING_TIMEOUT_BOOTTIME)",
        a_time(),
    ),
    Case(lambda s, m: s.prep_timeout_remove(8), "timeout_remove(sqe, 8, 0)"),
    Case(
        lambda s, m: s.prep_timeout_update(1.5, 8, TimeoutFlags.ABS),
        "timeout_update(sqe, OFF, 8, IORING_TIMEOUT_ABS)",
        a_time("OFF"),
    ),
    Case(
        lambda s, m: s.prep_link_timeout(1.5, TimeoutFlags.ABS),
        "link_timeout(sqe, ADDR, IORING_TIMEOUT_ABS)",
        a_time(),
    ),
    Case(
        lambda s, m: s.prep_cancel(m, CancelFlags.ALL), "cancel(sqe, (void *)4711UL, IORING_ASYNC_CANCEL_ALL)"
    ),
    Case(lambda s, m: s.prep_cancel64(1 << 63), "cancel64(sqe, 1ULL << 63, 0)"),
    Case(lambda s, m: s.prep_cancel_fd(7, CancelFlags.ALL), "cancel_fd(sqe, 7, IORING_ASYNC_CANCEL_ALL)"),
]


def how(m: Memory) -> dict[str, bytes]:
    return {"ADDR": b"d/f\0", "OFF": struct.pack("=QQQ", 0x42, 0o600, 8)}


FILES = [
    Case(lambda s, m: s.prep_openat(5, "d/f", 0x42, 0o600), "openat(sqe, 5, ADDR, 0x42, 0600)", path(b"d/f")),
    Case(
        lambda s, m: s.prep_openat(AT_FDCWD, b"\xff", 0),
        "openat(sqe, AT_FDCWD, ADDR, 0, 0777)",
        path(b"\xff"),
    ),
    Case(
        lambda s, m: s.prep_openat_direct(None, "d/f", 0, 0, 4),
        "openat_direct(sqe, AT_FDCWD, ADDR, 0, 0, 4)",
        path(b"d/f"),
    ),
    Case(lambda s, m: s.prep_open(Path("d/f"), 0), "open(sqe, ADDR, 0, 0777)", path(b"d/f")),
    Case(
        lambda s, m: s.prep_open_direct("d/f", 0, 0),
        f"open_direct(sqe, ADDR, 0, 0, {_C_ALLOC})",
        path(b"d/f"),
    ),
    Case(lambda s, m: s.prep_openat2(5, "d/f", 0x42, 0o600, 8), "openat2(sqe, 5, ADDR, OFF)", how),
    Case(
        lambda s, m: s.prep_openat2_direct(5, "d/f", 0x42, 0o600, 8, 6),
        "openat2_direct(sqe, 5, ADDR, OFF, 6)",
        how,
    ),
    Case(lambda s, m: s.prep_close(7), "close(sqe, 7)"),
    Case(lambda s, m: s.prep_close_direct(7), "close_direct(sqe, 7)"),
    Case(lambda s, m: s.prep_fixed_fd_install(7, 1), "fixed_fd_install(sqe, 7, 1)"),
    Case(
        lambda s, m: s.prep_files_update([3, -1], 5),
        "files_update(sqe, ADDR, 2, 5)",
        lambda m: {"ADDR": struct.pack("ii", 3, -1)},
    ),
    Case(lambda s, m: s.prep_files_update(m.pair, 5), "files_update(sqe, ADDR, 2, 5)"),
    Case(lambda s, m: s.prep_pipe(m.buf, 0x800), "pipe(sqe, ADDR, 0x800)"),
    Case(lambda s, m: s.prep_pipe_direct(m.buf, 0x800, 5), "pipe_direct(sqe, ADDR, 0x800, 5)"),
    Case(lambda s, m: s.prep_pipe_direct(m.buf), f"pipe_direct(sqe, ADDR, 0, {_C_ALLOC})"),
    Case(
        lambda s, m: s.prep_renameat(5, "old", None, "new", 1),
        "renameat(sqe, 5, ADDR, AT_FDCWD, OFF, 1)",
        paths(b"old", b"new"),
    ),
    Case(lambda s, m: s.prep_rename("old", "new"), "rename(sqe, ADDR, OFF)", paths(b"old", b"new")),
    Case(
        lambda s, m: s.prep_linkat(None, "old", 6, "new", 0x400),
        "linkat(sqe, AT_FDCWD, ADDR, 6, OFF, 0x400)",
        paths(b"old", b"new"),
    ),
    Case(lambda s, m: s.prep_link("old", "new"), "link(sqe, ADDR, OFF, 0)", paths(b"old", b"new")),
    Case(lambda s, m: s.prep_symlinkat("to", 5, "new"), "symlinkat(sqe, ADDR, 5, OFF)", paths(b"to", b"new")),
    Case(lambda s, m: s.prep_symlink("to", "new"), "symlink(sqe, ADDR, OFF)", paths(b"to", b"new")),
    Case(lambda s, m: s.prep_unlinkat(5, "d/f", 0x200), "unlinkat(sqe, 5, ADDR, 0x200)", path(b"d/f")),
    Case(lambda s, m: s.prep_unlink("d/f"), "unlink(sqe, ADDR, 0)", path(b"d/f")),
    Case(lambda s, m: s.prep_mkdirat(5, "d", 0o700), "mkdirat(sqe, 5, ADDR, 0700)", path(b"d")),
    Case(lambda s, m: s.prep_mkdir("d"), "mkdir(sqe, ADDR, 0777)", path(b"d")),
    Case(
        lambda s, m: s.prep_statx(None, "d", 0x100, 0x7FF, m.buf),
        "statx(sqe, AT_FDCWD, ADDR, 0x100, 0x7ff, OFF)",
        path(b"d"),
    ),
    Case(
        lambda s, m: s.prep_getxattr("user.a", m.buf, "d/f"),
        "getxattr(sqe, ADDR, OFF, ADDR3, 256)",
        lambda m: {"ADDR": b"user.a\0", "ADDR3": b"d/f\0"},
    ),
    Case(
        lambda s, m: s.prep_setxattr("user.a", m.buf, "d/f", 1),
        "setxattr(sqe, ADDR, OFF, ADDR3, 1, 256)",
        lambda m: {"ADDR": b"user.a\0", "ADDR3": b"d/f\0"},
    ),
    Case(
        lambda s, m: s.prep_fgetxattr(7, "user.a", m.buf),
        "fgetxattr(sqe, 7, ADDR, OFF, 256)",
        path(b"user.a"),
    ),
    Case(
        lambda s, m: s.prep_fsetxattr(7, "user.a", m.buf, 2),
        "fsetxattr(sqe, 7, ADDR, OFF, 2, 256)",
        path(b"user.a"),
    ),
    Case(lambda s, m: s.prep_fallocate(7, 1, 4096, 1 << 40), "fallocate(sqe, 7, 1, 4096, 1ULL << 40)"),
    Case(lambda s, m: s.prep_ftruncate(7, 1 << 40), "ftruncate(sqe, 7, 1LL << 40)"),
    Case(lambda s, m: s.prep_fsync(7, FsyncFlags.DATASYNC), "fsync(sqe, 7, IORING_FSYNC_DATASYNC)"),
    Case(lambda s, m: s.prep_sync_file_range(7, 9, 4096, 2), "sync_file_range(sqe, 7, 9, 4096, 2)"),
    Case(lambda s, m: s.prep_fadvise(7, 4096, 9, 3), "fadvise(sqe, 7, 4096, 9, 3)"),
    Case(lambda s, m: s.prep_fadvise64(7, 4096, 1 << 40, 3), "fadvise64(sqe, 7, 4096, 1LL << 40, 3)"),
    Case(lambda s, m: s.prep_madvise(m.map, 3), "madvise(sqe, ADDR, 4096, 3)"),
    Case(lambda s, m: s.prep_madvise64(m.map, 3), "madvise64(sqe, ADDR, 4096, 3)"),
    Case(lambda s, m: s.prep_splice(5, -1, 6, 7, 99, 1), "splice(sqe, 5, -1, 6, 7, 99, 1)"),
    Case(
        lambda s, m: s.prep_splice(5, 8, 6, -1, 99, fd_in_fixed=True),
        "splice(sqe, 5, 8, 6, -1, 99, SPLICE_F_FD_IN_FIXED)",
    ),
    Case(lambda s, m: s.prep_tee(5, 6, 99, 2), "tee(sqe, 5, 6, 99, 2)"),
]


def an_event(m: Memory) -> dict[str, bytes]:
    packed = lib.IOC_SIZEOF_EPOLL_EVENT == 12
    return {"ADDR": struct.pack("=IQ" if packed else "=I4xQ", 5, 1 << 40)}


MISC = [
    Case(lambda s, m: s.prep_nop(), "nop(sqe)"),
    Case(lambda s, m: s.prep_provide_buffers(m.buf, 64, 9, 3), "provide_buffers(sqe, ADDR, 64, 4, 9, 3)"),
    Case(lambda s, m: s.prep_remove_buffers(4, 9), "remove_buffers(sqe, 4, 9)"),
    Case(lambda s, m: s.prep_msg_ring(7, 5, 1 << 40), "msg_ring(sqe, 7, 5, 1ULL << 40, 0)"),
    Case(lambda s, m: s.prep_msg_ring_cqe_flags(7, -5, 6, 0, 99), "msg_ring_cqe_flags(sqe, 7, -5, 6, 0, 99)"),
    Case(
        lambda s, m: s.prep_msg_ring_fd(7, 3, 4, 6, MsgRingFlags.CQE_SKIP),
        "msg_ring_fd(sqe, 7, 3, 4, 6, IORING_MSG_RING_CQE_SKIP)",
    ),
    Case(lambda s, m: s.prep_msg_ring_fd(7, 3, -1, 6), f"msg_ring_fd(sqe, 7, 3, {_C_ALLOC}, 6, 0)"),
    Case(lambda s, m: s.prep_msg_ring_fd_alloc(7, 3, 6), "msg_ring_fd_alloc(sqe, 7, 3, 6, 0)"),
    Case(lambda s, m: s.prep_cmd_discard(7, 4096, 1 << 40), "cmd_discard(sqe, 7, 4096, 1ULL << 40)"),
    Case(lambda s, m: s.prep_futex_wait(m.futex, 3), "futex_wait(sqe, ADDR, 3, 0xffffffff, 0x82, 0)"),
    Case(lambda s, m: s.prep_futex_wake(m.futex, 3, 5, 2), "futex_wake(sqe, ADDR, 3, 5, 2, 0)"),
    Case(
        lambda s, m: s.prep_futex_waitv([(m.futex, 3), (m.buf, 4, 2)]),
        "futex_waitv(sqe, ADDR, 2, 0)",
        lambda m: {"ADDR": struct.pack("=QQIIQQII", 3, address(m.futex), 0x82, 0, 4, address(m.buf), 2, 0)},
    ),
    Case(lambda s, m: s.prep_waitid(1, 1234, 4, m.buf), "waitid(sqe, 1, 1234, OFF, 4, 0)"),
    Case(lambda s, m: s.prep_waitid(0, 0, 4), "waitid(sqe, 0, 0, NULL, 4, 0)"),
    Case(lambda s, m: s.prep_epoll_ctl(5, 6, 1, 5, 1 << 40), "epoll_ctl(sqe, 5, 6, 1, ADDR)", an_event),
    Case(
        lambda s, m: s.prep_epoll_wait(5, m.buf),
        "epoll_wait(sqe, 5, ADDR, 256 / sizeof(struct epoll_event), 0)",
    ),
]


CASES = [*RW, *NET, *TIME, *FILES, *MISC]
