"""The processes that are measured: C, ours and the peer, each waiting on its stdin for its turn."""

from __future__ import annotations

import importlib.util
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
CACHE = ROOT / "build" / "bench"
PEER = "liburing==2026.3.30"
UVLOOP, TRIO = "uvloop==0.23.0", "trio==0.35.0"
PEERS = {
    "peer": PEER,
    "caio": "caio==0.12.10",
    "aiofiles": "aiofiles==25.1.0",
    "uvloop": UVLOOP,
    "ours on uvloop": UVLOOP,
    "trio": TRIO,
    "ours on trio": TRIO,
}
"""What a side needs from PyPI."""
PROGRAMS = {
    "asyncio": ("loops", "asyncio", "own"),
    "uvloop": ("loops", "uvloop", "own"),
    "ours on asyncio": ("loops", "asyncio", "ours"),
    "ours on uvloop": ("loops", "uvloop", "ours"),
    "trio": ("trio", "own"),
    "ours on trio": ("trio", "ours"),
}
"""The module of a side that has not one of its own name, and its arguments."""
LEFT_OUT = "left out"  # a peer, where that was asked for
TOO_LONG = 60.0  # seconds, for one job


class SideFailedError(Exception):
    """A side can't be had, or did not do its work; why, in a line."""


class Side:
    """A process that does works on demand. A context manager."""

    def __init__(self, command: list[str], *path: Path) -> None:
        wanted = [*map(str, path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        # What it writes there is looked at when it has died.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(wanted)},
            )
        except OSError as error:
            self._errors.close()
            raise SideFailedError(f"it can't be started: {error}") from None

    def times(self, work: str, repetitions: int) -> list[int]:
        """Have a work done; returns the nanoseconds of each repetition."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        try:
            print(work, repetitions, file=to, flush=True)
        except BrokenPipeError:
            raise SideFailedError(self._why()) from None
        if not select.select([back], [], [], TOO_LONG)[0]:
            raise SideFailedError(f"{work} took longer than {TOO_LONG:.0f} s")
        times = [int(word) for word in back.readline().split()]
        if len(times) != repetitions:
            raise SideFailedError(self._why())
        return times

    def _why(self) -> str:
        try:
            status = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it answered something else than was asked"
        if status < 0:
            name = signal.Signals(-status).name
            more = ": it was built for another processor" if -status == signal.SIGILL else ""
            return f"it was ended by {name}{more}"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"it ended with status {status}"

    def __enter__(self) -> Side:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:  # a line that it did not live to read
                pass
        self._process.wait()


def compiler() -> list[str] | None:
    """The C compiler's command, by CC; None where there is none."""
    command = shlex.split(os.environ.get("CC", "cc"))
    return command if command and shutil.which(command[0]) else None


def compile_baseline(directory: Path) -> list[str]:
    """Compile the C side into a directory; returns its command."""
    command = compiler()
    if command is None:
        raise SideFailedError("no C compiler: install one, or name it by CC")
    program = directory / "baseline"
    source = Path(__file__).with_name("baseline.c")
    done = subprocess.run(
        [*command, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source), "-luring"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SideFailedError(f"{source.name} does not compile:\n{done.stderr.strip()}")
    return [str(program)]


def peers(sides: Collection[str]) -> dict[str, Path | str]:
    """Those of these sides that others have made: the directory of each, or the reason why there is none."""
    found: dict[str, Path | str] = {}
    tried: dict[str, Path | str] = {}
    for side, what in PEERS.items():
        if side in sides:
            if what not in tried:
                try:
                    tried[what] = install_peer(what)
                except SideFailedError as error:
                    tried[what] = str(error)
            found[side] = tried[what]
    if "fio" in sides and shutil.which("fio") is None:
        found["fio"] = "fio is not installed here (its package is called fio)"
    return found


def place(what: str) -> Path:
    """Where a peer is, if it is installed."""
    return CACHE / f"{what.replace('==', '-')}-{sys.implementation.cache_tag}"


def install_peer(what: str = PEER) -> Path:
    """The directory with a peer, installed beside this environment when it is first needed."""
    where = place(what)
    if where.is_dir():
        return where
    if importlib.util.find_spec("pip") is None:
        raise SideFailedError(f"{what} can't be installed: no pip here")
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    pip += ["--only-binary=:all:", "--retries=0", "--timeout=10"]
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        try:
            done = subprocess.run(
                [*pip, "--target", f"{scratch}/peer", what],
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
        except subprocess.TimeoutExpired:
            raise SideFailedError(f"{what} can't be installed: pip took too long") from None
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise SideFailedError(f"{what} can't be installed: {said[-1].removeprefix('ERROR: ')}")
        try:
            Path(scratch, "peer").rename(where)
        except OSError:
            if not where.is_dir():  # another run was first
                raise
    return where


def start(side: str, baseline: list[str], peer: Path | None) -> Side:
    """Start the process of a side."""
    if side == "c":
        return Side(baseline)
    module, *arguments = PROGRAMS.get(side, (side,))
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    return Side(command, *([peer] if peer is not None else []))
