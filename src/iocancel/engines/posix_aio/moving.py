"""Through the lines of their files, and through the C library: how operations move on.

Fact that this rests on (docs/kernel-facts.md, 6): the notification may never come (RLIMIT_NPROC, a limit on
pids: glibc says nothing). So the answer of aio_error is looked at every 0.1 s, too, as long as anything is
in the C library.

What is known of an operation is read off its control block (never started, in progress, ended), so each step
can be run again after a signal handler's exception. What changes what is done next is one store each time: an
operation is over when its result is stored, behind its record, so a record may be there twice, and is never
missing.
"""

from __future__ import annotations

import errno
import heapq
import os
import time
from collections import deque

from iocancel.engines.posix_aio import lines
from iocancel.engines.posix_aio.lines import BY_NUMBER, NEVER, Line, Row
from iocancel.posix_aio import Aiocb, SigEvent, aio_error, aio_fsync, aio_read, aio_return, aio_write

INTERVAL = 0.1
"""After how many seconds the C library is asked though it has told nothing."""


class Moving:
    """What has come in, who waits in which line, and who has ended.

    Args:
        sigevent: how the C library is to tell of an ending.
    """

    def __init__(self, sigevent: SigEvent) -> None:
        self._sigevent: SigEvent | None = sigevent
        self._started = 0  # notifications that will come
        self._incoming: deque[Row] = deque()  # taken, not yet in line
        self._lines: dict[tuple[int, int], Line] = {}  # a file's number and which of its lines -> the line
        self._busy: dict[Line, None] = {}  # all lines with somebody in them
        self._fresh: dict[Line, None] = {}  # those whose first was not started yet
        self._timers: list[tuple[float, int]] = []  # a heap of when, and whose
        self._timing: dict[int, Row] = {}  # token -> a timeout that has not ended
        self._records: list[tuple[Row, int | None]] = []  # who has ended, or was answered what
        self._look = False  # something may have changed that was not seen to
        self._looked = 0.0  # when all lines were looked at, in time.monotonic()

    def _advance(self) -> None:
        """Put what has come in into line, see what has ended, start what is next."""
        incoming = self._incoming
        while incoming:
            row = incoming[0]
            row.taken = True
            self._place(row)
            incoming.popleft()
        while self._fresh:  # after all were looked up
            line = next(iter(self._fresh))
            self._move(line)
            self._fresh.pop(line, None)
        if self._timers:
            self._expire()
        now = time.monotonic()
        if self._busy and (self._look or now >= self._looked + INTERVAL):
            self._look = False
            try:
                for line in list(self._busy):
                    self._move(line)
            except BaseException:
                self._look = True
                raise
            self._looked = now

    def _place(self, row: Row) -> None:
        """Into its line; nothing where it is there already."""
        if row.over:
            return
        if row.name == "timeout":
            if row.token not in self._timing:
                heapq.heappush(self._timers, (time.monotonic() + row.seconds, row.token))
                self._timing[row.token] = row
            return
        try:
            if row.line is None:
                row.line = self._line_for(row)
        except OSError as error:
            self._refuse(row, error)
            return
        line = row.line
        if not line.queue or line.queue[-1] is not row:
            line.queue.append(row)
        self._busy[line] = None
        if line.queue[0] is row:
            self._fresh[line] = None

    def _line_for(self, row: Row) -> Line:
        """The line of its file."""
        which, row.identity = lines.which(row.fd, row.name)
        key = (row.fd, which)
        line = self._lines.get(key)
        if line is None or not line.same():  # an old one goes on, for those in it
            line = Line(key)
            if which != BY_NUMBER:
                line.duplicate()
            self._lines[key] = line
        return line

    def _move(self, line: Line) -> None:
        """As far as it goes without waiting."""
        queue = line.queue
        while queue:
            row = queue[0]
            if not row.over:
                if row.state() == NEVER:
                    self._start(row, line)
                if row.state() == errno.EINPROGRESS:
                    return
                if not row.over:
                    self._harvest(row, line)
            queue.popleft()
        self._busy.pop(line, None)
        if self._lines.get(line.key) is line:
            del self._lines[line.key]
        line.give_back()

    def _start(self, row: Row, line: Line) -> None:
        """Give one to the C library."""
        if not lines.unchanged(row):
            text = f"{os.strerror(errno.EBADF)}: {row.name}: fd {row.fd} was closed, or is another file now"
            self._refuse(row, OSError(errno.EBADF, text))
            return
        at = row.offset
        if at == -1 and not row.sync:
            row.at = lines.position(line.number)
            at = max(0, row.at)  # the C library passes over it where the file has none
        row.aiocb = aiocb = Aiocb(line.number, row.buffer, at, sigevent=self._sigevent)
        try:
            if row.sync:
                aio_fsync(row.sync, aiocb)
            elif row.name == "read":
                aio_read(aiocb)
            else:
                aio_write(aiocb)
            self._started += 1
        except (OSError, RuntimeError) as error:  # RuntimeError: the interpreter is ending
            self._refuse(row, error)

    def _refuse(self, row: Row, error: Exception) -> None:
        """It was not, and will not be, started."""
        row.error = error
        number = error.errno if isinstance(error, OSError) and error.errno else errno.ECANCELED
        self._over(row, -number)

    def _harvest(self, row: Row, line: Line) -> None:
        """It has ended: its result."""
        aiocb = row.aiocb
        assert aiocb is not None
        error = aio_error(aiocb)
        res = -error if error else aio_return(aiocb)
        if row.offset == -1 and res > 0 and row.at >= 0 and lines.unchanged(row):
            self._set_position(row, line, row.at + res)
        self._over(row, res)

    @staticmethod
    def _set_position(row: Row, line: Line, to: int) -> None:
        """As read(2) and write(2) leave it."""
        try:
            if row.name == "write" and lines.appends(line.number):
                os.lseek(line.number, 0, os.SEEK_END)
            else:
                os.lseek(line.number, to, os.SEEK_SET)
        except OSError:  # a device that tells its position, and can't be told one
            return

    def _over(self, row: Row, res: int) -> None:
        """Its ending."""
        self._records.append((row, None))
        row.res = res  # from here on it is over, and its record counts: see records
        row.aiocb = row.buffer = None

    def _expire(self) -> None:
        """End the timeouts whose time has come."""
        timers, timing, now = self._timers, self._timing, time.monotonic()
        while timers and (timers[0][0] <= now or timers[0][1] not in timing):
            row = timing.get(timers[0][1])
            if row is not None:
                self._over(row, -errno.ETIME)
                timing.pop(row.token, None)
            heapq.heappop(timers)
        if len(timers) > 2 * len(timing) + 64:  # most were cancelled
            self._timers = [each for each in timers if each[1] in timing]
            heapq.heapify(self._timers)
