"""The table of states, in full; and what an operation says at each."""

from __future__ import annotations

import itertools

import pytest

from iocancel.operation import NEXT, Event, State, following

E, S = Event, State
LEGAL = {
    (S.PREPARED, E.SUBMIT): S.IN_FLIGHT,
    (S.PREPARED, E.WITHDRAW): S.ENDED,
    (S.PREPARED, E.ABANDON): S.ENDED,
    (S.IN_FLIGHT, E.UNTAKEN): S.PREPARED,
    (S.IN_FLIGHT, E.MORE): S.IN_FLIGHT,
    (S.IN_FLIGHT, E.RESULT): S.RELEASING,
    (S.IN_FLIGHT, E.LAST): S.ENDED,
    (S.IN_FLIGHT, E.ABANDON): S.ENDED,
    (S.RELEASING, E.LAST): S.ENDED,
    (S.RELEASING, E.ABANDON): S.ENDED,
}
PAIRS = list(itertools.product(State, Event))


@pytest.mark.parametrize(("state", "event"), PAIRS, ids=lambda each: each.name)
def test_each_event_in_each_state(state: State, event: Event) -> None:
    if (state, event) in LEGAL:
        assert following(state, event) is LEGAL[state, event]
        assert NEXT[state][event] == LEGAL[state, event]
    else:
        assert NEXT[state][event] == -1
        with pytest.raises(RuntimeError, match=f"{state.name} can't have {event.name}"):
            following(state, event)


def test_the_table_is_whole() -> None:
    assert len(PAIRS) == 28
    assert [len(row) for row in NEXT] == [len(Event)] * len(State)
    assert {type(each) for row in NEXT for each in row} == {int}, "plain ints, for hot paths"


def reachable(start: State) -> set[State]:
    found = {start}
    while fresh := {to for (at, _), to in LEGAL.items() if at in found} - found:
        found |= fresh
    return found


def test_every_life_ends_and_no_end_is_left() -> None:
    for state in State:
        assert State.ENDED in reachable(state)
    assert reachable(State.ENDED) == {State.ENDED}
    assert State.PREPARED not in reachable(State.RELEASING)


def test_exactly_one_event_ends_each_life() -> None:
    """Every way from PREPARED to ENDED, of up to eight events, has one ending, at its end."""
    ways: list[tuple[tuple[State, ...], int]] = [((State.PREPARED,), 0)]
    ended = 0
    while ways:
        (way, length) = ways.pop()
        if way[-1] is State.ENDED:
            ended += 1
            assert way.count(State.ENDED) == 1
            continue
        if length < 8:
            ways += [((*way, to), length + 1) for (at, _), to in LEGAL.items() if at is way[-1]]
    assert ended == 148
