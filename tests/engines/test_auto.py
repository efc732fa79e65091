"""Which engine "auto" takes, where seccomp filters forbid some, and what it says."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import pytest

from iocancel import EngineUnavailable, Outcome, open_engine
from iocancel.engines import auto
from iocancel.engines.refusal import CAN, no_verb
from iocancel.operation import VERBS

from ..support import need, need_uring, open_fds
from ..uring.test_facts_7_refusals import SECCOMP
from .posix_aio_stage import sibling

# What is forbidden comes from outside of the process: imported first is what a filter may hit in passing.
HEAD = f"""
import os, sys, warnings
import iocancel.engines.posix_aio, iocancel.engines.libaio, iocancel.engines.uring
from iocancel import open_engine
{SECCOMP}
def fds():
    return sorted(os.listdir("/proc/self/fd"))
def opened(*args):
    before = fds()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            with open_engine(*args) as engine:
                r, w = os.pipe()
                os.write(w, b"data")
                op = engine.read(r, 4)
                op.wait()
                print(engine.name, op.result().decode())
                os.close(r), os.close(w)
        except EngineUnavailable as error:
            print("none", error.errno, error)
    for each in said:
        print(each.category.__name__, each.filename, each.message)
    if fds() != before:
        print("fds were left", before, fds())
"""

SETUP, ENTER, REGISTER = 425, 426, 427
IO_SETUP, IO_SUBMIT = {"x86_64": (206, 209), "aarch64": (0, 2)}.get(os.uname().machine, (-1, -1))
needs_numbers = pytest.mark.skipif(IO_SETUP < 0, reason="the system calls' numbers are not known here")


def lines(program: str, **environment: str) -> list[str]:
    done = sibling(HEAD + program, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    need("no seccomp" not in said, "this kernel has no seccomp filters")
    return said


def deny(*numbers: int, errno: int = 1) -> str:
    return "".join(f"deny({number}, {errno})\n" for number in numbers)


@pytest.mark.parametrize("errno", [1, 38])
@pytest.mark.parametrize("number", [SETUP, ENTER, REGISTER])
def test_io_uring_is_forbidden(number: int, errno: int) -> None:
    """Each call by itself; it goes on with libaio, and says so once."""
    said = lines(deny(number, errno=errno) + "opened()\nopened()\nopened('auto')\n")
    assert [line for line in said if line.endswith(" data")] == ["libaio data"] * 3
    warned = [line for line in said if "Warning" in line]
    assert len(warned) == len(said) - 3 == 1
    assert warned[0].startswith("RuntimeWarning <string> io_uring can't be used here: ")
    for part in ("seccomp", "What helps: ", "goes on with libaio", "IOCANCEL_ENGINE=libaio"):
        assert part in warned[0]


def test_the_environment_chooses_without_a_warning() -> None:
    assert lines(deny(SETUP) + "opened()\n", IOCANCEL_ENGINE="libaio") == ["libaio data"]
    assert lines("opened()\n", IOCANCEL_ENGINE="posix_aio") == ["posix_aio data"]
    need_uring()
    assert lines("opened('uring')\n", IOCANCEL_ENGINE="posix_aio") == ["uring data"]
    assert lines("opened()\n", IOCANCEL_ENGINE="") == ["uring data"]
    assert lines("opened()\n", IOCANCEL_ENGINE="auto") == ["uring data"]


@needs_numbers
@pytest.mark.parametrize("number", [IO_SETUP, IO_SUBMIT])
def test_both_of_the_kernels_systems_are_forbidden(number: int) -> None:
    said = lines(deny(SETUP, number) + "opened()\nopened()\n")
    assert [line for line in said if line.endswith(" data")] == ["posix_aio data"] * 2
    assert len(said) == 3
    assert "goes on with posix_aio" in "".join(said)


@needs_numbers
def test_all_are_forbidden() -> None:
    """The third is the C library's threads: here, a fork after their use (facts 6.8) forbids it."""
    said = lines(
        deny(SETUP, IO_SETUP)
        + """
with open_engine("posix_aio") as engine:
    r, w = os.pipe()
    os.write(w, b"x")
    engine.read(r, 1).wait()
sys.stdout.flush()
warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of a fork beside threads
pid = os.fork()
if not pid:
    opened()
    opened("posix_aio")
    sys.stdout.flush()
    os._exit(0)
os.waitpid(pid, 0)
"""
    )
    assert len(said) == 2
    for part in ("no engine works here", "io_uring: ", "Linux AIO: ", "POSIX AIO: ", "seccomp", "spawn"):
        assert part in said[0]
    assert said[0].startswith("none 1 ")
    assert "does not survive a fork" in said[1]


def test_a_forced_one_does_not_fall_back() -> None:
    said = lines(deny(SETUP) + "opened('uring')\nopened('posix_aio')\n")
    assert said[0].startswith("none 1 ")
    assert "seccomp" in said[0]
    assert said[1:] == ["posix_aio data"]


def test_where_the_warning_is_an_error() -> None:
    """It is raised, once; nothing is left open."""
    said = lines(
        deny(SETUP)
        + """
before = fds()
warnings.simplefilter("error")
try:
    open_engine()
except RuntimeWarning as error:
    print("raised", fds() == before)
open_engine().close()
"""
    )
    assert said == ["raised True"]


@pytest.mark.parametrize(("name", "variable"), [("io_uring", None), (None, "epoll"), ("", None)])
def test_names_that_there_are_not(
    name: str | None, variable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if variable is not None:
        monkeypatch.setenv("IOCANCEL_ENGINE", variable)
    with pytest.raises(ValueError, match="there are uring, libaio, posix_aio, and auto") as caught:
        open_engine(name)
    assert ("from IOCANCEL_ENGINE" in str(caught.value)) is (variable is not None)


def test_options_are_one_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IOCANCEL_ENGINE", raising=False)
    with pytest.raises(TypeError, match="name the engine"):
        open_engine(entries=8)
    with open_engine("uring", entries=8) as engine:
        assert engine.name == "uring"


class Refusing:
    """An engine that opens, and then does not do what it is tried with."""

    name = "uring"

    def __init__(self, act: Callable[[], Any], polls: bool) -> None:
        self.act, self.polls, self.closed = act, polls, False

    def supports(self, verb: str) -> bool:
        return self.polls and verb == "poll"

    def poll(self, *_: Any) -> Any:
        return self

    read = poll

    def submit(self) -> None:
        self.act()

    def _ask(self, _: int) -> bool:
        return True

    def wait(self, _: float) -> Any:
        return self.act()

    def exception(self) -> Any:
        return None

    def close(self) -> None:
        self.closed = True
        raise PermissionError(1, "closing, too")


@pytest.mark.parametrize("polls", [True, False])
def test_what_is_refused_is_closed_and_said(polls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Refusing] = []

    def make() -> Refusing:
        made.append(Refusing(no, polls))
        return made[-1]

    def no() -> None:
        raise OSError(5, "no luck")

    before = open_fds()
    monkeypatch.setattr(auto, "engine_class", lambda *_: make)
    monkeypatch.setattr(auto, "_try_ring", lambda: None)
    with pytest.raises(EngineUnavailable, match="no luck") as caught:
        open_engine("auto")
    assert caught.value.errno == 5
    assert len(made) == 3
    assert all(engine.closed for engine in made)
    assert open_fds() == before


def test_an_ending_that_is_not_the_wanted_one() -> None:
    engine: Any = Refusing(lambda: Outcome.FAILED, polls=True)
    with pytest.raises(EngineUnavailable, match="was to be cancelled failed"):
        auto.try_out(engine)


def test_what_each_system_can() -> None:
    """The table says at least what the engines here have."""
    for name, can in CAN.items():
        assert can <= VERBS
        with open_engine(name) as engine:
            assert {verb for verb in VERBS if engine.supports(verb)} <= can


@pytest.mark.parametrize(
    ("engine", "verb", "text"),
    [
        ("posix_aio", "accept", "posix_aio has no accept: the uring and libaio engines have"),
        ("libaio", "futex_wait", "libaio has no futex_wait: the uring engine has"),
        ("uring", "fly", "uring has no fly: no engine has"),
    ],
)
def test_no_verb(engine: str, verb: str, text: str) -> None:
    error = no_verb(engine, verb)
    assert str(error) == f"[Errno 95] {os.strerror(errno.EOPNOTSUPP)}: {text}"
    assert (error.feature, error.running) == (verb, engine)
