"""tracefs: an instance of our own, which is always removed, and the records that come out of it in order.

What this rests on (Linux 5.10 to 7.2):

- `mkdir instances/NAME` makes a set of ring buffers that nobody else sees; `rmdir` takes it away, with its
  events switched off, but is EBUSY as long as a file in it is open anywhere: so an instance that is being
  read can't be removed by another process, and ours is removed after its files were closed.
- When the last fd of `free_buffer` is closed, also by SIGKILL, the kernel stops the instance's tracing
  (option disable_on_free) and frees its memory. What a crash leaves behind is an empty directory; the next
  start removes it.
- Each processor has a buffer; in `overwrite` mode the oldest events give way, and what was lost is told by
  the pages (before which event) and by per_cpu/cpuN/stats (how many).
- Events are in order within one processor's buffer. With the clock `mono` (that of time.monotonic_ns)
  times of different processors can be compared. An event gets its time a little before it can be read: what
  interrupts its processor in between, in a virtual machine also the processor's own absence, delays it.
- poll(2) on trace_pipe_raw wakes when the buffer is `buffer_percent` full, with 0 at the first event.
- io_uring's own threads (iou-sqp, iou-wrk) are not made by fork(2), so that `event-fork` does not follow
  them: which process an event belongs to must be found out from the event, not by set_event_pid.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import io
import os
import re
import select
import time
import warnings
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from iocancel.trace.directories import new_name, ours, put, put_filter, remove, remove_stale
from iocancel.trace.format import Format
from iocancel.trace.mount import TracingUnavailable, find, refused, without
from iocancel.trace.order import Order
from iocancel.trace.pages import PageFormat, Record

BUFFER = 4 << 20
"""How many bytes each processor's buffer has where nothing else is asked for."""
SLACK = 0.02
"""How long a record is held back, in seconds, since another processor's older one may still come."""
_PACE = 0.01  # seconds between two rounds of reading: each wake-up costs the traced process something
_OVERRUN = re.compile(r"^(?:overrun|commit overrun|dropped events): (\d+)", re.MULTILINE)
_there: weakref.WeakSet[Instance] = weakref.WeakSet()  # those that are not closed


class Batch(NamedTuple):
    """What one round of reading gave.

    Attributes:
        records: the events, in the order of their time.
        lost: how many events were lost since the round before, as far as is known yet.
    """

    records: list[Record]
    lost: int


class Instance:
    """A set of buffers with the events that are wanted. A context manager.

    Entering it makes an instance of tracefs and switches the events on; leaving removes it, which may be done
    again and again. What an earlier process left behind when it was killed is removed first. In a forked
    child leaving only closes the child's fds.

    Args:
        events: which ones, each as "system/name". Those that this kernel lacks are in `missing`.
        buffer: bytes for each processor's buffer. The kernel rounds up to pages.
        tracefs: where tracefs is mounted; None looks for it.
        filters: for events of `events`, which of them are recorded: an expression over the event's fields
            ("opcode == 24"; Documentation/trace/events.rst, section 5).
        slack: how long a record is held back, in seconds, so that older ones of other processors come
            before it. One that comes later than this still comes, out of order, and `late` counts it.

    Attributes:
        formats (list[Format]): of the events that are on.
        missing (list[str]): the wanted events that this kernel lacks.
        path (Path | None): the instance's directory, while it is there.
        lost (int): how many events were lost so far, as all batches together have said.

    Raises (entering):
        TracingUnavailable: tracefs is not mounted, or not to be used, or has none of the events.
        ValueError: for a filter that the kernel does not take.
        RuntimeError: it was entered before.
    """

    def __init__(
        self,
        events: Iterable[str],
        buffer: int = BUFFER,
        tracefs: str | os.PathLike[str] | None = None,
        *,
        filters: Mapping[str, str] | None = None,
        slack: float = SLACK,
    ) -> None:
        self._events = list(dict.fromkeys(events))
        self._buffer = buffer
        self._where = tracefs
        self._filters = dict(filters or {})
        self._slack = int(slack * 1e9)
        self._root: Path | None = None
        self._pid = 0
        self._files: list[io.FileIO] = []  # all that are open; first of all free_buffer
        self._pipes: list[io.FileIO] = []  # trace_pipe_raw of each processor
        self._absent: list[io.FileIO] = []  # of those that are not there, or not yet
        self._poll = select.poll()
        self._order = Order()
        self._paced = 0  # when to read next at the earliest
        self._pages: PageFormat | None = None
        self.path: Path | None = None
        self.formats: list[Format] = []
        self.missing: list[str] = []
        self.lost = 0

    @property
    def late(self) -> int:
        """How many records came out of order."""
        return self._order.late

    def __repr__(self) -> str:
        return f"<Instance {self.path.name if self.path else 'that is closed'}>"

    # From making it to removing it

    def _known(self, root: Path) -> list[str]:
        """Which of the events the kernel has; the others are `missing`."""
        found = [event for event in self._events if (root / "events" / event / "format").is_file()]
        self.missing = [event for event in self._events if event not in found]
        return found

    def __enter__(self) -> Instance:
        """Make it, and begin."""
        if self._root is not None:
            raise RuntimeError("an Instance is entered once")
        self._root = root = find(self._where)
        self._pid = os.getpid()
        _there.add(self)
        try:
            found = self._known(root)
            if not found:
                raise without(self._events)
            self._make(root)
            self._set_up(root, found)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError) and not isinstance(error, TracingUnavailable):
                raise refused(error, f"can't trace ({error.filename})") from error
            raise
        return self

    def _make(self, root: Path) -> None:
        """A directory with a name of its own."""
        instances = root / "instances"
        try:
            remove_stale(root)
            while True:
                path = instances / new_name()
                if path.exists():  # of an earlier process with our number, and in use
                    continue
                ours.add(path.name)
                self.path = path  # before it is there, so that nothing comes between that and its removal
                path.mkdir()
                return
        except OSError as error:
            self.path = None
            raise refused(error, f"can't make an instance in {instances}") from error

    def _set_up(self, root: Path, found: list[str]) -> None:
        path = self.path
        assert path is not None
        header = path / "events"
        if not (header / "header_page").is_file():
            header = root / "events"
        try:
            texts = ((header / name).read_text() for name in ("header_page", "header_event"))
            self._pages = PageFormat(*texts)
            for event in found:
                text = (root / "events" / event / "format").read_text()
                self.formats.append(Format.parse(text, event.partition("/")[0]))
        except ValueError as error:
            why = f"this kernel's events are written in a way that is not known here ({error})"
            raise TracingUnavailable(errno.ENOTSUP, why, "Report it, with the kernel's version") from error
        put(path / "tracing_on", "0")
        put(path / "options/disable_on_free", "1")
        put(path / "options/overwrite", "1")
        put(path / "options/record-tgid", "1")
        put(path / "trace_clock", "mono")
        put(path / "buffer_percent", "0")
        put(path / "buffer_size_kb", str(max(4, -(-self._buffer // 1024))))
        self._files.append(io.FileIO(path / "free_buffer", "r+"))
        for cpu in sorted((path / "per_cpu").iterdir()):
            self._files.append(io.FileIO(cpu / "trace_pipe_raw"))
            os.set_blocking(self._files[-1].fileno(), False)
        self._absent = self._files[1:]
        self._look_for_processors()
        for event, text in self._filters.items():
            if event in found:
                put_filter(path / "events" / event / "filter", text)
        for event in found:
            if not event.startswith("ftrace/"):  # those are always on
                put(path / "events" / event / "enable", "1")
        put(path / "tracing_on", "1")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove it."""
        try:
            self.close()
        except BaseException:  # a signal's, at any point of it
            self.close()
            raise

    def close(self) -> None:
        """Remove it from the kernel. It may be called again and again, also after an exception.

        Where somebody else has a file of it open, it can't be removed: a ResourceWarning says so; another
        `close`, or the next start, does it.
        """
        path = self.path
        mine = os.getpid() == self._pid
        if path is not None and mine:  # stop first, so that other processors do not go on writing
            with contextlib.suppress(OSError):
                put(path / "tracing_on", "0")
        self._poll = select.poll()
        for file in self._files:
            file.close()
        if path is not None and mine:
            try:
                remove(path)
            except OSError as error:
                warnings.warn(f"{path} could not be removed: {error.strerror}", ResourceWarning, stacklevel=2)
                return
            ours.discard(path.name)
        self.path = None
        _there.discard(self)

    def __del__(self) -> None:
        if getattr(self, "path", None) is not None:
            if os.getpid() == self._pid:
                warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self.close()

    # Reading

    def read(self, timeout: float | None = None) -> Batch:
        """Wait for records, and take what there is, but for those of the last moments (see `slack`).

        Args:
            timeout: how long to wait in seconds at most; 0 not at all, None for ever.

        Returns:
            The records, and what was lost; both may be nothing when the time is up.

        Raises:
            ValueError: it is not open.
        """
        deadline = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
        while True:
            self._check_open()
            began = time.monotonic_ns()
            if deadline is None or deadline > began:
                self._wait(deadline, began)
                self._check_open()
            batch = self._round(final=False)
            if batch.records or batch.lost or (deadline is not None and time.monotonic_ns() >= deadline):
                return batch

    def _wait(self, deadline: int | None, now: int) -> None:
        """Until there is something to read, or something that was held back may go, or time is up."""
        if self._paced > now:
            pause = self._paced - now if deadline is None else min(self._paced, deadline) - now
            time.sleep(pause / 1e9)
            now += pause
        until = deadline
        if self._order.held:
            due = self._order.held[0][0] + self._slack
            until = due if until is None else min(due, until)
        if self._absent and (until is None or until > now + 1_000_000_000):
            until = now + 1_000_000_000  # a processor that comes has to be seen
        # Rounded up: a wait that ends too early would be made again, for nothing.
        self._poll.poll(None if until is None else max(0, -(-(until - now) // 1_000_000)))

    def finish(self) -> Batch:
        """Stop, and take everything that is left; what was lost is complete now. It stays to be closed.

        Raises:
            ValueError: it is not open.
        """
        self._check_open()
        assert self.path is not None
        put(self.path / "tracing_on", "0")
        batch = self._round(final=True)
        missed = max(0, self._overrun() - self.lost)
        self.lost += missed
        return Batch(batch.records, batch.lost + missed)

    def _check_open(self) -> None:
        if not self._files or self._files[0].closed or os.getpid() != self._pid:
            raise ValueError("the instance is not open (in this process)")

    def _round(self, *, final: bool) -> Batch:
        held = self._order.held
        before = len(held)
        began = time.monotonic_ns()
        if self._absent:
            self._look_for_processors()
        lost, until = self._drain(held)
        self.lost += lost
        if final:
            return Batch(self._order.take(None), lost)
        much = (len(held) - before) * 512 > self._buffer  # at 64 bytes each, an eighth of it: be quick
        self._paced = 0 if much else began + int(_PACE * 1e9)
        return Batch(self._order.take(min(until, began - self._slack)), lost)

    def _drain(self, records: list[Record]) -> tuple[int, int]:
        """Read all processors' buffers; returns what was lost, and until when that is complete at most."""
        pages = self._pages
        assert pages is not None
        size, lost, until = pages.size, 0, 1 << 64
        most = max(16, 2 * self._buffer // size)  # one that is filled faster than we read must not keep us
        for pipe in self._pipes:
            for _ in range(most):
                page = pipe.read(size)
                if not page:  # None: there is nothing
                    break
                missed = pages.extend(records, page)
                if missed != 0:
                    lost += 1 if missed is None else missed  # at least; the rest is seen in the end
            else:
                until = min(until, records[-1][0]) if records else until
        return lost, until

    def _look_for_processors(self) -> None:
        """Find which are there: where none was so far, there is no buffer, and reading is ENODEV."""
        for pipe in list(self._absent):
            try:
                pipe.read(0)
            except OSError as error:
                if error.errno != errno.ENODEV:
                    raise
                continue
            self._absent.remove(pipe)
            self._pipes.append(pipe)
            self._poll.register(pipe, select.POLLIN)

    def _overrun(self) -> int:
        """How many events were lost since the beginning, by the kernel's own count."""
        assert self.path is not None
        total = 0
        for stats in (self.path / "per_cpu").glob("cpu*/stats"):
            total += sum(int(number) for number in _OVERRUN.findall(stats.read_text()))
        return total

    # What the kernel remembers

    def remembered(self) -> dict[int, tuple[int, str]]:
        """By the tid of threads that were seen in the last time, ended ones too: their process and name.

        The kernel keeps a limited number (saved_cmdlines_size), and hits and misses some. A thread's name is
        its own, not its process's. Without its process's number it is told as its own process.
        """
        if self._root is None:
            return {}
        groups, names = (_pairs(self._root / file) for file in ("saved_tgids", "saved_cmdlines"))
        return {tid: (int(groups.get(tid, tid)), name) for tid, name in names.items()}


def _pairs(path: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    last = -1
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").removesuffix("\n").split("\n"):
            number, _, rest = line.lstrip(" ").partition(" ")
            if number.isdigit():
                last = int(number)
                found[last] = rest
            elif last >= 0:  # a thread's name may have a line's end in it
                found[last] += "\n" + line
    return found


@atexit.register
def _close_all() -> None:
    for instance in list(_there):
        instance.close()


__all__ = [
    "BUFFER",
    "SLACK",
    "Batch",
    "Instance",
    "Order",
    "TracingUnavailable",
    "find",
    "remove_stale",
    "without",
]
