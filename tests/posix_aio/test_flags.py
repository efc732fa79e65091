"""The constants."""

import pytest

from iocancel import posix_aio as aio


def test_cancel_status() -> None:
    # The order is POSIX's, the values are what glibc and musl both have.
    assert [(status.name, status.value) for status in aio.CancelStatus] == [
        ("CANCELED", 0),
        ("NOTCANCELED", 1),
        ("ALLDONE", 2),
    ]
    assert aio.AIO_CANCELED is aio.CancelStatus.CANCELED
    assert aio.AIO_NOTCANCELED is aio.CancelStatus.NOTCANCELED
    assert aio.AIO_ALLDONE is aio.CancelStatus.ALLDONE


def test_values_are_told_apart() -> None:
    assert len({aio.LIO_READ, aio.LIO_WRITE, aio.LIO_NOP}) == 3
    assert len({aio.LIO_WAIT, aio.LIO_NOWAIT}) == 2
    assert len({aio.SIGEV_NONE, aio.SIGEV_SIGNAL, aio.SIGEV_THREAD}) == 3
    assert aio.LIO_NOP is aio.LioOpcode.NOP
    assert aio.LIO_NOWAIT is aio.LioMode.NOWAIT
    assert aio.SIGEV_THREAD is aio.Notify.THREAD


@pytest.mark.parametrize("name", aio.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(aio, name)
    assert thing.__doc__
