"""Contexts that are forgotten, that outlive the interpreter, and that a forked child has."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from subprocess import CompletedProcess
from typing import Any

import pytest

from iocancel.libaio import Context, Iocb
from iocancel.libaio import kernel as kernel_module

Run = Callable[..., CompletedProcess[str]]


def test_collected(pipe: tuple[int, int]) -> None:
    iocb = Iocb.poll(pipe[0])
    context = Context()
    context.submit([iocb])
    with pytest.warns(ResourceWarning, match="unclosed"):
        del context
    assert not iocb.in_flight


def test_collected_in_a_cycle_with_what_is_in_flight(pipe: tuple[int, int]) -> None:
    context = Context()
    buffer = bytearray(1)
    iocb = Iocb.pwrite(pipe[1], buffer)
    poll = Iocb.poll(pipe[0])
    iocb.data = poll.data = [context, iocb, poll, buffer]
    context.submit([iocb, poll])
    del context, iocb, poll, buffer
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()


def test_collected_and_kept(
    pipe: tuple[int, int], fake: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from iocancel.libaio import context as context_module

    monkeypatch.setattr(context_module, "_COLLECTED", 0)
    with pytest.MonkeyPatch.context():
        fake(ioc_laio_cancel_many=lambda *_: 0)
        context = Context()
        iocb = Iocb.poll(pipe[0])
        context.submit([iocb])
        with pytest.warns(ResourceWarning, match="unclosed"):
            del context
        assert iocb.in_flight
        assert len(kernel_module._abandoned) == 1


def test_collected_with_warnings_as_errors(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", seen.append)
    iocb = Iocb.poll(pipe[0])
    context = Context()
    context.submit([iocb])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del context
    assert [type(said.exc_value) for said in seen] == [ResourceWarning]
    assert not iocb.in_flight
    seen.clear()


AT_EXIT = """
import mmap, threading
context = Context()
r, w, other = *os.pipe(), os.pipe()
iocbs = [Iocb.poll(r) for _ in range(10)] + [Iocb.pwrite(other[1], bytearray(10))]
context.submit(iocbs)
"""


def test_the_interpreter_ends_with_requests_in_flight(run: Run) -> None:
    ended = run(AT_EXIT, "-X", "dev")
    assert ended.returncode == 0, ended.stderr
    assert "ResourceWarning: unclosed <iocancel.libaio.Context open in_flight=11>" in ended.stderr
    assert "Exception" not in ended.stderr


def test_the_interpreter_ends_with_warnings_as_errors(run: Run) -> None:
    ended = run(AT_EXIT, "-W", "error")
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_interpreter_ends_with_what_does_not_end(run: Run) -> None:
    """It is kept, and what the kernel has is not freed."""
    for again in ("", "context.close(0.01)\n", "del context, iocbs\n"):
        ended = run(
            "from iocancel import _lifetime\n"
            "from iocancel.libaio import kernel, context as context_module\n"
            "real = kernel.lib\n"
            "class Fake:\n"
            "    ioc_laio_cancel_many = staticmethod(lambda *a: 0)\n"
            "    def __getattr__(self, name): return getattr(real, name)\n"
            "kernel.lib = Fake(); kernel.AT_EXIT = context_module._COLLECTED = 0.01\n"
            + AT_EXIT
            + again
            + "import sys\n"
            "sys.modules['keep'] = type('K', (), {'__del__': lambda self, n=_lifetime: print(n.kept())})()\n",
            "-W",
            "ignore",
        )
        assert (ended.stdout, ended.stderr, ended.returncode) == ("1\n", "", 0)


def test_the_interpreter_ends_while_a_thread_waits(run: Run) -> None:
    ended = run(
        AT_EXIT + "def wait():\n"
        "    try: context.getevents(100)\n"
        "    except ValueError: pass\n"
        "t = threading.Thread(target=wait, daemon=True); t.start()\n"
        "while not context._kernel.users: os.sched_yield()\n",
        "-W",
        "ignore",
    )
    assert (ended.returncode, ended.stderr) == (0, "")


FORKED = """
import gc, warnings
def tried(call, *arguments):
    try: return call(*arguments)
    except Exception as error: return f"{type(error).__name__}: {error}"
def wakes():  # and not how many fds there are: libffi opens one of its own in a child, now and then
    links = [os.readlink(fd.path) for fd in os.scandir("/proc/self/fd") if os.path.lexists(fd.path)]
    return links.count("anon_inode:[eventfd]")
context = Context()
r, w = os.pipe()
buffer = bytearray(1)
polls = [Iocb.poll(r) for _ in range(3)]
iocbs = [*polls, Iocb.pwrite(w, buffer)]
os.set_blocking(r, False)
free = Iocb.poll(w, PollEvents.OUT)
context.submit(polls)
def child():
    for call in (context.submit, [free]), (context.cancel, polls[0]), (context.getevents,):
        said = tried(*((call[0], [free]) if call[0] == context.submit else call))
        assert said.startswith("RuntimeError: io_") and "fork" in said, said
    assert tried(context.submit, []).startswith("RuntimeError")
    if CLOSES:
        assert context.close() == [] == context.close()
    with Context() as other:  # the child's own work is not touched
        assert other.submit([free]) == 1 and other.getevents()[0].res > 0
def parent(pid):
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert context.in_flight == 3 and tried(context.cancel, polls[0]) is None
    assert context.getevents()[0].res == 0
    assert len(context.close()) == 2
    print("good")
"""


@pytest.mark.parametrize("closes", [True, False])
def test_fork(run: Run, closes: bool) -> None:
    ended = run(
        FORKED.replace("CLOSES", str(closes)) + "assert wakes() == 1\n"
        "pid = os.fork()\n"
        "if pid: parent(pid); assert wakes() == 0  # it has closed it\n"
        "else:\n"
        "    assert wakes() == 0\n"
        "    child(); assert not any(poll.in_flight for poll in polls)\n",
        "-X",
        "dev",
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("good\n", "", 0)


@pytest.mark.parametrize("closes", [True, False])
def test_fork_that_python_does_not_see(run: Run, closes: bool) -> None:
    ended = run(
        FORKED.replace("CLOSES", str(closes))
        + "import ctypes\n"
        "pid = ctypes.PyDLL(None).fork()\n"
        "if pid: parent(pid)\n"
        "else:\n"
        "    child()\n"
        "    if not CLOSES: del context; gc.collect()\n".replace("CLOSES", str(closes)),
        "-X",
        "dev",
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("good\n", "", 0)


def test_fork_that_python_does_not_see_and_nobody_closes(run: Run) -> None:
    ended = run(
        FORKED.replace("CLOSES", "False")
        + "import ctypes\npid = ctypes.PyDLL(None).fork()\nif pid: parent(pid)\n"
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("good\n", "", 0)


def test_fork_with_one_that_was_kept(run: Run) -> None:
    ended = run(
        "from iocancel.libaio import kernel\n"
        "real = kernel.lib\n"
        "class Fake:\n"
        "    ioc_laio_cancel_many = staticmethod(lambda *a: 0)\n"
        "    def __getattr__(self, name): return getattr(real, name)\n"
        "kernel.lib = Fake()\n"
        "r, w = os.pipe(); context = Context()\n"
        "iocb = Iocb.poll(r); context.submit([iocb]); context.close(0)\n"
        "assert len(kernel._abandoned) == 1\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    assert not kernel._abandoned and not iocb.in_flight and context.close() == []\n"
        "else:\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0\n"
        "    kernel.lib = real\n"
        "    while kernel._abandoned: Context().close()\n"  # its event may come later
        "    print('good')\n",
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("good\n", "", 0)
