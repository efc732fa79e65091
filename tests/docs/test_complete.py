"""Whether it is noticed when the site lacks what users can call."""

from __future__ import annotations

import importlib
import inspect
import zlib
from pathlib import Path

import pytest

import iocancel
from iocancel import awaiting
from tools.docs import complete
from tools.docs.public import PUBLIC


def everything() -> set[str]:
    """The names that a site with nothing lacking describes."""
    found = set()
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            kind = getattr(module, name)
            if inspect.isclass(kind):
                found |= {f"{module.__name__}.{name}.{member}" for member in complete.members(kind)}
    return found


def test_nothing_is_missed_where_all_is_there() -> None:
    assert complete.missing(everything()) == []


@pytest.mark.parametrize("name", ["asyncio.Stream.receive_some", "CancelScope.cancel", "uring.Ring.submit"])
def test_what_is_on_no_page_is_found(name: str) -> None:
    known = {each for each in everything() if not each.endswith(name.partition(".")[2])}
    assert [fault for fault in complete.missing(known) if name.rpartition(".")[2] in fault]


def test_members_are_ours_and_public() -> None:
    assert {"receive_some", "send_all", "file"} <= complete.members(iocancel.Stream)
    assert "submit" not in complete.members(awaiting.Verbs)
    assert "sendfile" in complete.members(iocancel.Socket)
    assert "detach" not in complete.members(iocancel.Socket), "Python's own"


def test_the_inventory_is_read(tmp_path: Path) -> None:
    lines = b"iocancel.read py:function 1 api/threads.html#$ -\nindex std:doc -1 index.html iocancel\n"
    head = b"# Sphinx inventory version 2\n# Project: x\n# Version: 1\n# The rest is compressed.\n"
    (tmp_path / "objects.inv").write_bytes(head + zlib.compress(lines))
    assert complete.described(tmp_path) == {"iocancel.read"}
