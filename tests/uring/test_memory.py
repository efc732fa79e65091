"""Rule 2: memory belongs to the kernel until the last completion."""

from __future__ import annotations

import array
import errno
import gc
import mmap
import os
import select
import socket
import weakref
from typing import Any

import pytest

from iocancel import uring
from iocancel.uring import CancelFlags, PollFlags, Ring, SqeFlags
from iocancel.uring.ledger import _REMEMBERED

from ..support import BOUND, resizable

pytestmark = pytest.mark.leak


def read(ring: Ring, fd: int, buffer: Any, user_data: int, flags: int = 0) -> None:
    sqe = ring.get_sqe()
    sqe.prep_read(fd, buffer)
    sqe.user_data = user_data
    sqe.flags = flags
    ring.submit()


def cancel(ring: Ring, user_data: int) -> None:
    sqe = ring.get_sqe()
    sqe.prep_cancel64(user_data)
    sqe.user_data = 1 << 40
    ring.submit()


def test_a_buffer_cannot_be_resized_until_the_completion_is_reaped(ring: Ring, pipe: tuple[int, int]) -> None:
    buffer = bytearray(8)
    read(ring, pipe[0], buffer, 1)
    assert not resizable(buffer)
    cancel(ring, 1)
    assert not resizable(buffer)  # the verdict settles nothing, the completion does
    assert len(ring.wait(2, BOUND)) == 2
    assert resizable(buffer)


def test_an_entry_that_is_never_submitted_pins_only_while_the_ring_is_open(pipe: tuple[int, int]) -> None:
    buffer = bytearray(8)
    ring = Ring(4)
    sqe = ring.get_sqe()
    sqe.prep_read(pipe[0], buffer)
    assert not resizable(buffer)
    ring.close()
    assert resizable(buffer)


def test_filling_an_entry_again_lets_go_of_what_it_pinned(ring: Ring, pipe: tuple[int, int]) -> None:
    buffer = bytearray(8)
    sqe = ring.get_sqe()
    sqe.prep_read(pipe[0], buffer)
    sqe.prep_nop()
    assert resizable(buffer)
    ring.submit_and_wait(1, BOUND)
    ring.peek()


def test_objects_live_until_the_completion(ring: Ring, pipe: tuple[int, int]) -> None:
    class Buffer(bytearray):
        pass

    buffer = Buffer(8)
    alive = weakref.ref(buffer)
    read(ring, pipe[0], buffer, 1)
    del buffer
    gc.collect()
    assert alive() is not None
    os.write(pipe[1], b"abc")
    [cqe] = ring.wait(1, BOUND)
    assert cqe.res == 3
    gc.collect()
    assert alive() is None


def test_shared_numbers_are_freed_together(ring: Ring, pipe: tuple[int, int]) -> None:
    first, second = bytearray(1), bytearray(1)
    read(ring, pipe[0], first, 5)
    read(ring, pipe[0], second, 5)
    os.write(pipe[1], b"x")
    [cqe] = ring.wait(1, BOUND)
    assert cqe.call == "io_uring_prep_read"
    assert not resizable(first)  # nobody knows which of the two has ended
    assert not resizable(second)
    os.write(pipe[1], b"y")
    ring.wait(1, BOUND)
    assert resizable(first)
    assert resizable(second)


def test_a_bulk_request_with_the_same_number_frees_nothing_too_early(
    ring: Ring, pipe: tuple[int, int]
) -> None:
    buffer = bytearray(1)
    other, writer = os.pipe()
    for bulk_first in (True, False):
        if bulk_first:
            ring.submit_poll_add(other, select.POLLIN, 7)
        read(ring, pipe[0], buffer, 7)
        if not bulk_first:
            ring.prep_poll_add_many([other], select.POLLIN, [7])
            ring.submit()
        os.write(writer, b"x")
        [cqe] = ring.wait(1, BOUND)
        assert cqe.user_data == 7
        assert not resizable(buffer)
        os.read(other, 1)
        os.write(pipe[1], b"x")
        ring.wait(1, BOUND)
        assert resizable(buffer)
    os.close(other)
    os.close(writer)


def test_a_message_with_the_same_number_frees_nothing_too_early(ring: Ring, pipe: tuple[int, int]) -> None:
    if not ring.probe().supports(uring.Opcode.MSG_RING):
        pytest.skip("IORING_OP_MSG_RING needs Linux 5.18")
    buffer = bytearray(1)
    with Ring(8) as sender:
        read(ring, pipe[0], buffer, 7)
        for target in (ring, ring.fileno()):
            sqe = sender.get_sqe()
            sqe.prep_msg_ring(target, 0, 7)
            assert sender.submit_and_wait(1, BOUND) == 1
            [cqe] = sender.wait(1, BOUND)
            assert cqe.res == 0
            assert [cqe.user_data for cqe in ring.wait(1, BOUND)] == [7]
            assert not resizable(buffer)
        # A message that is not sent is not waited for.
        sqe = sender.get_sqe()
        sqe.prep_msg_ring(ring, 0, 7, 0)
        sqe.flags = SqeFlags.FIXED_FILE  # there is no such file
        sender.submit()
        [cqe] = sender.wait(1, BOUND)
        assert cqe.res == -errno.EBADF
    cancel(ring, 7)
    assert len(ring.wait(2, BOUND)) == 2
    assert resizable(buffer)


def test_a_poll_whose_number_was_changed_frees_nothing_too_early(ring: Ring, pipe: tuple[int, int]) -> None:
    other, writer = os.pipe()
    buffer = bytearray(1)
    sqe = ring.get_sqe()
    sqe.prep_poll_add(other, select.POLLIN)
    sqe.user_data = 1
    ring.submit()
    read(ring, pipe[0], buffer, 2)
    sqe = ring.get_sqe()
    sqe.prep_poll_update(1, 2, 0, PollFlags.UPDATE_USER_DATA)
    sqe.user_data = 3
    ring.submit()
    [cqe] = ring.wait(1, BOUND)
    assert cqe.res == 0
    os.write(writer, b"x")
    [cqe] = ring.wait(1, BOUND)
    assert (cqe.user_data, cqe.res) == (2, select.POLLIN)  # the poll's
    assert not resizable(buffer)
    cancel(ring, 2)
    assert len(ring.wait(2, BOUND)) == 2
    assert resizable(buffer)
    assert ring.in_flight == 0  # nothing is kept by the old number
    # A poll that is not there is not changed.
    read(ring, pipe[0], buffer, 4)
    sqe = ring.get_sqe()
    sqe.prep_poll_update(99, 4, 0, PollFlags.UPDATE_USER_DATA)
    ring.submit()
    assert ring.wait(1, BOUND)[0].res == -errno.ENOENT
    cancel(ring, 4)
    assert len(ring.wait(2, BOUND)) == 2
    assert resizable(buffer)
    os.close(other)
    os.close(writer)


def skips(ring: Ring) -> None:
    if not ring.features & uring.Features.CQE_SKIP:
        pytest.skip("IOSQE_CQE_SKIP_SUCCESS needs Linux 5.17")


def test_what_may_end_silently_pins_until_the_ring_is_closed(pipe: tuple[int, int]) -> None:
    buffer = bytearray(1)
    with Ring(8) as ring:
        skips(ring)
        os.write(pipe[1], b"x")
        read(ring, pipe[0], buffer, 1, SqeFlags.CQE_SKIP_SUCCESS)
        assert ring.peek() == []
        assert buffer == b"x"
        assert not resizable(buffer)
        second = bytearray(1)
        read(ring, pipe[0], second, 1)  # shares its number, so its fate
        os.write(pipe[1], b"y")
        assert len(ring.wait(1, BOUND)) == 1
        assert not resizable(second)
    assert resizable(buffer)
    assert resizable(second)


def test_a_silent_requests_failure_is_not_taken_for_anothers_end(ring: Ring, pipe: tuple[int, int]) -> None:
    skips(ring)
    buffer = bytearray(1)
    for bulk in (False, True):
        if bulk:
            ring.prep_cancel64_many([12345], 8, sqe_flags=SqeFlags.CQE_SKIP_SUCCESS)
        else:
            sqe = ring.get_sqe()
            sqe.prep_cancel64(12345)
            sqe.user_data = 8
            sqe.flags = SqeFlags.CQE_SKIP_SUCCESS
            sqe.data = "not found"
        sqe = ring.get_sqe()
        sqe.prep_read(pipe[0], buffer)
        sqe.user_data = 8
        ring.submit()
        [cqe] = ring.wait(1, BOUND)
        assert (cqe.user_data, cqe.res) == (8, -errno.ENOENT)
        assert not resizable(buffer)
        cancel(ring, 8)
        ring.wait(2, BOUND)
        buffer = bytearray(1)


def test_the_memory_of_silent_numbers_is_bounded(ring: Ring) -> None:
    skips(ring)
    ledger = ring._ledger
    ledger.skip_bare(range(_REMEMBERED + 100))
    assert len(ledger.skipped) == _REMEMBERED


def test_a_file_object_is_kept_until_the_last_completion(ring: Ring, pipe: tuple[int, int]) -> None:
    class File:
        def fileno(self) -> int:
            return pipe[0]

    file = File()
    alive = weakref.ref(file)
    sqe = ring.get_sqe()
    sqe.prep_poll_multishot(file, select.POLLIN)
    sqe.user_data = 1
    ring.submit()
    del file
    gc.collect()
    assert alive() is not None  # or its end might close the number
    os.write(pipe[1], b"x")
    [cqe] = ring.wait(1, BOUND)
    assert cqe.more
    gc.collect()
    assert alive() is not None
    cancel(ring, 1)
    cqes = {cqe.user_data: cqe for cqe in ring.wait(2, BOUND)}
    assert cqes[1].res == -errno.ECANCELED
    assert not cqes[1].more
    gc.collect()
    assert alive() is None


def test_registered_buffers_are_pinned_until_they_are_unregistered(ring: Ring, pipe: tuple[int, int]) -> None:
    area = mmap.mmap(-1, 8192)
    buffer = bytearray(64)
    ring.register_buffers([area, buffer])
    assert not resizable(buffer)
    with pytest.raises(OSError) as caught:
        ring.register_buffers([area])
    assert caught.value.errno == errno.EBUSY
    del caught  # its traceback holds the buffers
    os.write(pipe[1], b"fixed")
    with memoryview(area) as view, view[100:200] as part:
        sqe = ring.get_sqe()
        sqe.prep_read_fixed(pipe[0], part, 0, 0)
        ring.submit()
        [cqe] = ring.wait(1, BOUND)
    assert cqe.check() == 5
    assert area[100:105] == b"fixed"
    ring.unregister_buffers()
    assert resizable(buffer)
    area.close()
    with pytest.raises(TypeError):
        ring.register_buffers([b"read-only"])


def test_a_group_of_buffers(ring: Ring) -> None:
    try:
        group = ring.register_buf_ring(4, 16, bgid=3)
    except OSError as error:
        pytest.skip(f"buffer rings need Linux 5.19: {error}")
    left, right = socket.socketpair()
    with left, right:
        with pytest.raises(OSError) as taken:
            ring.register_buf_ring(4, 16, bgid=3)
        assert taken.value.errno == errno.EEXIST
        assert "of 4 times 16" in repr(group)
        for turn in range(20):
            sqe = ring.get_sqe()
            sqe.prep_recv(left, None, nbytes=16, buf_group=3)
            ring.submit()
            right.send(b"turn %d" % turn)
            [cqe] = ring.wait(1, BOUND)
            assert group.view(cqe) == b"turn %d" % turn
            assert group.take(cqe) == b"turn %d" % turn
            with pytest.raises(ValueError, match="given back already"):
                group.recycle(cqe)
        sqe = ring.get_sqe()
        sqe.prep_recv(left, None, nbytes=16, buf_group=3)
        sqe.user_data = 1
        ring.submit()
        ring.unregister_buf_ring(3)
        with pytest.raises(OSError):
            ring.unregister_buf_ring(3)
        right.send(b"late")
        [cqe] = ring.wait(1, BOUND)  # -ENOBUFS, or into a buffer that is still there
        assert cqe.res in (4, -errno.ENOBUFS)
        no_buffer = uring.Cqe(1, 0, 0)
        with pytest.raises(ValueError, match="no buffer of this group"):
            group.view(no_buffer)
    for wrong in ({"entries": 3}, {"entries": 0}, {"nbytes": 0}, {"bgid": 1 << 16}):
        with pytest.raises(ValueError):
            ring.register_buf_ring(**{"entries": 4, "nbytes": 16, **wrong})


def test_provided_buffers_stay_with_the_kernel(ring: Ring) -> None:
    area = bytearray(64)
    sqe = ring.get_sqe()
    sqe.prep_provide_buffers(area, 16, 9, 0)
    ring.submit()
    [cqe] = ring.wait(1, BOUND)
    assert cqe.check() >= 0
    sqe = None  # type: ignore[assignment]
    assert not resizable(area)
    left, right = socket.socketpair()
    with left, right:
        sqe = ring.get_sqe()
        sqe.prep_recv(left, None, nbytes=16, buf_group=9)
        right.send(b"provided")
        ring.submit()
        [cqe] = ring.wait(1, BOUND)
        assert cqe.check() == 8
        assert cqe.buffer_id is not None
        assert area[16 * cqe.buffer_id :][:8] == b"provided"
    ring.close()
    assert resizable(area)


def test_a_number_that_is_provided_again_replaces_nothing(ring: Ring, pipe: tuple[int, int]) -> None:
    first, second = bytearray(64), bytearray(64)
    for area in (first, second, second):
        sqe = ring.get_sqe()
        sqe.prep_provide_buffers(area, 64, 5, 0)
        ring.submit()
        assert ring.wait(1, BOUND)[0].check() >= 0
    assert not resizable(first)
    assert not resizable(second)
    assert len(ring._provided) == 2
    os.write(pipe[1], b"x")
    sqe = ring.get_sqe()
    sqe.prep_read(pipe[0], None, 0, nbytes=64, buf_group=5)
    ring.submit()
    assert ring.wait(1, BOUND)[0].check() == 1
    assert bytes(first[:1] + second[:1]) in (b"x\0", b"\0x")


def test_what_has_no_contiguous_or_no_writable_memory_is_refused(ring: Ring, pipe: tuple[int, int]) -> None:
    sqe = ring.get_sqe()
    odd: list[Any] = [b"bytes", "text", 5, object(), memoryview(bytearray(8))[::2], memoryview(b"x")]
    for buffer in odd:
        with pytest.raises(TypeError, match="buf takes"):
            sqe.prep_read(pipe[0], buffer)
    sqe.prep_read(pipe[0], array.array("i", [0, 0]))
    sqe.prep_nop()
    ring.submit_and_reap(1, BOUND)


def test_the_buffer_of_a_closed_ring_is_free_whatever_was_in_flight(pipe: tuple[int, int]) -> None:
    buffers = [bytearray(8) for _ in range(100)]
    with Ring(128) as ring:
        for number, buffer in enumerate(buffers):
            read(ring, pipe[0], buffer, number % 7, SqeFlags.ASYNC if number % 5 == 0 else 0)
    assert all(resizable(buffer) for buffer in buffers)
    os.write(pipe[1], b"untouched")
    assert os.read(pipe[0], 100) == b"untouched"  # nothing of it was consumed
    assert not any(any(buffer) for buffer in buffers)


def test_cancel_flags_are_found_once() -> None:
    assert uring.cancel_flags() == uring.cancel_flags()
    assert isinstance(uring.cancel_flags(), CancelFlags)
