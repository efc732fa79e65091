"""Engines on Linux AIO that are forgotten, that outlive the interpreter, and that a forked child has."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Callable

import pytest

from iocancel.engines.libaio import LibaioEngine

from ..support import python
from .libaio_stage import engine as engine

Pipe = tuple[int, int]


def test_unclosed(pipe: Pipe) -> None:
    buffer = bytearray(16)

    def forget() -> None:
        engine = LibaioEngine()
        engine.read(pipe[0], buffer)
        engine.submit()
        del engine
        gc.collect()

    with pytest.warns(ResourceWarning, match="unclosed <libaio engine"):
        forget()
    buffer.clear()


@pytest.fixture
def run() -> Callable[[str], subprocess.CompletedProcess[str]]:
    def start(program: str) -> subprocess.CompletedProcess[str]:
        head = "import os, sys\nfrom iocancel.engines.libaio import LibaioEngine\nr, w = os.pipe()\n"
        return python(head + program, "-W", "always")

    return start


def test_at_exit(run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    done = run("e = LibaioEngine(); op = e.read(r, 16); e.submit()\n"
               "op.add_done_callback(lambda op: print(op.outcome))")  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == "Outcome.CANCELLED\n"
    assert done.stderr.count("unclosed") == 1
    assert "<libaio engine" in done.stderr


def test_a_forked_child(run: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    done = run(
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"
        "e = LibaioEngine(1); ops = [e.read(r, 16) for _ in range(4)]; e.submit()\n"
        "if not os.fork():\n"
        "    try: e.reap()\n"
        "    except RuntimeError as error: print('child:', error, flush=True)\n"
        "    ops[0].cancel(); e.close()\n"
        "    with LibaioEngine() as mine:\n"
        "        op = mine.read(r, 16); mine.submit(); op.cancel(); print(op.wait(), flush=True)\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        "os.write(w, b'1234' * 16); e.wait(ops); print([op.result() for op in ops][:1])\n"
        "e.close()"
    )
    assert done.stderr == ""
    first, *rest = done.stdout.splitlines()
    assert first.startswith("child: this engine belongs to the parent")
    assert rest == ["Outcome.CANCELLED", "0", "[b'1234123412341234']"]
