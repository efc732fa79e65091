"""What the tests of the library's own record share."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import record_to
from iocancel.uring import probe

from ..operation.helpers import real
from ..support import leaving_nothing

FIELDS = [
    *("time", "pid", "tid", "system", "mechanism", "ring", "context"),
    *("user_data", "key_kind", "key", "fd", "opcode", "flags"),
]


class Record:
    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(self) -> list[dict[str, Any]]:
        """What came since the last call."""
        found = [json.loads(line) for line in self.path.read_text().splitlines()]
        os.truncate(self.path, 0)
        for line in found:
            assert list(line) == FIELDS
        return found

    def of(self, *names: str) -> list[tuple[Any, ...]]:
        return [tuple(line[name] for name in names) for line in self.lines()]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    real("uring").close()
    probe.cancel_flags()  # cancels something, once a process
    probe.sync_cancel_works()
    probe.sync_opcode_works()
    with leaving_nothing():
        made = Record(tmp_path / "record")
        record_to(made.path)
        assert made.lines() == []
        yield made
        record_to(None)
