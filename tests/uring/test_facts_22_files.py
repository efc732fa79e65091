"""facts.md 2.2: a cancel by fd compares open files, and not their numbers."""

from __future__ import annotations

import os
import select
import socket

import pytest

from iocancel.uring import CancelFlags, Opcode, SqeFlags, TimeoutFlags

from ..support import until_blocked
from .helpers import INTERRUPTED, RUNS, Asked, need_flags

CANCELED, NOENT, BADF = -125, -2, -9
FD_FIXED = CancelFlags.FD_FIXED


@pytest.fixture(autouse=True)
def by_fd() -> None:
    need_flags(CancelFlags.FD)


def test_a_dup_is_the_same_file(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    other = os.dup(pipe[0])
    try:
        assert asked.cancel_fd(other) == 0
        assert asked.end(1) == CANCELED
    finally:
        os.close(other)


def test_the_other_end_of_a_pipe_is_another_file(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    assert asked.cancel_fd(pipe[1]) == NOENT
    assert asked.pending(1)


def test_opened_again_is_another_file(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "poll_add", pipe[0], select.POLLIN)
    again = os.open(f"/proc/self/fd/{pipe[0]}", os.O_RDONLY)
    try:
        assert asked.cancel_fd(again) == NOENT
    finally:
        os.close(again)
    assert asked.pending(1)


def test_a_fixed_slot_and_an_fd_of_one_file_match_each_other(asked: Asked, pipe: tuple[int, int]) -> None:
    need_flags(FD_FIXED)
    asked.ring.register_files([-1, pipe[0]])
    asked.go(1, "read", 1, bytearray(8), flags=SqeFlags.FIXED_FILE)
    assert asked.cancel_fd(pipe[0]) == 0
    assert asked.end(1) == CANCELED
    asked.go(2, "read", pipe[0], bytearray(8))
    assert asked.cancel_fd(1, FD_FIXED) == 0
    assert asked.end(2) == CANCELED
    asked.go(3, "read", 1, bytearray(8), flags=SqeFlags.FIXED_FILE)
    assert asked.cancel_fd(1, FD_FIXED) == 0
    assert asked.end(3) == CANCELED


def test_a_reused_number_does_not_match(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "read", pipe[0], bytearray(8))
    number = pipe[0]
    other = os.eventfd(0)
    os.dup2(other, number)  # closes what it was
    try:
        assert asked.cancel_fd(number) == NOENT
        assert asked.cancel_fd(number, CancelFlags.ALL) == 0
        assert asked.pending(1)
    finally:
        os.close(number)
        os.close(other)
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED


def test_after_close_only_the_user_data_finds_it(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "read", pipe[0], bytearray(8))
    os.close(pipe[0])
    assert asked.cancel_fd(pipe[0]) == BADF
    assert asked.cancel_fd(pipe[0], CancelFlags.ALL) == BADF
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED


def test_an_object_with_fileno(asked: Asked, pair: tuple[socket.socket, socket.socket]) -> None:
    asked.go(1, "recv", pair[0], bytearray(8))
    assert asked.cancel_fd(pair[0]) == 0
    assert asked.end(1) == CANCELED


def test_splice_goes_by_its_output(asked: Asked, pipe: tuple[int, int]) -> None:
    in_read, in_write = pipe
    out_read, out_write = os.pipe()
    try:
        asked.go(1, "splice", in_read, -1, out_write, -1, 16)
        until_blocked("pipe_wait")
        assert asked.cancel_fd(in_read) == NOENT
        assert asked.cancel_fd(in_write) == NOENT
        assert asked.cancel_fd(out_write) in RUNS
        assert asked.end(1) in INTERRUPTED
    finally:
        os.close(out_read)
        os.close(out_write)


@pytest.mark.parametrize("fd", [0, 1, 2])
def test_a_timeout_has_no_file(asked: Asked, fd: int) -> None:
    asked.go(1, "timeout", 3600.0)
    assert asked.cancel_fd(fd) == NOENT
    assert asked.cancel_fd(fd, CancelFlags.ALL) == 0
    assert asked.pending(1)
    assert asked.cancel(1) == 0
    assert asked.end(1) == CANCELED


def test_a_timeout_is_found_by_its_opcode(asked: Asked, pipe: tuple[int, int]) -> None:
    need_flags(CancelFlags.OP)
    asked.go(1, "timeout", 3600.0, 0, TimeoutFlags.BOOTTIME)
    asked.go(2, "poll_add", pipe[0], select.POLLIN)
    assert asked.cancel(0, CancelFlags.OP, opcode=Opcode.TIMEOUT) == 0
    assert asked.end(1) == CANCELED
    assert asked.pending(2)
