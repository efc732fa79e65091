"""`iocancel trace`: lines for people, JSON for programs, a summary at the end."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TextIO

from iocancel.trace.events import Cancel
from iocancel.trace.summary import Summary
from iocancel.trace.text import Lines, table
from iocancel.trace.tracefs import TracingUnavailable
from iocancel.trace.tracer import BUFFER, SYSTEMS, Tracer

_TURN = 0.2  # seconds until what has come is shown
_RENEWED = 1.0  # seconds until the table is
_GRACE = 3.0  # seconds that the command has to end by itself when it is told to


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own."""
    parser.add_argument(
        "-p",
        "--pid",
        type=int,
        action="append",
        metavar="PID",
        help="only this process, its threads and its children to come; may be given again",
    )
    parser.add_argument("-c", "--comm", help="only processes of this name")
    parser.add_argument(
        "--system",
        type=_systems,
        default=SYSTEMS,
        metavar="SYSTEM[,SYSTEM]",
        help="uring, libaio, or both (the default)",
    )
    parser.add_argument("--duration", type=_seconds, metavar="S", help="end after so many seconds")
    parser.add_argument("--stats", action="store_true", help="a table that renews itself, in place of lines")
    parser.add_argument(
        "--buffer",
        type=_mebibytes,
        default=BUFFER,
        metavar="MIB",
        help=f"MiB for each processor in which the kernel keeps what was not read yet ({BUFFER >> 20})",
    )
    parser.add_argument(
        "--no-ebpf",
        action="store_true",
        help="do not read by eBPF what io_uring's cancels aim at: it costs each request 30 to 80 ns more",
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        help="take what programs on iocancel have cancelled by from the file to which they record "
        "(IOCANCEL_RECORD); COMMAND is told to",
    )
    parser.add_argument(
        "argv",
        nargs="*",
        metavar="-- COMMAND",
        help="run this, with its arguments, and look at it and its children",
    )


def _systems(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in SYSTEMS:
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(SYSTEMS)}")
    return names


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds")
    return value


def _mebibytes(text: str) -> int:
    value = float(text)
    if not 0 < value <= 4096:
        raise argparse.ArgumentTypeError("between 0 and 4096 MiB")
    return max(4096, int(value * (1 << 20)))


class _View:
    """What is shown of each cancel, and at the end."""

    def __init__(self, out: TextIO, as_json: bool, stats: bool) -> None:
        self._out, self._json, self._stats = out, as_json, stats
        terminal = out.isatty()
        self._lines = Lines(out, terminal and "NO_COLOR" not in os.environ)
        self._clear = "\x1b[H\x1b[J" if terminal else ""
        self._summary = Summary()
        self._shown = time.monotonic()

    def add(self, cancels: Sequence[Cancel], tracer: Tracer) -> None:
        """Some more; what is to be seen at once is."""
        for cancel in cancels:
            self._summary.add(cancel)
            if self._stats:
                continue
            if self._json:
                self._out.write(json.dumps(cancel.asdict()) + "\n")
            else:
                self._lines.add(cancel)
        now = time.monotonic()
        if self._stats and now - self._shown >= _RENEWED:
            self._shown = now
            self._show(tracer, self._clear)
        self._out.flush()

    def end(self, tracer: Tracer) -> None:
        """The summary."""
        self._show(tracer, self._clear if self._stats else "\n")
        self._out.flush()

    def _show(self, tracer: Tracer, before: str) -> None:
        if self._json:
            self._out.write(json.dumps(self._summary.asdict(tracer.losses)) + "\n")
        else:
            self._out.write(before + table(self._summary, tracer.losses))


@contextlib.contextmanager
def _ended_by_signals(tracer: Tracer) -> Iterator[None]:
    """SIGTERM and Ctrl-C end it as its duration does: with the summary, and nothing left in the kernel."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        tracer.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:  # else nohup(1) has said what it is to do
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def main(options: argparse.Namespace, out: TextIO) -> int:
    """Runs it.

    Returns:
        0; with a command, that one's status (128 and the signal's number where one has ended it). 2 where
        tracing is not possible here, or the command can't be run.
    """
    pids: list[int] = list(options.pid or ())
    if options.argv:
        pids.append(os.getpid())  # the kernel follows the fork; this process itself cancels nothing
    try:
        tracer = Tracer(
            pids or None,
            options.comm,
            options.system,
            duration=options.duration,
            buffer=options.buffer,
            record=options.record,
            ebpf=not options.no_ebpf,
        )
        with _ended_by_signals(tracer), tracer:
            return _run(tracer, _View(out, options.json, options.stats), options)
    except TracingUnavailable as error:
        print(f"iocancel trace: {error}", file=sys.stderr)
    except ProcessLookupError as error:
        print(f"iocancel trace: {error.strerror}", file=sys.stderr)
    except OSError as error:
        if error.filename is None or error.filename != options.record:
            raise
        print(f"iocancel trace: {options.record}: {error.strerror}", file=sys.stderr)
    return 2


def _stop_behind(child: subprocess.Popen[bytes] | None, tracer: Tracer) -> None:
    if child is not None and child.poll() is not None:
        tracer.stop()


def _run(tracer: Tracer, view: _View, options: argparse.Namespace) -> int:
    for name in tracer.missing_systems:
        print(f"iocancel trace: this kernel has no events of {name}: not shown", file=sys.stderr)
    child = None
    if options.argv:
        record = {} if options.record is None else {"IOCANCEL_RECORD": str(Path(options.record).resolve())}
        try:
            child = subprocess.Popen(options.argv, env={**os.environ, **record})
        except OSError as error:
            print(f"iocancel trace: {options.argv[0]}: {error.strerror}", file=sys.stderr)
            return 2
    try:
        while True:
            view.add(tracer.read(_TURN), tracer)
            if tracer.over:
                break
            _stop_behind(child, tracer)
    finally:
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(_GRACE)
            except subprocess.TimeoutExpired:  # it ignores that; another signal to us would not help
                child.kill()
                child.wait()
    view.end(tracer)
    if child is None:
        return 0
    return child.returncode if child.returncode >= 0 else 128 - child.returncode
