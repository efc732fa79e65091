"""The ledger: tokens are never used again, stale ones find nothing, files find theirs."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest

from iocancel.operation import Ledger
from iocancel.operation import ledger as module
from iocancel.operation.ledger import GENERATIONS, SLOT_BITS, SLOTS, by_age

from ..support import GUEST
from .helpers import running

MANY = 2_000 if GUEST else 20_000


class Op:
    """What the ledger needs of an operation."""

    def __init__(self, fd: int = -1) -> None:
        self._fd = fd
        self._token = -1


def op(fd: int = -1) -> Any:
    return Op(fd)


def test_tokens_are_never_used_again() -> None:
    ledger = Ledger()
    seen: set[int] = set()
    dice = random.Random(3)
    alive: list[int] = []
    for _ in range(MANY):
        if alive and dice.random() < 0.5:
            ledger.leave(alive.pop(dice.randrange(len(alive))))
        else:
            token = ledger.enter(op())
            assert token not in seen
            seen.add(token)
            alive.append(token)
        assert len(ledger) == len(alive)
    assert len({token & (SLOTS - 1) for token in seen}) < len(seen) / 10, "slots are used again"


def test_a_stale_token_finds_nothing() -> None:
    ledger = Ledger()
    first, second = op(), op()
    stale = ledger.enter(first)
    ledger.leave(stale)
    fresh = ledger.enter(second)
    assert fresh & (SLOTS - 1) == stale & (SLOTS - 1), "the same slot"
    assert fresh > stale
    assert ledger.get(stale) is None
    ledger.leave(stale)
    ledger.leave(stale)
    assert ledger.get(fresh) is second
    assert len(ledger) == 1


def test_a_token_left_twice_frees_its_slot_once() -> None:
    ledger = Ledger()
    token = ledger.enter(op())
    for _ in range(3):
        ledger.leave(token)
    slots = {ledger.enter(op()) & (SLOTS - 1) for _ in range(3)}
    assert len(slots) == 3


def test_tokens_grow_with_time() -> None:
    ledger = Ledger()
    ops = [op() for _ in range(100)]
    for each in ops:
        ledger.enter(each)
    assert ledger.newest_first() == ops[::-1]
    shuffled = random.Random(5).sample(ops, 100)
    assert by_age(shuffled + shuffled) == ops[::-1]


def test_generations_wrap_round() -> None:
    ledger = Ledger()
    ledger._generation = (GENERATIONS - 1) << SLOT_BITS
    last, first = op(), op()
    old, new = ledger.enter(last), ledger.enter(first)
    assert old >> SLOT_BITS == GENERATIONS - 1
    assert new >> SLOT_BITS == 0
    assert old < 1 << 61, "the two bits above are tags"
    assert ledger.get(old) is last
    assert ledger.get(new) is first
    ledger.leave(old)
    assert ledger.get(new) is first
    assert ledger.newest_first() == [first]


def test_there_is_an_end_of_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOTS", 2)
    ledger = Ledger()
    one = ledger.enter(op())
    ledger.enter(op())
    with pytest.raises(OverflowError, match="in flight"):
        ledger.enter(op())
    ledger.leave(one)
    ledger.enter(op())


def test_files_find_theirs_the_newest_first() -> None:
    ledger = Ledger()
    ops = [op(fd) for fd in (3, 4, 3, -1, 3)]
    for each in ops:
        ledger.enter(each)
    ledger.note(4, ops[2]._token)  # a splice is on two
    assert ledger.on_file(3) == [ops[4], ops[2], ops[0]]
    assert ledger.on_file(3) == [ops[4], ops[2], ops[0]], "asking takes nothing out"
    assert ledger.on_file(4) == [ops[2], ops[1]]
    assert ledger.on_file(5) == []
    ledger.leave(ops[2]._token)
    assert ledger.on_file(3) == [ops[4], ops[0]]
    assert ledger.on_file(4) == [ops[1]]
    for each in (ops[0], ops[4]):
        ledger.leave(each._token)
    assert ledger.on_file(3) == []
    assert 3 not in ledger._files


@pytest.mark.parametrize("alive", [1, 8, 100])
def test_what_has_ended_on_a_file_is_forgotten(alive: int) -> None:
    ledger = Ledger()
    live: list[Any] = []
    most = 0
    for _ in range(MANY // 10):
        live.append(op(7))
        ledger.enter(live[-1])
        if len(live) > alive:
            ledger.leave(live.pop(0)._token)
        most = max(most, len(ledger._files[7]))
    assert most <= 4 * max(alive, 32), "the index grows with what has ended"
    assert ledger.on_file(7) == live[::-1]


def test_many_threads_enter_and_leave() -> None:
    ledger = Ledger()
    start = threading.Barrier(4)
    kept: list[list[Any]] = [[] for _ in range(4)]

    def work(number: int) -> list[int]:
        start.wait()
        dice = random.Random(number)
        tokens = []
        for _ in range(MANY // 4):
            each = op(number % 2)
            tokens.append(ledger.enter(each))
            if dice.random() < 0.9:
                ledger.leave(tokens[-1])
            else:
                kept[number].append(each)
        return tokens

    with running(*[lambda n=n: work(n) for n in range(4)]) as threads:
        pass
    tokens = [token for thread in threads for token in thread.value]
    assert len(set(tokens)) == len(tokens) == MANY // 4 * 4
    left = set(ledger.flight.values())
    assert left == {each for part in kept for each in part}
    slots = [each._token & (SLOTS - 1) for each in left]
    assert len(set(slots)) == len(slots), "two live ones in one slot"
    for fd in (0, 1):
        assert set(ledger.on_file(fd)) == {*kept[fd], *kept[fd + 2]}
