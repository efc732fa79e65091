"""What nobody should do: memory stays the kernel's as long as it uses it."""

from __future__ import annotations

import errno
import gc
import os
import select
import weakref
from array import array
from collections.abc import Callable
from socket import socket
from typing import Any

import pytest

from iocancel import FeatureUnavailable
from iocancel.uring import (
    BufRing,
    CancelFlags,
    Cqe,
    CqeFlags,
    Features,
    Opcode,
    PollFlags,
    Ring,
    SqeFlags,
    ledger,
)

from ..support import BOUND, need, resizable, until
from .helpers import Asked, need_op

SILENT = SqeFlags.CQE_SKIP_SUCCESS


def need_silent(ring: Ring) -> None:
    need(ring.features & Features.CQE_SKIP, "CQE_SKIP_SUCCESS needs Linux 5.17")


@pytest.mark.parametrize("twice", [False, True])
def test_a_poll_that_was_given_a_number_in_use_frees_nothing_early(
    twice: bool, asked: Asked, pipe: tuple[int, int]
) -> None:
    buffer = bytearray(8)
    idle = os.pipe()
    try:
        if twice:
            asked.go(4, "poll_add", idle[0], select.POLLIN)
            res = asked.ask("poll_update", 4, 5, 0, PollFlags.UPDATE_USER_DATA)
            need(res != -errno.EINVAL, "a poll's number can be changed from Linux 5.13 on")
        else:
            asked.ring.submit_poll_add(idle[0], select.POLLIN, 5)
        asked.go(5, "read", pipe[0], buffer)
        res = asked.ask("poll_update", 5, 6, 0, PollFlags.UPDATE_USER_DATA)
        need(res != -errno.EINVAL, "a poll's number can be changed from Linux 5.13 on")
        assert not resizable(buffer)
        if not res:  # the poll was found, and not the read
            assert asked.cancel(6) == 0
            assert asked.end(6) == -errno.ECANCELED
        os.write(pipe[1], b"x")
        assert asked.end(5) == 1
    finally:
        asked.ring.close()
        for end in idle:
            os.close(end)


def test_a_message_to_a_dup_of_a_rings_fd_frees_nothing_early(
    open_ring: Callable[..., Asked], pipe: tuple[int, int]
) -> None:
    asked, sender = open_ring(), open_ring()
    need_op(sender.ring, Opcode.MSG_RING)
    buffer = bytearray(8)
    asked.go(5, "read", pipe[0], buffer)
    other = os.dup(asked.ring.fileno())
    try:
        assert sender.ask("msg_ring", other, 7, 5, 0) == 0
        assert asked.next(5).res == 7
        assert not resizable(buffer)
        os.write(pipe[1], b"x")
        assert asked.end(5) == 1
        assert resizable(buffer)
    finally:
        os.close(other)


def test_a_group_that_is_registered_after_the_submit_lives_until_the_end(
    asked: Asked, pair: tuple[socket, socket], pipe: tuple[int, int]
) -> None:
    try:
        group: BufRing | None = asked.ring.register_buf_ring(4, 64, 4)
    except FeatureUnavailable as error:
        need(False, str(error))
    asked.ring.unregister_buf_ring(4)
    # The second starts when the first ends; which group it picks from is settled then.
    asked.put(1, "read", pipe[0], bytearray(8), flags=SqeFlags.IO_HARDLINK)
    asked.put(2, "recv", pair[0], None, nbytes=64, buf_group=3)
    asked.ring.submit()
    group = asked.ring.register_buf_ring(4, 64, 3)
    os.write(pipe[1], b"x")
    assert asked.end(1) == 1
    alive = weakref.ref(group)
    asked.ring.unregister_buf_ring(3)
    del group
    gc.collect()
    assert alive() is not None
    pair[1].send(b"x")
    asked.end(2)
    gc.collect()
    assert alive() is None


def test_buffers_that_are_provided_under_a_number_in_use_free_nothing() -> None:
    first, second = bytearray(64), bytearray(64)
    with Ring(8) as ring:
        for buffer in (first, second):
            ring.get_sqe().prep_provide_buffers(buffer, 64, 1, 0)
            assert not resizable(first)
            assert not resizable(second) or buffer is first
            ring.submit()
            [cqe] = ring.wait(1, BOUND)
            assert cqe.res >= 0
        gc.collect()
        assert not resizable(first)
        assert not resizable(second)
    assert resizable(first)
    assert resizable(second)


def test_a_stream_of_silent_cancels_does_not_push_out_a_silent_poll(
    asked: Asked, pipes: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_silent(asked.ring)
    monkeypatch.setattr(ledger, "_REMEMBERED", 64)  # of 65,536: quicker
    idle, other = pipes(), pipes()
    buffer = bytearray(8)
    asked.go(5, "poll_add", idle[0], select.POLLIN, flags=SILENT)
    for first in range(10_000, 10_000 + 4 * 64, 64):
        asked.ring.prep_cancel64_many(
            [1 << 40] * 64, range(first, first + 64), CancelFlags(0), sqe_flags=SILENT
        )
        asked.ring.submit()
        asked.ring.peek()
    asked.go(5, "read", other[0], buffer)
    assert asked.ask("poll_remove", 5) in (0, -errno.ENOENT)
    asked.ring.peek()  # the end of the poll, which looks like the read's
    assert not resizable(buffer)


def test_an_array_that_lies_about_its_length_is_not_believed() -> None:
    class Liar(array):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 32

    with Ring(64) as ring:
        assert ring.prep_nop_many(Liar("Q", [7])) == 1
        ring.submit()
        assert [cqe.user_data for cqe in ring.wait(1, BOUND)] == [7]


@pytest.mark.parametrize("name", ["bgid", "entries", "nbytes"])
def test_the_size_of_a_group_is_read_only(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(BufRing(0, 4, 64), name, 1 << 20)


def test_a_forked_child_has_a_group_of_its_own() -> None:
    group = BufRing(0, 4, 64)
    group.recycle(Cqe(0, 6, CqeFlags.BUFFER))
    queue = bytes(group._queue)
    cqe = Cqe(0, 6, 1 << 16 | CqeFlags.BUFFER)
    view = group.view(cqe)
    child = os.fork()
    if not child:
        try:
            view[:] = b"CHILD!"
            group.recycle(cqe)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert view == bytes(6)
    assert bytes(group._queue) == queue


def test_a_chain_is_not_cut_where_the_queue_is_nearly_full(
    open_ring: Callable[..., Asked], pipe: tuple[int, int]
) -> None:
    asked = open_ring(8)
    ring = asked.ring
    asked.put(1, "read", pipe[0], bytearray(8), flags=SqeFlags.IO_LINK)
    asked.put(2, "link_timeout", 0.001)
    # As if another thread's bulk call had come before them: one place is left.
    staged, ring._staged = ring._staged, []
    ring.prep_nop_many(range(100, 107))
    ring._staged = staged
    ring.submit()
    assert asked.end(2) == -errno.ETIME
    assert asked.end(1) in (-errno.ECANCELED, -errno.EINTR)


def test_a_wrong_argument_is_not_called_a_lacking_feature(asked: Asked) -> None:
    try:
        asked.ring.register_files_sparse(1)
    except FeatureUnavailable as error:
        need(False, str(error))
    asked.ring.unregister_files()
    with pytest.raises(OSError) as caught:
        asked.ring.register_files_sparse(0)
    assert caught.value.errno == errno.EINVAL
    assert not isinstance(caught.value, FeatureUnavailable)


@pytest.mark.parametrize("call", ["wait", "submit_and_wait", "submit_and_reap"])
def test_a_timeout_that_no_float_holds_is_for_ever_or_refused_clearly(call: str, asked: Asked) -> None:
    huge: Any = 10**400
    asked.ring.prep_nop_many([1])
    asked.ring.submit()
    until(lambda: asked.ring.cq_ready, "the NOP is done")
    try:
        getattr(asked.ring, call)(1, huge)
    except (ValueError, OverflowError) as error:
        assert "timeout" in str(error)  # noqa: PT017 - or for ever, which is as good
