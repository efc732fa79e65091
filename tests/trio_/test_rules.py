"""trio's own rules about cancelling hold for our verbs.

The teardown finds what is left: a ledger that is not empty, an fd, a thread, memory.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

import iocancel.trio as ours
from iocancel import OperationCancelled
from iocancel.trio.hub import Hub, current

from ..support import fill, open_fds
from .conftest import settle
from .helpers import SHORT, VERBS, Blocking, in_flight, raised, run


@pytest.fixture(params=VERBS)
def blocks(request: pytest.FixtureRequest, tmp_path: Path, pipes: Callable[[], tuple[int, int]]) -> Blocking:
    """What blocks for ever."""
    return Blocking(request.param, tmp_path, pipes)


# Checkpoints

CALLS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "read": lambda s: ours.read(s.full, 1),
    "read much": lambda s: ours.read(s.full, 1 << 20),
    "read into": lambda s: ours.read(s.full, bytearray(1)),
    "read disk": lambda s: ours.read(s.disk, 1, 0),
    "readv": lambda s: ours.readv(s.full, [bytearray(1)]),
    "write": lambda s: ours.write(s.empty, b"x"),
    "write disk": lambda s: ours.write(s.disk, b"x", 0),
    "write_all": lambda s: ours.write_all(s.empty, b"x"),
    "writev": lambda s: ours.writev(s.empty, [b"x"]),
    "fsync": lambda s: ours.fsync(s.disk),
    "splice": lambda s: ours.splice(s.full, s.disk, 1),
    "tee": lambda s: ours.tee(s.full, s.empty, 1),
    "recv": lambda s: ours.recv(s.a, 1),
    "recv much": lambda s: ours.recv(s.a, 1 << 20),
    "recv_into": lambda s: ours.recv_into(s.a, bytearray(1)),
    "recvmsg": lambda s: ours.recvmsg(s.a, 1),
    "send": lambda s: ours.send(s.a, b"x"),
    "sendall": lambda s: ours.sendall(s.a, b"x"),
    "sendmsg": lambda s: ours.sendmsg(s.a, [b"x"]),
    "accept": lambda s: s.accept(),
    "connect": lambda s: s.connect(),
    "poll": lambda s: ours.poll(s.full, select.POLLIN),
    "sleep": lambda s: ours.sleep(0),
    "sleep_until": lambda s: ours.sleep_until(0),
    "waitid": lambda s: ours.waitid(os.P_PID, s.child, os.WEXITED | os.WNOWAIT),
    "open": lambda s: s.open(),
    "close_fd": lambda s: s.close_one(),
    "result": lambda s: ours.result(ours.engine().timeout(0)),
}


class Stage:
    """Where each verb has something to do at once."""

    def __init__(self, pipes: Callable[[], tuple[int, int]], folder: Path, server: socket.socket) -> None:
        self.full, writes = pipes()
        os.write(writes, bytes(8))
        _, self.empty = pipes()
        self.path = folder / "file"
        self.path.write_bytes(b"bytes")
        self.disk = os.open(self.path, os.O_RDWR)
        self.a, self.b = socket.socketpair()
        self.b.send(bytes(8))
        self.server = server
        self.clients = [socket.create_connection(server.getsockname())]
        self.child = os.posix_spawn("/bin/true", ["true"], os.environ)
        os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOWAIT)

    async def accept(self) -> None:
        conn, _ = await ours.accept(self.server)
        conn.close()

    async def connect(self) -> None:
        with socket.socket() as sock:
            await ours.connect(sock, self.server.getsockname())

    async def open(self) -> None:
        os.close(await ours.open(self.path))

    async def close_one(self) -> None:
        number = os.dup(self.full)
        try:
            await ours.close_fd(number)
        except trio.Cancelled:
            os.close(number)  # it is open yet
            raise

    def close(self) -> None:
        os.waitpid(self.child, 0)
        os.close(self.disk)
        for each in (self.a, self.b, *self.clients):
            each.close()


@pytest.mark.parametrize("name", CALLS)
def test_each_verb_is_a_checkpoint(
    name: str, pipes: Callable[[], tuple[int, int]], tmp_path: Path, listener: socket.socket
) -> None:
    stage = Stage(pipes, tmp_path, listener)

    async def main() -> None:
        with trio.testing.assert_checkpoints():
            await CALLS[name](stage)

    try:
        run(main)
    finally:
        stage.close()


@pytest.mark.parametrize("name", CALLS)
def test_a_cancelled_scope_raises_before_anything_is_done(
    name: str, pipes: Callable[[], tuple[int, int]], tmp_path: Path, listener: socket.socket
) -> None:
    stage = Stage(pipes, tmp_path, listener)
    numbers: list[int] = []

    async def main() -> None:
        current()
        numbers.append(len(open_fds()))
        with trio.CancelScope() as scope:
            scope.cancel()
            await CALLS[name](stage)
        assert scope.cancelled_caught
        assert current().engine.in_flight == 0

    try:
        run(main)
        assert os.read(stage.full, 16) == bytes(8)
        assert stage.path.read_bytes() == b"bytes"
        assert stage.a.recv(16, socket.MSG_DONTWAIT) == bytes(8)
        stage.b.setblocking(False)
        with pytest.raises(BlockingIOError):
            stage.b.recv(1)
        stage.server.settimeout(5)
        stage.server.accept()[0].close()
    finally:
        stage.close()


def test_the_waiting_ways_are_checkpoints(
    pipe: tuple[int, int], pair: tuple[socket.socket, socket.socket], blocks: Blocking
) -> None:
    """Cancelled while they wait; and what they wait for comes."""
    a = pair[0]
    fill(a.fileno())

    async def main() -> None:
        for call in (
            blocks,
            lambda: ours.read(pipe[0], 1),
            lambda: ours.read(pipe[0], 1 << 20),
            lambda: ours.readv(pipe[0], [bytearray(1)]),
            lambda: ours.poll(pipe[0], select.POLLIN),
            lambda: ours.send(a, b"x"),
            lambda: ours.recvmsg(a, 1),
        ):
            with trio.move_on_after(0.001) as scope, trio.testing.assert_checkpoints():
                await call()
            assert scope.cancelled_caught

    run(main)


# Scopes


def test_move_on_and_fail(blocks: Blocking) -> None:
    async def main() -> None:
        with trio.move_on_after(SHORT) as scope:
            await blocks()
        assert scope.cancelled_caught
        with pytest.raises(trio.TooSlowError):
            with trio.fail_after(SHORT):
                await blocks()

    run(main)


def test_nested_scopes(blocks: Blocking) -> None:
    """Of two that are cancelled at once the outer one catches."""

    async def main() -> None:
        with trio.CancelScope() as outer:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def both() -> None:
                    await in_flight()
                    inner.cancel()
                    outer.cancel()

                with trio.CancelScope() as inner:
                    await blocks()
        assert outer.cancelled_caught
        assert not inner.cancelled_caught

    run(main)


def test_a_cancel_within_a_shield_waits(blocks: Blocking, pipe: tuple[int, int]) -> None:
    async def main() -> None:
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    seen: list[bytes] = []

                    @nursery.start_soon
                    async def reading() -> None:
                        seen.append(await ours.read(pipe[0], 16))

                    await in_flight()
                    os.write(pipe[1], b"kept")
            assert seen == [b"kept"]
            await blocks()
        assert outer.cancelled_caught

    run(main)


def test_a_shield_that_is_put_down(blocks: Blocking) -> None:
    async def main() -> None:
        with trio.CancelScope() as outer:
            outer.cancel()
            with trio.CancelScope(shield=True) as shield:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(blocks)
                    await in_flight()
                    shield.shield = False
        assert outer.cancelled_caught

    run(main)


def test_a_nursery(blocks: Blocking) -> None:
    """A child's failure ends its siblings' waits."""

    async def main() -> None:
        async def fail() -> None:
            await in_flight(20)
            raise ValueError("child")

        async def group() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(blocks)
                nursery.start_soon(fail)

        error = await raised(group)
        assert isinstance(error, ExceptionGroup)
        assert [type(each) for each in error.exceptions] == [ValueError]

    run(main)


# A success that beats the cancel


def test_a_value_that_was_first_is_delivered(pipe: tuple[int, int]) -> None:
    """The kernel has ended it; the cancel comes before the task goes on: the value is returned, and the next
    checkpoint raises."""

    async def main() -> None:
        seen: list[int] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def opening() -> None:
                    seen.append(await ours.result(op))
                    await trio.lowlevel.checkpoint()
                    seen.append(-1)

                op = ours.engine().poll(pipe[0], select.POLLIN)
                await in_flight()
                os.write(pipe[1], b"x")
                scope.cancel()  # the kernel has completed it already
        assert scope.cancelled_caught
        assert seen == [select.POLLIN]

    run(main)


def test_a_read_beside_a_cancel_loses_nothing(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        seen: list[bytes] = []
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def reading() -> None:
                    seen.append(await ours.read(pipe[0], 16))

                await in_flight()
                os.write(pipe[1], b"kept")
                scope.cancel()
        seen.append(b"".join(seen) or await ours.read(pipe[0], 16))
        assert seen[-1] == b"kept"

    run(main)


def test_the_first_of_two_that_wait_for_one_is_cancelled() -> None:
    async def main() -> None:
        op = ours.engine().timeout(1000.0)
        errors: list[BaseException | None] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def second() -> None:
                errors.append(await raised(lambda: ours.result(op)))

            async def first() -> None:
                with scope:
                    await ours.result(op)

            scope = trio.CancelScope()
            nursery.start_soon(first)
            await in_flight()
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert scope.cancelled_caught
        assert isinstance(errors[0], OperationCancelled)

    run(main)


@pytest.mark.parametrize("how", ["one", "many", "fd", "all"])
def test_a_cancel_by_the_engine(pipe: tuple[int, int], how: str) -> None:
    async def main() -> None:
        engine = ours.engine()
        op = engine.poll(pipe[0], select.POLLIN)
        errors: list[BaseException | None] = []
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def waiting() -> None:
                errors.append(await raised(lambda: ours.result(op)))

            await in_flight()
            if how == "one":
                op.cancel()
            elif how == "many":
                engine.cancel([op])
            elif how == "fd":
                engine.cancel_fd(pipe[0])
            else:
                engine.cancel_all()
        assert isinstance(errors[0], OperationCancelled)

    run(main)


def test_a_file_that_is_closed_while_others_begin_again(pipe: tuple[int, int]) -> None:
    async def main() -> None:
        errors: list[BaseException | None] = []
        number = os.dup(pipe[0])
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def stubborn() -> None:
                errors.append(await raised(lambda: ours.poll(number, 1)))
                errors.append(await raised(lambda: ours.poll(number, 1)))

            await in_flight()
            await ours.close_fd(number)
        assert isinstance(errors[0], OperationCancelled)
        assert isinstance(errors[1], OSError)

    run(main)


# Ctrl-C


async def interrupt(before: Callable[[], object] = int) -> None:
    """A Ctrl-C once the main task waits. In a system task, where none is raised."""
    await in_flight()
    before()
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c(blocks: Blocking) -> None:
    """In the main task's verb: its request is cancelled, and then KeyboardInterrupt is raised there."""
    seen: list[type[BaseException]] = []

    async def main() -> None:
        trio.lowlevel.spawn_system_task(interrupt)
        try:
            await blocks()
        except BaseException as error:
            seen.append(type(error))
            assert current().engine.in_flight == 0
            raise

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert seen == [KeyboardInterrupt]


def test_ctrl_c_loses_nothing(pipe: tuple[int, int]) -> None:
    """With the bytes there before it: they were read, or are in the pipe."""
    seen: list[bytes] = []

    async def main() -> None:
        trio.lowlevel.spawn_system_task(interrupt, lambda: os.write(pipe[1], b"kept"))
        seen.append(await ours.read(pipe[0], 16))
        await trio.lowlevel.checkpoint()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert (b"".join(seen) or os.read(pipe[0], 16)) == b"kept"


# trio.testing


def test_mock_clock_jumps_while_io_is_pending(pipe: tuple[int, int]) -> None:
    """trio's autojump does not know of I/O, nor of its own: when all tasks are blocked the clock jumps to the
    next deadline, though a read is pending that would end soon. Our deadlines are the kernel's and not the
    clock's: `iocancel.trio.sleep` takes real time under it."""

    async def main() -> float:
        began = trio.current_time()
        with trio.move_on_after(3600) as scope:
            await ours.read(pipe[0], 16)
        assert scope.cancelled_caught
        await ours.sleep(0)
        return trio.current_time() - began

    clock = trio.testing.MockClock(autojump_threshold=0)

    async def checked() -> float:
        value = await main()
        assert current().engine.in_flight == 0
        return value

    assert trio.run(checked, clock=clock) == pytest.approx(3600)


def test_wait_all_tasks_blocked(pipe: tuple[int, int]) -> None:
    """A task in our verb counts as blocked; and what it waits for is with the kernel by then."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.read, pipe[0], 16)
            await trio.testing.wait_all_tasks_blocked()
            assert current().engine.in_flight == 1
            os.write(pipe[1], b"x")

    run(main)


def test_a_sequencer(pipe: tuple[int, int]) -> None:
    order: list[str] = []

    async def main() -> None:
        steps = trio.testing.Sequencer()

        async def reader() -> None:
            async with steps(0):
                order.append("reads")
            order.append((await ours.read(pipe[0], 16)).decode())
            async with steps(2):
                order.append("end")

        async def writer() -> None:
            async with steps(1):
                order.append("writes")
                await ours.write(pipe[1], b"bytes")
                while "bytes" not in order:
                    await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(reader)
            nursery.start_soon(writer)

    run(main)
    assert order == ["reads", "writes", "bytes", "end"]


# Runs


def test_two_runs_one_after_the_other(blocks: Blocking) -> None:
    engines: list[Any] = []

    async def main() -> None:
        with trio.move_on_after(SHORT):
            await blocks()
        engines.append(ours.engine())

    run(main)
    settle()
    before = len(open_fds())
    run(main)
    settle()
    assert len(open_fds()) == before
    assert engines[0] is not engines[1]
    assert all(each.closed for each in engines)
    engines.clear()


def test_a_run_without_a_verb_has_nothing_of_ours() -> None:
    async def main() -> None:
        await trio.lowlevel.checkpoint()
        assert not instruments()
        root = trio.lowlevel.current_root_task()
        assert root is not None
        tasks = [task.name for nursery in root.child_nurseries for task in nursery.child_tasks]
        assert tasks
        assert not [name for name in tasks if "iocancel" in name]

    trio.run(main)


def instruments() -> list[Any]:
    """Ours, of this run."""
    from trio._core import _run

    return [each for each in _run.GLOBAL_RUN_CONTEXT.runner.instruments["_all"] if isinstance(each, Hub)]


class AtTheEnd(trio.abc.Instrument):
    """Looks at a run's end for what is left of ours."""

    def __init__(self) -> None:
        self.left: list[Any] | None = None

    def after_run(self) -> None:
        self.left = instruments()


def test_the_instrument_is_removed_at_the_end(pipe: tuple[int, int]) -> None:
    last = AtTheEnd()

    async def main() -> None:
        with trio.move_on_after(SHORT):
            await ours.read(pipe[0], 16)
        assert len(instruments()) == 1

    run(main, instruments=[last])
    assert last.left == []


def test_a_system_task_that_waits_at_the_end(blocks: Blocking) -> None:
    """trio cancels system tasks when the main task has ended: ours that watches is one of them."""
    errors: list[BaseException | None] = []

    async def waiting() -> None:
        error = await raised(blocks)
        errors.append(error)
        if isinstance(error, trio.Cancelled):
            raise error

    async def main() -> None:
        trio.lowlevel.spawn_system_task(waiting)
        await in_flight()

    trio.run(main)
    assert len(errors) == 1
    assert isinstance(errors[0], trio.Cancelled | OperationCancelled)


def test_a_system_task_that_begins_at_the_end(pipe: tuple[int, int]) -> None:
    """A verb in a system task's cleanup."""
    seen: list[Any] = []

    async def cleaning() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                seen.append(await raised(lambda: ours.sleep(0)))
                os.write(pipe[1], b"x")
                seen.append(await ours.read(pipe[0], 16))

    async def main() -> None:
        trio.lowlevel.spawn_system_task(cleaning)
        await ours.sleep(0)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(main)
    assert seen[0] is None or isinstance(seen[0], OperationCancelled)
    assert seen[1] == b"x"


def test_no_run() -> None:
    coroutine = ours.sleep(0)
    with pytest.raises(RuntimeError, match="context"):
        coroutine.send(None)
