"""No argument whatever may end the interpreter: each call answers, or raises what it documents."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iocancel import posix_aio as aio

from ..support import GUEST

DOCUMENTED = (TypeError, ValueError, OSError, RuntimeError)

closed = st.sampled_from([-2, -1, 10**6, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63), 2**200])
integers = st.one_of(closed, st.integers(-(2**70), 2**70), st.booleans())
junk = st.one_of(
    st.none(),
    integers,
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=9),
    st.builds(object),
    st.just([]),
    st.just({}),
)
buffers = st.one_of(
    junk, st.builds(bytearray, st.integers(0, 9)), st.builds(lambda: memoryview(bytearray(9))[::-1])
)
events = st.one_of(junk, st.builds(aio.SigEvent.none))
opcodes = st.one_of(junk, st.sampled_from(aio.LioOpcode))


def attempt(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except DOCUMENTED:
        return None


@settings(
    max_examples=30 if GUEST else 300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.data())
def test_anything(data: st.DataObject) -> None:
    fd = data.draw(st.one_of(closed, junk.filter(lambda thing: not isinstance(thing, int))))
    block = attempt(
        aio.Aiocb,
        fd,
        data.draw(buffers),
        data.draw(st.one_of(st.just(0), junk)),
        nbytes=data.draw(st.one_of(st.none(), junk)),
        reqprio=data.draw(st.one_of(st.just(0), integers)),
        sigevent=data.draw(events),
        lio_opcode=data.draw(opcodes),
    )
    things = [block, data.draw(junk)]
    for thing in things:
        for call in (aio.aio_read, aio.aio_write, aio.aio_error, aio.aio_return):
            attempt(call, thing)
        attempt(aio.aio_fsync, data.draw(st.one_of(st.just(os.O_SYNC), junk)), thing)
        attempt(aio.aio_cancel, data.draw(st.one_of(closed, st.text())), thing)
    attempt(
        aio.aio_suspend,
        data.draw(st.permutations(things)),
        data.draw(st.one_of(st.floats(max_value=0.01), integers)),
    )
    attempt(aio.aio_suspend, [block], data.draw(st.sampled_from([0, -1, float("nan"), -1e999, 1e-300, "1"])))
    attempt(
        aio.lio_listio, data.draw(st.one_of(st.sampled_from(aio.LioMode), junk)), [block], data.draw(events)
    )
    if block is not None and attempt(aio.aio_error, block) is not None:
        assert aio.aio_suspend([block], 60)


@settings(max_examples=20 if GUEST else 200, deadline=None)
@given(junk, junk)
def test_any_notification(first: Any, second: Any) -> None:
    attempt(aio.SigEvent.signal, first, second)
    if not isinstance(first, int):
        attempt(aio.SigEvent.thread, first)


@pytest.mark.parametrize(
    "name", ["aio_error", "aio_return", "aio_suspend", "aio_cancel", "aio_read", "lio_listio"]
)
def test_no_argument_at_all(name: str) -> None:
    with pytest.raises(TypeError):
        getattr(aio, name)()
