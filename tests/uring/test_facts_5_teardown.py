"""facts.md 5: what closing an fd, a ring, a thread and a process does to what is in flight; forks (5.6)."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from iocancel.uring import Opcode, Ring, SqeFlags, limbo

from ..support import BOUND, few, need, until, until_blocked
from .helpers import INTERRUPTED, RING_KINDS, Asked, need_op

CANCELED, NOENT = -125, -2


def test_close_of_an_fd_cancels_nothing(asked: Asked, pipe: tuple[int, int]) -> None:
    buffer = bytearray(8)
    asked.go(1, "read", pipe[0], buffer)
    os.close(pipe[0])
    assert asked.pending(1)
    assert os.write(pipe[1], b"hi") == 2  # no EPIPE: the request holds the file open
    assert asked.end(1) == 2
    assert buffer[:2] == b"hi"
    broken = select.poll()  # then nobody holds the read end: at once, or a little later
    broken.register(pipe[1], 0)
    assert broken.poll(BOUND * 1000) == [(pipe[1], select.POLLERR)]


def test_a_close_through_the_ring_cancels_nothing(asked: Asked, pipe: tuple[int, int]) -> None:
    asked.go(1, "read", pipe[0], bytearray(8))
    assert asked.ask("close", pipe[0]) == 0
    assert asked.pending(1)
    os.write(pipe[1], b"hi")
    assert asked.end(1) == 2


@pytest.mark.parametrize("kind", RING_KINDS)
def test_closing_a_ring_steals_no_data(
    open_ring: Callable[..., Asked], pipe: tuple[int, int], kind: str
) -> None:
    """5.4: a poll-armed read, close, and a write at once: the byte is there for whoever reads next."""
    for number in range(few(30 if kind == "sqpoll" else 300)):  # a thread is made for each
        asked = open_ring(4, RING_KINDS[kind])
        buffer = bytearray(8)
        asked.go(number, "read", pipe[0], buffer)
        asked.ring.close()
        os.write(pipe[1], b"x")
        assert os.read(pipe[0], 8) == b"x"
        assert bytes(buffer) == bytes(8)
        buffer.clear()  # nobody holds it any more


def test_closing_a_ring_lets_its_files_go(pipe: tuple[int, int]) -> None:
    """Release comes late (5.4: 1 to 8 ms after the close), but it comes."""
    with Ring(8) as ring:
        ring.register_files([pipe[1]])
        os.close(pipe[1])
    hang_up = select.poll()
    hang_up.register(pipe[0], 0)
    assert hang_up.poll(BOUND * 1000) == [(pipe[0], select.POLLHUP)]


def test_closing_interrupts_what_runs_in_a_worker(asked: Asked, fifo: Path) -> None:
    asked.go(1, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)
    until_blocked("wait_for_partner")
    asked.ring.close()
    with pytest.raises(OSError, match="No such device or address"):  # nobody waits for a writer any more
        os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)


def test_memory_is_kept_until_the_kernel_lets_go(
    open_ring: Callable[..., Asked], tcp: tuple[socket.socket, socket.socket]
) -> None:
    """5.5: a zero-copy send that nobody can end: past its bound close() keeps the memory."""
    asked = open_ring(8)
    need_op(asked.ring, Opcode.SEND_ZC)
    data = bytearray(1 << 23)
    asked.go(1, "send_zc", tcp[0], data, socket.MSG_WAITALL)
    assert asked.cancel(1) == 0
    assert asked.next(1).more
    asked.ring.close(timeout=0)
    assert limbo.sweep() == 1
    with pytest.raises(BufferError):
        data.clear()
    tcp[1].close()
    until(lambda: limbo.sweep() == 0, "the barrier hangs up")
    data.clear()


def test_a_submitters_exit_interrupts_its_workers(asked: Asked, fifo: Path) -> None:
    def submit() -> None:
        asked.go(1, "openat", None, fifo, os.O_RDONLY, flags=SqeFlags.ASYNC)
        until_blocked("wait_for_partner")

    thread = threading.Thread(target=submit)
    thread.start()
    thread.join(BOUND)
    assert asked.end(1) in (*INTERRUPTED, CANCELED)


def in_a_thread_that_ends(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(BOUND)
    until(lambda: not Path(f"/proc/self/task/{thread.native_id}").exists(), "the thread is gone")


def test_a_submitters_exit_and_its_armed_read(asked: Asked, pipe: tuple[int, int]) -> None:
    """5.7: it lingers, and ends -ECANCELED on its wake-up, the data left in the pipe."""
    in_a_thread_that_ends(lambda: asked.go(1, "read", pipe[0], bytearray(8)))
    os.write(pipe[1], b"hi")
    assert asked.end(1) == CANCELED
    assert os.read(pipe[0], 8) == b"hi"


def test_what_an_ended_thread_submitted_can_be_cancelled(asked: Asked, pipe: tuple[int, int]) -> None:
    in_a_thread_that_ends(lambda: asked.go(1, "read", pipe[0], bytearray(8)))
    # An old kernel (5.15's io_uring) may have ended it with the thread.
    assert asked.cancel(1) in (0, NOENT)
    assert asked.end(1) == CANCELED


def test_a_foreign_threads_submit_takes_what_its_owner_prepared(asked: Asked, pipe: tuple[int, int]) -> None:
    """10.4: and when that thread exits, it is cancelled, although its owner lives."""
    asked.put(1, "read", pipe[0], bytearray(8))
    in_a_thread_that_ends(asked.ring.submit)
    assert asked.ring.submit() == 0  # it is gone from the queue
    os.write(pipe[1], b"hi")
    assert asked.end(1) == CANCELED
    assert os.read(pipe[0], 8) == b"hi"


Run = Callable[[str], subprocess.CompletedProcess[str]]


def test_a_child_keeps_nothing_alive(run: Run) -> None:
    """5.6: a child's copy of the ring's fd would keep it alive; ours is closed in the child."""
    done = run(
        """
import select
read_end, write_end = os.pipe()
stop, go_on = os.pipe()
ring = Ring(8)
number = ring.fileno()
ring.register_files([write_end])
os.close(write_end)
child = os.fork()
if not child:
    os.close(go_on)
    os.read(stop, 1)
    os._exit(0)
ring.close()
hang_up = select.poll()
hang_up.register(read_end, 0)
print(hang_up.poll(60_000) == [(read_end, select.POLLHUP)], os.waitpid(child, os.WNOHANG) == (0, 0))
os.close(go_on)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    assert done.stdout.split() == ["True", "True", "0"]


def test_a_child_does_not_defeat_the_barrier(run: Run) -> None:
    """10.3: a ring that closed with a send pending is let go of although a child lives."""
    done = run(
        """
import socket, time
from iocancel.uring import limbo
ring = Ring(8)
if not ring.probe().supports(Opcode.SEND_ZC):
    print("lacking")
    sys.exit(ring.close())
server = socket.create_server(("127.0.0.1", 0))
a = socket.create_connection(server.getsockname())
b, _ = server.accept()
sqe = ring.get_sqe()
sqe.prep_send_zc(a, bytes(1 << 23), socket.MSG_WAITALL)
sqe.user_data = 1
ring.submit()
stop, go_on = os.pipe()
child = os.fork()
if not child:
    for thing in (a, b, server):
        thing.close()
    os.close(go_on)
    os.read(stop, 1)
    os._exit(0)
ring.close(timeout=0)
print(limbo.sweep())
for thing in (a, b, server):
    thing.close()
deadline = time.monotonic() + 60
while limbo.sweep() and time.monotonic() < deadline:
    os.sched_yield()
print(limbo.sweep(), os.waitpid(child, os.WNOHANG) == (0, 0))
os.close(go_on)
os.waitpid(child, 0)
"""
    )
    need(done.stdout != "lacking\n", "SEND_ZC is of Linux 6.0")
    assert done.stdout.split() == ["1", "0", "True"]


def test_a_child_can_neither_use_nor_cancel(run: Run) -> None:
    done = run(
        """
read_end, write_end = os.pipe()
ring = Ring(8)
number = ring.fileno()
buffer = bytearray(8)
sqe = ring.get_sqe()
sqe.prep_read(read_end, buffer)
sqe.user_data = 1
ring.submit()
child = os.fork()
if not child:
    failures = 0
    for call in (ring.get_sqe, ring.submit, ring.peek, lambda: ring.wait(1, 0), ring.fileno, ring.probe,
                 lambda: ring.register_sync_cancel(1), lambda: ring.register_files([0])):
        try:
            call()
        except RuntimeError as error:
            failures += "forked child" in str(error)
    try:
        os.fstat(number)
    except OSError:
        failures += 1
    ring.close()
    with Ring(8) as other:
        other.get_sqe()
        failures += other.submit()
    del ring
    os._exit(failures)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.write(write_end, b"hi")
print([cqe.res for cqe in ring.wait(1, 60)], bytes(buffer[:2]))
ring.close()
"""
    )
    assert done.stdout.split() == ["10", "[2]", "b'hi'"]


def test_a_process_ends_with_requests_in_flight(run: Run) -> None:
    """5.7: at once; a word about the ring that was never closed goes to stderr."""
    program = """
read_end, write_end = os.pipe()
ring = Ring(8)
sqe = ring.get_sqe()
sqe.prep_read(read_end, bytearray(8))
ring.submit()
print("end")
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
"""
    assert run(program).stdout == "end\n"
