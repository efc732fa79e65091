"""Polls and timeouts: what a request waits for, and how long."""

from __future__ import annotations

import sys

from iocancel._native import lib
from iocancel.uring import memory
from iocancel.uring.flags import PollFlags, TimeoutFlags, bits
from iocancel.uring.prep_help import Fd, Requests, limited, newest

_UPDATE_DATA = lib.IORING_POLL_UPDATE_USER_DATA
_POLL_ADD = lib.IORING_OP_POLL_ADD
_BIG_ENDIAN = sys.byteorder == "big"


def poll_mask_bits(poll_mask: int) -> int:
    """A poll mask as the entry has it: the kernel once had 16 bits there, and keeps their place."""
    mask = limited(poll_mask, "poll_mask")
    return (mask >> 16 | (mask & 0xFFFF) << 16) if _BIG_ENDIAN else mask


class PrepTime(Requests):
    """Polls and timeouts.

    Where these have the arguments, they mean: `fd` the file (see `Requests`); `poll_mask` the events,
    `select.POLLIN` ... (32 bits: EPOLLEXCLUSIVE and EPOLLET too); `seconds` a time in seconds as float
    or int, 0 and more, which becomes nanoseconds, rounded up; `user_data` and `old_user_data` what the
    request meant was submitted with, 0 to 2**64 - 1.
    """

    __slots__ = ()

    def prep_poll_add(self, fd: Fd, poll_mask: int) -> None:
        """Wait until a file is ready (io_uring_prep_poll_add(3)). Linux 5.1.

        Completion: the events that are there.
        """
        mask = poll_mask_bits(poll_mask)
        if type(fd) is int:  # the short way for what is prepared most
            self._put("io_uring_prep_poll_add", _POLL_ADD, fd, 0, 0, 0, mask)
        else:
            self._on("io_uring_prep_poll_add", _POLL_ADD, fd, 0, 0, 0, mask)

    def prep_poll_multishot(self, fd: Fd, poll_mask: int) -> None:
        """Watch a file (io_uring_prep_poll_multishot(3)). Linux 5.13.

        It is edge-triggered: for data that is left unread there is no other completion.

        Completion: one each time, the events that are there; `Cqe.more` set until the last.
        """
        self._on(
            "io_uring_prep_poll_multishot",
            lib.IORING_OP_POLL_ADD,
            fd,
            0,
            0,
            lib.IORING_POLL_ADD_MULTI,
            poll_mask_bits(poll_mask),
            feature="IORING_POLL_ADD_MULTI",
        )

    def prep_poll_remove(self, user_data: int) -> None:
        """End a poll (io_uring_prep_poll_remove(3)). Linux 5.1.

        Completion: 0, and the poll's own is -ECANCELED; -ENOENT where there is none, -EALREADY where it is
        just ending.
        """
        self._put(
            "io_uring_prep_poll_remove", lib.IORING_OP_POLL_REMOVE, addr=limited(user_data, "user_data", 64)
        )

    def prep_poll_update(self, old_user_data: int, new_user_data: int, poll_mask: int, flags: int) -> None:
        """Change a poll (io_uring_prep_poll_update(3)). Linux 5.13.

        Args:
            new_user_data: what its completions will have from now on, with UPDATE_USER_DATA; 0 without.
            poll_mask: what it waits for from now on, with UPDATE_EVENTS; 0 without.
            flags: `PollFlags`; ADD_MULTI beside UPDATE_EVENTS makes it multishot.
            old_user_data: see the class.

        Raises:
            TypeError: flags of another kind.

        Completion: 0; -ENOENT, -EALREADY as for `prep_poll_remove`. After a change of the user_data the
        poll's completion comes under the new one, and none under the old.
        """
        number = bits(PollFlags, flags, "flags")
        new = limited(new_user_data, "new_user_data", 64)
        self._put(
            "io_uring_prep_poll_update",
            lib.IORING_OP_POLL_REMOVE,
            -1,
            new,
            limited(old_user_data, "old_user_data", 64),
            number,
            poll_mask_bits(poll_mask),
            feature=newest(PollFlags, number),
            message=(None, new) if number & _UPDATE_DATA else None,
        )

    def prep_timeout(self, seconds: float, count: int = 0, flags: int = 0) -> None:
        """Wait for a time, or for completions (io_uring_prep_timeout(3)). Linux 5.4.

        Args:
            seconds: for how long; with `TimeoutFlags.ABS` until when, by the chosen clock
                (CLOCK_MONOTONIC, or BOOTTIME, REALTIME).
            count: end also when so many other completions have come (0: only by time); with MULTISHOT how
                often to fire (0: for ever).
            flags: `TimeoutFlags`.

        Raises:
            ValueError: a time that is negative, not finite, or beyond 2**63 seconds.
            TypeError: flags of another kind.

        Completion: -ETIME when the time has run out (that is its success), 0 when the count was reached,
        -ECANCELED when removed; with MULTISHOT one each time, `Cqe.more` set until the last.
        """
        number = bits(TimeoutFlags, flags, "flags")
        ts = memory.timespec(seconds, "seconds")
        self._put(
            "io_uring_prep_timeout",
            lib.IORING_OP_TIMEOUT,
            -1,
            limited(count, "count"),
            memory.address(ts),
            1,
            number,
            pins=(ts,),
            feature=newest(TimeoutFlags, number),
        )

    def prep_timeout_remove(self, user_data: int, flags: int = 0) -> None:
        """End a timeout (io_uring_prep_timeout_remove(3)). Linux 5.5.

        Args:
            flags: 0; no kernel takes others.
            user_data: see the class.

        Completion: 0, and the timeout's own is -ECANCELED; -ENOENT where there is none, -EALREADY where
        it is just firing. Link timeouts can't be removed.
        """
        number = bits(TimeoutFlags, flags, "flags")
        self._put(
            "io_uring_prep_timeout_remove",
            lib.IORING_OP_TIMEOUT_REMOVE,
            addr=limited(user_data, "user_data", 64),
            op_flags=number,
        )

    def prep_timeout_update(self, seconds: float, user_data: int, flags: int = 0) -> None:
        """Give a timeout another time, from now (io_uring_prep_timeout_update(3)). Linux 5.11.

        Args:
            flags: `TimeoutFlags`: ABS where `seconds` is a point of time; LINK_UPDATE where the timeout
                meant is a link timeout (Linux 5.15).
            seconds, user_data: see the class.

        Raises:
            ValueError, TypeError: as for `prep_timeout`.

        Completion: 0; -ENOENT, -EALREADY as for `prep_timeout_remove`.
        """
        number = bits(TimeoutFlags, flags, "flags")
        ts = memory.timespec(seconds, "seconds")
        self._put(
            "io_uring_prep_timeout_update",
            lib.IORING_OP_TIMEOUT_REMOVE,
            -1,
            memory.address(ts),
            limited(user_data, "user_data", 64),
            0,
            number | lib.IORING_TIMEOUT_UPDATE,
            pins=(ts,),
            feature=newest(TimeoutFlags, number) or "IORING_TIMEOUT_UPDATE",
        )

    def prep_link_timeout(self, seconds: float, flags: int = 0) -> None:
        """Limit the entry before this one, which needs IO_LINK (io_uring_prep_link_timeout(3)). Linux 5.5.

        It does not fire while that request runs in a worker.

        Args:
            flags: `TimeoutFlags`: ABS, BOOTTIME, REALTIME, ETIME_SUCCESS.
            seconds: see the class.

        Raises:
            ValueError, TypeError: as for `prep_timeout`.

        Completion: -ETIME when it ran out and the request was cancelled, -ECANCELED when the request ended
        before.
        """
        number = bits(TimeoutFlags, flags, "flags")
        ts = memory.timespec(seconds, "seconds")
        self._put(
            "io_uring_prep_link_timeout",
            lib.IORING_OP_LINK_TIMEOUT,
            -1,
            0,
            memory.address(ts),
            1,
            number,
            pins=(ts,),
            feature=newest(TimeoutFlags, number),
        )
