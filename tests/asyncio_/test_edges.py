"""What is rare in a loop: closed before it was submitted, dropped by another thread, refused, interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import select
import socket
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

import iocancel.asyncio as ours
from iocancel.asyncio import awaited
from iocancel.asyncio.hub import current
from iocancel.testing import Interruption, Tripwire

from ..support import BOUND
from .helpers import World, in_flight, raised


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


def no_credit() -> None:
    """The next verb is not done at once, but by the engine."""
    current().credit = 0


@pytest.mark.parametrize("engine", ["uring", "libaio"])
def test_a_file_closed_before_the_turn_leaves_the_engine_whole(
    world: World, engine: str, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is withdrawn is taken off: it is not handed over by a later turn, nor waited for for ever."""
    monkeypatch.setenv("IOCANCEL_ENGINE", engine)

    async def main() -> None:
        mine, peer = pair
        loop = asyncio.get_running_loop()
        for _ in range(3):
            closed, other = socket.socketpair()
            task = asyncio.ensure_future(ours.recv(closed, 1))
            if world.kind == "eager":  # it has made its first step
                closed.close()
            else:
                loop.call_soon(closed.close)  # behind the task's first step, before the turn
            error = await raised(task)
            other.close()
            assert isinstance(error, OSError)
            assert error.errno == errno.EBADF
        engine_of = current().engine
        assert not engine_of._staged
        assert engine_of.alarm() is None
        for _ in range(3):
            task = asyncio.ensure_future(ours.recv(mine, 1))
            await in_flight()
            peer.send(b"x")
            assert await task == b"x"

    world.run(main)


def test_a_receive_collected_by_another_thread_ends(world: World) -> None:
    """The loop hears of it, and the stream's file is closed."""

    async def main() -> None:
        mine, peer = socket.socketpair()
        with peer:
            stream = ours.Stream(mine)
            coroutine = stream.receive_some()
            coroutine.send(None)
            await in_flight()
            kept: list[Any] = [coroutine, stream]
            del coroutine, stream, mine
            flight = current().engine._ledger.flight
            (op,) = flight.values()
            ended = asyncio.get_running_loop().create_future()
            op.add_done_callback(ended.set_result)

            def collect() -> None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ResourceWarning)
                    kept.clear()
                    gc.collect()

            thread = threading.Thread(target=collect)
            thread.start()
            thread.join()
            await asyncio.wait_for(ended, BOUND)
            del op, ended
            assert await ours.recv(peer, 1) == b""

    world.run(main)


def test_each_failure_of_a_stream_has_its_own_exception(world: World) -> None:
    """An operation that is used again does not raise what it raised before, with all its frames."""

    async def main() -> None:
        gone = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        gone.bind(("127.0.0.1", 0))
        mine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        mine.connect(gone.getsockname())
        gone.close()
        errors = []
        async with ours.Stream(mine) as stream:
            for _ in range(3):
                no_credit()
                task = asyncio.ensure_future(stream.receive_some())
                await in_flight()
                mine.send(b"x")
                errors.append(await raised(task))
        assert all(isinstance(each, ConnectionRefusedError) for each in errors)
        assert len({id(each) for each in errors}) == 3

    world.run(main)


def test_what_a_burst_has_needed_is_not_kept(
    world: World, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(awaited, "_KEPT", 4)

    async def main() -> None:
        mine, peer = pair
        tasks = [asyncio.ensure_future(ours.poll(mine, select.POLLIN)) for _ in range(20)]
        await in_flight(20)
        peer.send(b"x")
        await asyncio.gather(*tasks)
        assert len(current().polls) <= 4

    world.run(main)


@pytest.mark.parametrize("what", ["poll", "room"])
def test_what_is_always_ready_lets_others_run(
    world: World, what: str, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Else a deadline around it never comes."""
    mine, _ = pair

    async def main() -> None:
        others: list[bool] = []
        asyncio.get_running_loop().call_soon(others.append, True)
        async with ours.Stream(os.dup(mine.fileno())) as stream:
            for _ in range(1000):
                if what == "poll":
                    await ours.poll(mine, select.POLLOUT)
                else:
                    await stream.wait_send_all_might_not_block()
        assert others

    world.run(main)


def test_a_system_that_refuses_is_not_asked_without_a_pause(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop's exception handler is told each time: not ten thousand times a second."""
    monkeypatch.setenv("IOCANCEL_ENGINE", "uring")
    told: list[Any] = []

    async def main() -> bytes:
        mine, peer = pair
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        carrier = current().engine._carrier
        go = carrier.go

        def refuse(*args: Any) -> None:
            raise OSError(errno.ENOMEM, "io_uring_enter")

        monkeypatch.setattr(carrier, "go", refuse)
        task = asyncio.ensure_future(ours.recv(mine, 1))
        while not told:
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        monkeypatch.setattr(carrier, "go", go)
        peer.send(b"x")
        data: bytes = await task
        return data

    # In 200 passes, which take a few milliseconds, there is room for some alarms, not for one try each.
    assert asyncio.run(asyncio.wait_for(main(), BOUND)) == b"x"
    assert len(told) < 100


@pytest.mark.parametrize(
    "call",
    [
        lambda sock: ours.recv(sock, "x"),  # type: ignore[arg-type]
        lambda sock: ours.recv(sock, b"read only"),
        lambda sock: ours.send(sock, "x"),  # type: ignore[arg-type]
        lambda sock: ours.write(sock, "x"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_buffer_is_named(call: Any, pair: tuple[socket.socket, socket.socket]) -> None:
    async def main() -> None:
        with pytest.raises(TypeError, match=r"(into|data) takes an object with a .*not (str|bytes)"):
            await call(pair[0])

    asyncio.run(main())


class Interrupted:
    """A loop in which five tasks wait; what they wait for comes while the wire is up."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.found: dict[str, Any] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def _wait(self, name: str, awaited: Any) -> None:
        try:
            self.found[name] = await awaited
        except asyncio.CancelledError:
            self.found[name] = None

    def through(self, nth: int) -> str:
        """Interrupt at the nth place, and see that nobody waits for ever, and no byte is lost."""
        first, second, third = (socket.socketpair() for _ in range(3))
        loop, found, tasks = self.loop, self.found, self.tasks

        async def begin() -> ours.Stream:
            stream = ours.Stream(third[0])
            current()
            verbs = {
                "recv": ours.recv(first[0], 1),
                "cancelled": ours.recv(second[0], 1),
                "stream": stream.receive_some(),
                "timeout": ours.sleep(0),
            }
            for name, verb in verbs.items():
                tasks[name] = asyncio.ensure_future(self._wait(name, verb))
            await in_flight(3)
            return stream

        async def all_ended() -> None:
            first[1].send(b"1")
            third[1].send(b"3")
            await asyncio.wait(tasks.values())

        async def see(stream: ours.Stream) -> None:
            _, pending = await asyncio.wait(tasks.values(), timeout=BOUND)
            assert not pending
            if "stream" not in found:  # its task was interrupted: what came is the next call's
                assert await asyncio.wait_for(stream.receive_some(), BOUND) == b"3"
            await stream.aclose()
            for task in tasks.values():
                task.exception()

        stream = loop.run_until_complete(begin())
        tasks["cancelled"].cancel()
        wire = Tripwire(
            nth, ["iocancel.asyncio", "iocancel.awaiting", "iocancel.operation"], spared=("_turn",)
        )
        with contextlib.suppress(Interruption), wire:
            loop.run_until_complete(all_ended())
        loop.run_until_complete(see(stream))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        for each in (*first, *second, *third):
            each.close()
        return wire.place


@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_ctrl_c_in_a_bare_loop_loses_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """At each place where a signal's handler may raise, but the entry of the loop's callback itself."""
    monkeypatch.setenv("IOCANCEL_ENGINE", "uring")
    nth = 0
    while Interrupted().through(nth):
        nth += 1
    assert nth > 50
