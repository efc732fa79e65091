"""Instances of tracefs with marks of the tests' own in them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iocancel.trace.pages import Record
from iocancel.trace.tracefs import Batch, Instance

from ..support import BOUND

MARKS = "ftrace/print"
"""The event that a write to trace_marker makes: one each, and always on."""
SUBMIT = ("io_uring/io_uring_submit_req", "io_uring/io_uring_submit_sqe")
COMPLETE = "io_uring/io_uring_complete"


class Marker:
    """Writes to an instance's trace_marker."""

    def __init__(self, instance: Instance) -> None:
        assert instance.path is not None
        self._file = (instance.path / "trace_marker").open("wb", buffering=0)
        [fmt] = [fmt for fmt in instance.formats if fmt.name == "print"]
        self._start = next(field.offset for field in fmt.fields if field.name == "buf")
        self._id = fmt.id

    def __enter__(self) -> Marker:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __call__(self, number: int) -> None:
        self._file.write(b"%d" % number)

    def numbers(self, records: list[Record]) -> list[int]:
        assert {kind for _, kind, _ in records} <= {self._id}
        return [int(record[self._start :].split(b"\0")[0]) for _, _, record in records]


@contextlib.contextmanager
def traced(tracefs: Path, *events: str, **more: Any) -> Iterator[Instance]:
    with Instance(events or (MARKS,), tracefs=tracefs, **more) as instance:
        yield instance


def everything(instance: Instance, many: int) -> Batch:
    """What comes until so many were read or lost."""
    records, lost = list[Record](), 0
    deadline = time.monotonic() + BOUND
    while len(records) + lost < many:
        assert time.monotonic() < deadline, f"only {len(records)} came, and {lost} were lost"
        batch = instance.read(BOUND)
        records += batch.records
        lost += batch.lost
    return Batch(records, lost)
