"""Sockets: made, named, connected, accepted, and their options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.flags import AcceptFlags
from iocancel.uring.memory import SockAddr
from iocancel.uring.prep_help import (
    FILE_INDEX_ALLOC,
    Fd,
    Requests,
    checked,
    limited,
    newest,
    pair32,
    signed32,
    slot,
)

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MULTISHOT = lib.IORING_ACCEPT_MULTISHOT
_GET, _SET = lib.SOCKET_URING_OP_GETSOCKOPT, lib.SOCKET_URING_OP_SETSOCKOPT
# Only these: what another command makes of the fields (getsockname: addresses) is not known here.
_COMMANDS = {
    lib.SOCKET_URING_OP_SIOCINQ: "SOCKET_URING_OP_SIOCINQ",
    lib.SOCKET_URING_OP_SIOCOUTQ: "SOCKET_URING_OP_SIOCOUTQ",
    _GET: "SOCKET_URING_OP_GETSOCKOPT",
    _SET: "SOCKET_URING_OP_SETSOCKOPT",
}
_FILTER_INSTRUCTION = 8  # bytes; SO_GET_FILTER counts in these


class PrepNet(Requests):
    """Sockets: made, named, connected, accepted, and their options.

    Where these have the arguments, they mean: `fd` the socket (see `Requests`); `addr` of an accept an
    empty `SockAddr` that the kernel fills with the peer's address, or None; otherwise a `SockAddr`, the
    bytes of a whole `struct sockaddr`, or beside a socket object an address in Python's form; `ioprio`
    of an accept how io_uring goes about it (`AcceptFlags.DONTWAIT`, POLL_FIRST, Linux 6.10); `flags` of
    an accept the SOCK_NONBLOCK and SOCK_CLOEXEC of accept4(2); `file_index` the slot of the registered
    files where the new socket goes, FILE_INDEX_ALLOC (or -1) for any free one (Linux 5.19); `domain`, `type`
    and `protocol` what they are for socket(2); `backlog` how many connections may wait (listen(2)).

    An accept or a socket completes with the new fd, which then belongs to whoever reaps it; the direct
    ones with 0, or with the slot that was picked for FILE_INDEX_ALLOC, -ENFILE where none is free.
    """

    __slots__ = ()

    def prep_accept(self, fd: Fd, addr: SockAddr | None = None, flags: int = 0, *, ioprio: int = 0) -> None:
        """Accept a connection (io_uring_prep_accept(3)). Linux 5.5."""
        self._accept("io_uring_prep_accept", fd, addr, flags, ioprio, 0)

    def prep_accept_direct(
        self,
        fd: Fd,
        addr: SockAddr | None = None,
        flags: int = 0,
        file_index: int = FILE_INDEX_ALLOC,
        *,
        ioprio: int = 0,
    ) -> None:
        """Accept a connection into the registered files (io_uring_prep_accept_direct(3)). Linux 5.15."""
        self._accept("io_uring_prep_accept_direct", fd, addr, flags, ioprio, 0, file_index)

    def prep_multishot_accept(
        self, fd: Fd, addr: SockAddr | None = None, flags: int = 0, *, ioprio: int = 0
    ) -> None:
        """Accept connections again and again (io_uring_prep_multishot_accept(3)). Linux 5.19.

        Args:
            addr: overwritten by each accept, so of little use here.
            fd, flags, ioprio: see the class.

        Completion: one for each connection, `Cqe.more` set until the last.
        """
        self._accept("io_uring_prep_multishot_accept", fd, addr, flags, ioprio, _MULTISHOT)

    def prep_multishot_accept_direct(
        self, fd: Fd, addr: SockAddr | None = None, flags: int = 0, *, ioprio: int = 0
    ) -> None:
        """Accept again and again into free slots (io_uring_prep_multishot_accept_direct(3)). Linux 5.19.

        Completion: one for each connection with its slot, `Cqe.more` set until the last.
        """
        self._accept(
            "io_uring_prep_multishot_accept_direct", fd, addr, flags, ioprio, _MULTISHOT, FILE_INDEX_ALLOC
        )

    def prep_connect(self, fd: Fd, addr: Any) -> None:
        """Connect a socket (io_uring_prep_connect(3)). Linux 5.5.

        Args:
            fd, addr: see the class.

        Raises:
            ValueError: not an address of the socket's family.

        Completion: 0 once it is connected.
        """
        self._addressed("io_uring_prep_connect", lib.IORING_OP_CONNECT, fd, addr)

    def prep_bind(self, fd: Fd, addr: Any) -> None:
        """Bind a socket to an address (io_uring_prep_bind(3)). Linux 6.11.

        Args:
            fd, addr: see the class.

        Raises:
            ValueError: not an address of the socket's family.

        Completion: 0.
        """
        self._addressed("io_uring_prep_bind", lib.IORING_OP_BIND, fd, addr)

    def prep_listen(self, fd: Fd, backlog: int) -> None:
        """Let a socket listen, with so many connections waiting (io_uring_prep_listen(3)). Linux 6.11.

        Completion: 0.
        """
        self._on("io_uring_prep_listen", lib.IORING_OP_LISTEN, fd, length=backlog)

    def prep_shutdown(self, fd: Fd, how: int) -> None:
        """Shut a connection down (io_uring_prep_shutdown(3)). Linux 5.11.

        Args:
            how: `socket.SHUT_RD`, SHUT_WR or SHUT_RDWR.
            fd: see the class.

        Completion: 0.
        """
        self._on("io_uring_prep_shutdown", lib.IORING_OP_SHUTDOWN, fd, length=how)

    def prep_socket(self, domain: int, type: int, protocol: int = 0, flags: int = 0) -> None:  # noqa: A002
        """Make a socket (io_uring_prep_socket(3)). Linux 5.19.

        Args:
            domain, type, protocol: as for socket(2); SOCK_CLOEXEC is up to the caller.
            flags: 0; the kernel has none yet.
        """
        self._put(
            "io_uring_prep_socket", lib.IORING_OP_SOCKET, domain, type, 0, protocol, flags, gives_fd=True
        )

    def prep_socket_direct(
        self,
        domain: int,
        type: int,  # noqa: A002
        protocol: int = 0,
        file_index: int = FILE_INDEX_ALLOC,
        flags: int = 0,
    ) -> None:
        """Make a socket in the registered files (io_uring_prep_socket_direct(3)). Linux 5.19."""
        field, feature = slot(file_index)
        self._put(
            "io_uring_prep_socket_direct",
            lib.IORING_OP_SOCKET,
            domain,
            type,
            0,
            protocol,
            flags,
            file_index=field,
            feature=feature,
        )

    def prep_socket_direct_alloc(
        self,
        domain: int,
        type: int,  # noqa: A002
        protocol: int = 0,
        flags: int = 0,
    ) -> None:
        """Make a socket in any free slot (io_uring_prep_socket_direct_alloc(3)). Linux 5.19."""
        self.prep_socket_direct(domain, type, protocol, FILE_INDEX_ALLOC, flags)
        self._call = "io_uring_prep_socket_direct_alloc"

    def prep_cmd_sock(
        self, cmd_op: int, fd: Fd, level: int = 0, optname: int = 0, optval: WriteableBuffer | None = None
    ) -> None:
        """A command to a socket (io_uring_prep_cmd_sock(3)). Linux 6.5; options 6.7.

        Args:
            cmd_op: SOCKET_URING_OP_SIOCINQ (0), SIOCOUTQ (1), GETSOCKOPT (2) or SETSOCKOPT (3).
            fd: the socket, see the class.
            level, optname: the option, as for getsockopt(2); the kernel gets options of SOL_SOCKET only.
            optval: the option's value, or a writable buffer for it.

        Raises:
            ValueError: another command.
            TypeError: no buffer, or for GETSOCKOPT a read-only one.

        Completion: how many bytes are queued to be read or sent; the size of the option's value that was
        filled in; 0 for SETSOCKOPT.
        """
        cmd_op, level = signed32(cmd_op, "cmd_op"), signed32(level, "level")
        optname = signed32(optname, "optname")
        if cmd_op not in _COMMANDS:
            raise ValueError(f"cmd_op takes {', '.join(_COMMANDS.values())} (0 to 3), not {cmd_op!r}")
        field = size = 0
        pins: tuple[Any, ...] = ()
        if optval is not None or cmd_op in (_GET, _SET):
            pin = (memory.readable if cmd_op == _SET else memory.writable)(optval, "optval")  # type: ignore[arg-type]
            field, size, pins = memory.address(pin), len(pin), (pin,)
        if cmd_op == _GET and optname == lib.SO_GET_FILTER:
            size //= _FILTER_INSTRUCTION  # of this option the kernel takes the length for a count
        self._on(
            "io_uring_prep_cmd_sock",
            lib.IORING_OP_URING_CMD,
            fd,
            pair32(cmd_op, 0),
            pair32(level, optname),
            addr3=field,
            file_index=limited(size, "optlen", 31),
            pins=pins,
            feature=_COMMANDS[cmd_op],
        )

    def prep_cmd_getsockname(self, fd: Fd, addr: SockAddr, peer: bool = False) -> None:
        """Ask for a socket's address (io_uring_prep_cmd_getsockname(3)). Linux 6.19.

        Args:
            fd: the socket, see the class.
            addr: an empty `SockAddr` that the kernel fills.
            peer: the peer's address and not the socket's own.

        Completion: 0.
        """
        storage, length = memory.pin_sockaddr(addr, fill=True)
        self._on(
            "io_uring_prep_cmd_getsockname",
            lib.IORING_OP_URING_CMD,
            fd,
            pair32(lib.SOCKET_URING_OP_GETSOCKNAME, 0),
            memory.address(storage),
            addr3=memory.address(length),
            file_index=1 if peer else 0,
            pins=(storage, length),
            feature="SOCKET_URING_OP_GETSOCKNAME",
        )

    def _accept(
        self,
        call: str,
        fd: Fd,
        addr: SockAddr | None,
        flags: int,
        ioprio: int,
        multishot: int,
        file_index: int | None = None,
    ) -> None:
        ioprio = checked(AcceptFlags, ioprio, "ioprio") | multishot
        feature = newest(AcceptFlags, ioprio)
        field = 0
        if file_index is not None:
            field, direct = slot(file_index)
            feature = feature or direct
        where = size = 0
        pins: tuple[Any, ...] = ()
        if addr is not None:
            pins = memory.pin_sockaddr(addr, fill=True)
            where, size = map(memory.address, pins)
        self._on(
            call,
            lib.IORING_OP_ACCEPT,
            fd,
            size,
            where,
            0,
            flags,
            ioprio=ioprio,
            file_index=field,
            pins=pins,
            gives_fd=file_index is None,
            feature=feature,
        )

    def _addressed(self, call: str, opcode: int, fd: Fd, addr: Any) -> None:
        storage, length = memory.pin_sockaddr(memory.socket_address(addr, fd))
        self._on(call, opcode, fd, min(length[0], len(storage)), memory.address(storage), pins=(storage,))
