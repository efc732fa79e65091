"""What a hostile review found in the engines, each as a test."""

from __future__ import annotations

import os
import socket
import struct
import threading
from typing import Any

import pytest

import iocancel
from iocancel import FeatureUnavailable
from iocancel.engines.libaio import LibaioEngine
from iocancel.engines.uring import UringEngine

ENGINES = ("uring", "libaio", "posix_aio")


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("seconds", [1e11, 1e300, float("inf"), 10**400])
def test_a_timeout_of_any_length_waits(name: str, seconds: float, pipe: tuple[int, int]) -> None:
    with iocancel.open_engine(name) as engine:
        op = engine.read(pipe[0], 1)
        engine.submit()
        os.write(pipe[1], b"x")
        op.wait(seconds)
        assert op.result() == b"x"
        engine.close(seconds)


@pytest.mark.parametrize("name", ENGINES)
def test_a_bad_argument_does_not_spoil_what_comes_next(name: str, pipe: tuple[int, int]) -> None:
    with iocancel.open_engine(name) as engine:
        with pytest.raises(ValueError):
            engine.timeout(10**400)
        with pytest.raises((OverflowError, struct.error)):
            engine.read(1 << 31, 1)
        assert engine.in_flight == 0
        os.write(pipe[1], b"x")
        op = engine.read(pipe[0], 1)
        op.wait()
        assert op.result() == b"x"


@pytest.mark.parametrize("name", ["uring", "libaio"])
def test_a_part_of_all_is_told(name: str) -> None:
    left, right = socket.socketpair()
    with left, right, iocancel.open_engine(name) as engine:
        right.send(b"abc")
        flags = socket.MSG_WAITALL | socket.MSG_DONTWAIT
        if name == "uring" and not engine.supports("send_zc"):  # before Linux 6.0 it would be lost
            with pytest.raises(FeatureUnavailable, match=r"needs Linux 6\.0"):
                engine.recv(left, 10, flags)
            return
        op = engine.recv(left, 10, flags)
        op.wait()
        assert op.result() == b"abc"


def test_a_part_of_all_is_told_when_the_number_is_another_file() -> None:
    left, right = socket.socketpair()
    other, end = socket.socketpair()
    with left, right, other, end, LibaioEngine() as engine:
        right.send(b"abc")
        op = engine.recv(left.fileno(), 10, socket.MSG_WAITALL)
        engine.submit()
        os.dup2(other.fileno(), left.fileno())
        right.send(b"def")  # its poll fires
        op.wait()
        assert op.result() == b"abc"


def test_memory_of_a_zero_copy_send_is_not_released_by_a_close() -> None:
    engine = UringEngine()
    if not engine.supports("send_zc"):
        engine.close()
        pytest.skip("this kernel has no zero-copy send")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        conn = socket.create_connection(listener.getsockname())
        with conn, listener.accept()[0]:
            op = engine.send_zc(conn, bytearray(200_000))
            op.wait()
            if op.memory_released:
                engine.close()
                pytest.skip("it was copied")
            with pytest.warns(ResourceWarning):
                engine.close(0.01)
            assert not op.memory_released


@pytest.mark.parametrize("name", ["uring", "libaio"])
def test_a_second_closer_returns_behind_the_first(name: str, pipe: tuple[int, int]) -> None:
    engine = iocancel.open_engine(name)
    ops = [engine.read(pipe[0], 1) for _ in range(20)]
    engine.submit()
    start = threading.Barrier(3)
    early: list[object] = []

    def close() -> None:
        start.wait()
        engine.close()
        early.extend(op for op in ops if not op.done())

    threads = [threading.Thread(target=close) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not early


@pytest.mark.parametrize("name", ["uring", "libaio"])
def test_a_cancel_between_two_values_ends_the_iteration(name: str) -> None:
    left, right = socket.socketpair()
    with left, right, iocancel.open_engine(name) as engine:
        right.send(b"a")
        got = []
        with engine.recv_multishot(left, 16, buffers=2) as block:
            for chunk in block:
                got.append(chunk)
                assert block.cancel()
        assert got == [b"a"]
        with pytest.raises(RuntimeError, match="another one"):
            block.__enter__()  # its buffers are gone: every receive would end at once, for ever


def test_connections_of_a_block_that_nobody_left_are_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, UringEngine() as engine:
        if not engine.supports("accept_multishot"):
            pytest.skip("this kernel has no multishot accept")
        block = engine.accept_multishot(listener)
        block.__enter__()
        with socket.create_connection(listener.getsockname()) as client:
            while not block._op._items:
                engine.submit()
            engine.close()
            del block
            assert client.recv(1) == b""


@pytest.mark.parametrize("name", ENGINES)
def test_a_callback_that_a_buffers_end_asks_for_is_called(name: str, pipe: tuple[int, int]) -> None:
    called: list[Any] = []

    class Buffer(bytearray):
        def __del__(self) -> None:
            op.add_done_callback(called.append)

    with iocancel.open_engine(name) as engine:
        os.write(pipe[1], b"x")
        op = engine.read(pipe[0], Buffer(4))
        op.wait()
        assert called == [op]
        called.clear()
