"""A Ctrl-C between two rounds of a loop is raised within the `try` that is around it.

CPython looks for signals at each jump backward. From 3.12 on, such a jump that a condition makes (the last
thing in the loop is an `if`, or its own condition is looked at behind its body) is not in the table of the
exceptions that the `try` catches: neither `except` nor `finally` nor the `__exit__` of a `with` is run
(gh-108214, gh-130279; 3.14.8: 300 of 300). So a loop that is directly in a `try` has a condition neither as
its last statement nor, in `while`, in its head:

    while True:
        if done:
            break
        ...

or it is in a function of its own: what leaves a call is caught. Comprehensions with an `if` are loops, too.
"""

from __future__ import annotations

import dis
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel import testing

PACKAGE = Path(testing.__file__).parents[1]
# What would be skipped is missed by nobody: it catches OSError alone, or tidies up behind an examination.
SPARED = {
    "_show_uring",
    "_uring",
    "blocked_open",
    "find",
    "_mounts",
    "_living",
    "_pairs",
    "PageFormat.extend",
    "_try_flags",
}


def functions(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, types.CodeType):
            yield from functions(each)


def escapes(code: types.CodeType) -> list[int]:
    """The lines with a jump backward into a `try` that is itself in none."""
    bytecode: Any = dis.Bytecode(code)
    table = bytecode.exception_entries
    names = {each.offset: each.opname for each in bytecode}

    def handler(offset: int) -> int | None:
        # That of a comprehension puts a variable back, and hands on to the next one.
        for _ in table:
            offset = next((entry.target for entry in table if entry.start <= offset < entry.end), -1)
            if offset < 0 or names[offset] == "PUSH_EXC_INFO":
                break
        return offset if offset >= 0 and names[offset] == "PUSH_EXC_INFO" else None

    return [
        each.positions.lineno
        for each in bytecode
        # That of an `await` that was ended from outside has no line.
        if each.opname == "JUMP_BACKWARD" and each.positions and each.positions.lineno
        if handler(each.argval) is not None and handler(each.offset) is None
    ]


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix()
)
def test_no_jump_escapes(path: Path) -> None:
    found = {
        f"{path.name}:{line} {code.co_qualname}"
        for code in functions(compile(path.read_text(), str(path), "exec"))
        if code.co_qualname not in SPARED
        for line in escapes(code)
    }
    assert not found


def head(more: Callable[[], bool]) -> None:
    try:
        while more():
            pass
    finally:
        more()


def last(more: Callable[[], bool]) -> None:
    try:
        while True:
            more()
            if not more():
                break
    finally:
        more()


def first(more: Callable[[], bool]) -> None:
    try:
        while True:
            if not more():
                break
            more()
    finally:
        more()


def test_what_is_looked_for_is_found() -> None:
    """3.11 has none of this; later ones have the first or the second, and none has the third."""
    found = [bool(escapes(each.__code__)) for each in (head, last, first)]
    assert found in ([False, False, False], [True, False, False], [False, True, False], [True, True, False])
