"""The programs in examples/: run as a user runs them, and their functions by import."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import iocancel
from iocancel import EngineUnavailable, _lifetime

FOLDER = Path(__file__).parents[1] / "examples"
if not FOLDER.is_dir():
    pytest.skip("examples/ is not here: an installed copy", allow_module_level=True)
BOUND = 60.0  # seconds until something is taken to hang


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    threads, kept = set(threading.enumerate()), _lifetime.kept()
    yield
    gc.collect()
    assert _lifetime.kept() == kept, "something was kept for ever"
    assert not set(threading.enumerate()) - threads, "a thread was left running"


@pytest.fixture
def engine() -> Iterator[Any]:
    """The engine on io_uring, whose endings these programs' accounts are of."""
    try:
        opened = iocancel.open_engine("uring")
    except EngineUnavailable as error:
        pytest.skip(str(error))
    with opened:
        yield opened
        assert opened.in_flight == 0


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def program(name: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(FOLDER / f"{name}.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "IOCANCEL_ENGINE": "uring", **more},
    )


def output(running: subprocess.Popen[str]) -> str:
    with running:
        try:
            out, err = running.communicate(timeout=BOUND)
        finally:
            running.kill()
    assert running.returncode == 0, err
    assert err == ""
    return out


def test_each_example_says_what_it_is() -> None:
    names = sorted(path.stem for path in FOLDER.glob("*.py"))
    assert names == [
        *("drain", "drop_connection", "echo_server", "fifo_deadline", "http_deadline"),
        *("pickle_deadline", "prompt", "read_ahead", "stop_worker", "tail_fifo", "usb_gadget"),
    ]
    for name in names:
        module = example(name)
        assert f"python examples/{name}.py" in module.__doc__
        assert callable(module.main)


# A server that drops a connection


def test_a_dropped_connection_leaves_the_next_one_alone(engine: Any) -> None:
    report = example("drop_connection").serve(engine)
    assert [name.split()[0] for name in report.dropped] == ["poll", "recv", "recv"]
    assert set(report.dropped.values()) == {"cancelled"}
    assert report.reused
    assert report.late is False
    assert report.received == b"hello"


@pytest.mark.usefixtures("engine")
def test_drop_connection_as_a_program() -> None:
    lines = output(program("drop_connection")).splitlines()
    assert [line.rpartition(": ")[2] for line in lines[1:4]] == ["cancelled"] * 3
    assert lines[4:] == [
        "the next connection has the same number: yes",
        "a late cancel of an old request: too late, nothing was sent",
        "the next connection received b'hello'",
    ]


# A loader that throws away its read-ahead


def test_every_read_that_was_thrown_away_is_accounted_for(engine: Any, tmp_path: Path) -> None:
    module = example("read_ahead")
    path = tmp_path / "blocks"
    path.write_bytes(b"".join(map(module.content, range(128))))
    (_, first), (_, second), (_, in_all) = module.load(engine, path)
    ahead = module.AHEAD
    assert set(in_all) <= {"completed", "cancelled"}
    # Blocks 0 to 3 were used.
    assert sum(first.values()) == ahead - 1
    # Nothing of this was submitted: no read of it can have happened.
    assert second == {"cancelled": ahead}
    assert sum(in_all.values()) == 4 + sum(first.values()) + sum(second.values()) + ahead


def test_what_was_read_before_the_cancel_is_kept(engine: Any, tmp_path: Path) -> None:
    module = example("read_ahead")
    path = tmp_path / "blocks"
    path.write_bytes(b"".join(map(module.content, range(128))))
    fd = os.open(path, os.O_RDONLY)
    try:
        loader = module.Loader(engine, fd, 128)
        assert loader.get(0) == module.content(0)
        ended = loader.throw_away()
        assert loader.in_flight == 0
        done = sum(loader.account.values())
        for block in range(1, module.AHEAD):
            assert loader.get(block) == module.content(block)
        # Only what had been cancelled was read again, and the blocks behind.
        again = sum(loader.account.values()) - done + loader.in_flight
        assert again == ended["cancelled"] + module.AHEAD - 1
        loader.throw_away()
    finally:
        os.close(fd)


@pytest.mark.usefixtures("engine")
def test_read_ahead_as_a_program() -> None:
    lines = output(program("read_ahead")).splitlines()
    assert lines[1] == "thrown away before submitting block 64: 16 cancelled"
    assert sum(int(word) for word in lines[2].split() if word.isdigit()) == 51


# A drain at shutdown


def test_a_signal_drains(engine: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    rows = example("drain").serve(engine, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) is before
    assert engine.closed
    ended = {name: (outcome, told) for name, outcome, told in rows}
    assert ended["a message"] == ("completed", "b'last words'")
    assert len(ended) >= 4
    for name, (outcome, told) in ended.items():
        if name != "a message":
            assert outcome == "cancelled"
            assert told.startswith("[Errno 125]")


@pytest.mark.usefixtures("engine")
def test_drain_as_a_program() -> None:
    with program("drain") as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline().endswith(": waiting for SIGTERM\n")
            # A signal that comes just before it sleeps wakes nobody, as with every call that sleeps: again.
            while True:
                running.terminate()
                try:
                    out, err = running.communicate(timeout=10.0)
                    break
                except subprocess.TimeoutExpired:
                    continue
        finally:
            running.kill()
    assert (running.returncode, err) == (0, "")
    lines = out.splitlines()
    assert "completed  b'last words'" in lines[1]
    assert lines[-1].startswith(f"{len(lines) - 2} cancelled, 1 completed of {len(lines) - 1}")


# Plain threads, asyncio, trio


BLOCKING = {
    "fifo_deadline": [
        "before anybody writes: nothing in time",
        "half of a line: nothing in time",
        r"the other half: b'half of a line\n'",
        "the writer has gone: b''",
    ],
    "stop_worker": [
        "the worker got b'a message'",
        "the worker has ended, cancelled: True",
        "nothing reads any more: b'later' is still there",
    ],
    "echo_server": [
        "echoed: b'hello'",
        "the silent client reads its end: True",
        "stopped: True and in flight: 0",
        "told: a client has left, a client was silent",
    ],
    "tail_fifo": [
        "nobody writes: []",
        "somebody does: ['one', 'two']",
        "in flight: 0",
    ],
    "http_deadline": [
        "the client: the 1 s of fail_after() are over",
        "the server: the client has gone",
    ],
    "pickle_deadline": [
        "a whole value: {'answer': 42}",
        "half a value: the 0.1 s of fail_after() are over",
    ],
}


def have(system: str) -> None:
    try:
        iocancel.open_engine(system).close()
    except EngineUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.skipif(
    "IOCANCEL_GUEST" in os.environ, reason="an emulated machine is too slow for their deadlines"
)
@pytest.mark.parametrize("system", ["uring", "libaio"])
@pytest.mark.parametrize("name", sorted(BLOCKING))
def test_blocking_calls_that_end(name: str, system: str) -> None:
    have(system)
    if (name, system) == ("tail_fifo", "libaio"):
        pytest.skip("Linux AIO has no open()")
    assert output(program(name, IOCANCEL_ENGINE=system)).splitlines() == BLOCKING[name]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal: the side of who types, and that of the program."""
    import pty

    ends = pty.openpty()
    yield ends
    for fd in ends:
        os.close(fd)


def test_a_prompt_is_answered_or_not(terminal: tuple[int, int]) -> None:
    typed, tty = terminal
    ask = example("prompt").ask
    assert ask(tty, "? ", 0.01) is None
    os.write(typed, b"somebo")  # not a line yet
    assert ask(tty, "? ", 0.01) is None
    os.write(typed, b"dy\n")
    assert ask(tty, "? ", BOUND) == "somebody"
    assert os.read(typed, 2) == b"? "


def test_prompt_as_a_program(terminal: tuple[int, int]) -> None:
    typed, tty = terminal
    # The first terminal that the leader of a session opens is its own, /dev/tty.
    code = (
        "import os, sys; os.open(sys.argv[1], os.O_RDWR); "
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, os.ttyname(tty), str(FOLDER / "prompt.py"), str(BOUND)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            asked = b""
            while not asked.endswith(b"? "):
                asked += iocancel.read(typed, 100, timeout=BOUND)
            os.write(typed, b"Ann\n")
            out, _ = running.communicate(timeout=BOUND)
        finally:
            running.kill()
    assert running.returncode == 0
    assert out == "Hello, Ann.\n"


@pytest.mark.skipif(
    "IOCANCEL_GUEST" not in os.environ, reason="it would be a USB device of this very machine's"
)
def test_usb_gadget() -> None:
    with program("usb_gadget") as running:
        try:
            out, err = running.communicate(timeout=BOUND)
        finally:
            running.kill()
    if running.returncode == 2:
        pytest.skip(err)
    assert (running.returncode, err) == (0, "")
    assert out.splitlines() == [
        "how far a read can be cancelled here: total",
        "a read of what the host never sends: cancelled",
        "a write that the host never takes: cancelled",
        "in flight: 0",
    ]
