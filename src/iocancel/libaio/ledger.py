"""Who is in flight in one context, and what it pins (memory belongs to the kernel until the event).

Each submission (`Batch`) has one array of control blocks, and each request in it a serial number that no
other ever has, which the kernel gives back in the event. A request enters the ledger before the kernel
can see it and leaves it when its event is reaped, so that whatever happens to the Python code in
between (a KeyboardInterrupt after any call), the memory stays.

No locks: a signal handler may call anything here while the code below is stopped anywhere. The
interpreter looks for signals and switches threads after a call and at a jump back, never between two
plain stores; and `dict.setdefault`, `pop` and `update` are one step each.
"""

from __future__ import annotations

import struct
from typing import Any

from iocancel._native import ffi
from iocancel.libaio.event import Event
from iocancel.libaio.iocb import Iocb
from iocancel.libaio.request import claims

_EVENT = struct.Struct("QQqq")
_ENTRY = struct.Struct("QQqiiiiii")
if (_EVENT.size, _ENTRY.size) != (ffi.sizeof("struct ioc_laio_event"), ffi.sizeof("struct ioc_laio_entry")):
    raise AssertionError("the structs of csrc/libaio.h and the formats here have parted")

_next_serial = 1  # 0 is every context's own wake-up poll


def records(room: int) -> Any:
    """A flat array for events that C fills; its `count` says how many it holds."""
    return ffi.new("struct ioc_laio_events *", {"event": room})


class Batch:
    """One submission: the requests, their control blocks, and what they pin."""

    __slots__ = ("first", "iocbs", "memory", "pins", "state")

    def __init__(self, iocbs: list[Iocb]) -> None:
        global _next_serial
        many = len(iocbs)
        self.iocbs: list[Any] = iocbs  # None where the event has been reaped
        self.pins: list[Any] = [None] * many
        self.memory: Any = ffi.new("struct iocb[]", many)
        self.state: Any = ffi.new("struct ioc_laio_batch *")
        self.first = _next_serial  # these two lines are one step: no call is in them
        _next_serial = self.first + many

    def fill(self) -> Any:
        """Claim the requests and pin their memory; returns what C makes control blocks from.

        Raises:
            ValueError: for a request that is in flight, here or elsewhere, or is there twice.
        """
        entries = ffi.new("struct ioc_laio_entry[]", len(self.iocbs))
        view = ffi.buffer(entries)
        for index, iocb in enumerate(self.iocbs):
            serial = self.first + index
            claimed = claims.setdefault(iocb._number, serial)
            if claimed != serial:
                twice = self.first <= claimed < serial
                why = "is there twice" if twice else "is in flight: its event must be reaped first"
                raise ValueError(f"io_submit: {iocb!r} {why}")
            iocb._batch = self
            fields, self.pins[index] = iocb._packed()
            _ENTRY.pack_into(view, index * _ENTRY.size, *fields)
        return entries

    def block(self, iocb: Iocb) -> Any:
        """The address of a request's control block, or None when the request is not in flight."""
        index = claims.get(iocb._number, 0) - self.first
        # Another thread may have reaped and submitted it again by now: then it is not here.
        if 0 <= index < len(self.iocbs) and self.iocbs[index] is iocb:
            return self.memory + index
        return None


class Ledger:
    """The requests of one context, and the events that nobody has taken yet."""

    __slots__ = ("flight", "late", "ready")

    def __init__(self) -> None:
        self.flight: dict[int, Batch] = {}  # by serial number
        self.ready: list[Event] = []
        self.late: list[Any] = []  # records that were reaped, and an interruption kept from being read

    def fly(self, batch: Batch) -> None:
        """The batch is about to be the kernel's."""
        self.flight.update(dict.fromkeys(range(batch.first, batch.first + len(batch.iocbs)), batch))

    def settle(self, batch: Batch) -> None:
        """Take out what the kernel did not take: all, where io_submit was not reached. May be repeated."""
        state = batch.state
        if state.called and not state.returned:
            return  # a thread is inside
        if not state.called:
            state.called = state.returned = 1  # a call that was interrupted just before C must not go on
        for index in range(state.done, len(batch.iocbs)):
            iocb = batch.iocbs[index]
            if iocb is not None:
                self.flight.pop(batch.first + index, None)
                batch.pins[index] = None
                _unclaim(iocb, batch.first + index, reaped=iocb._reaped)

    def catch_up(self) -> None:
        """Read what an interruption kept from being read, before anybody waits for more."""
        late = self.late
        while late:
            record = late[0]
            self.absorb(record)
            if late and late[0] is record:
                del late[0]

    def absorb(self, record: Any) -> None:
        """Turn what C has reaped into events in `ready`, each once, however often this is interrupted.

        When it raises, `record` must go to `late`, for `catch_up`.
        """
        flight, ready = self.flight, self.ready
        raw = ffi.buffer(ffi.addressof(record, "event"), record.count * _EVENT.size)
        for serial, _, res, res2 in _EVENT.iter_unpack(raw):
            batch = flight.get(serial)
            if batch is None:
                continue  # this round was interrupted before, and is done already
            index = serial - batch.first
            iocb = batch.iocbs[index]
            if iocb is None:
                continue  # another thread was first
            event = Event(iocb, iocb._data, res, res2)
            _unclaim(iocb, serial, reaped=True)
            if serial in flight:
                # From here to the pop nothing can come in between. The pins are let go only behind
                # it, because an exporter's own code may run then.
                ready += [event]
                pins, batch.pins[index] = batch.pins[index], None
                batch.iocbs[index] = None
                flight.pop(serial, None)
                del pins

    def take(self, least: int, most: int) -> list[Event] | None:
        """Up to `most` events out of `ready`, which are then the caller's; None if there are not `least`."""
        ready = self.ready
        # There is no call in these lines: no two threads take the same event, and none is lost.
        if least and not ready[least - 1 : least]:
            return None
        taken = ready[:most]
        del ready[:most]
        return taken

    def take_of(self, iocb: Iocb) -> Event | None:
        """The newest event of one request, out of `ready`."""
        ready = self.ready
        for index in range(len(ready) - 1, -1, -1):
            if ready[index:] and ready[index].iocb is iocb:
                event = ready[index]
                del ready[index]
                return event
        return None

    def give_up(self) -> list[Batch]:
        """Forget everything, as a forked child does; returns what must live on all the same."""
        held = list(dict.fromkeys(self.flight.values()))
        for serial, batch in self.flight.items():
            iocb = batch.iocbs[serial - batch.first]
            if iocb is not None:
                _unclaim(iocb, serial, reaped=False)
        self.flight.clear()
        return held


def _unclaim(iocb: Iocb, serial: int, *, reaped: bool) -> None:
    number = iocb._number
    # No call is in here: nobody can claim it in between.
    if number in claims and claims[number] == serial:
        del claims[number]
        iocb._batch = None
        iocb._reaped = reaped
