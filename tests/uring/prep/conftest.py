"""A ring for each test, a call that runs one request, and a look at what was left open."""

from collections.abc import Iterator
from typing import Any

import pytest

from iocancel.errors import FeatureUnavailable
from iocancel.uring import BufRing, Cqe, Ring

from ...support import BOUND, open_fds


class Runner:
    """Runs requests on a ring, one at a time, by their names."""

    def __init__(self, ring: Ring) -> None:
        self.ring = ring
        self._early: list[Cqe] = []

    def start(self, name: str, *arguments: Any, **more: Any) -> int:
        """Submits a request; its user_data. A kernel without its opcode is a skip."""
        sqe = self.ring.get_sqe()
        getattr(sqe, f"prep_{name}")(*arguments, **more)
        opcode = sqe.opcode
        if not self.ring.probe().supports(opcode):
            sqe.prep_nop()
            self.ring.submit_and_reap(1)
            pytest.skip(f"this kernel has no opcode {opcode} for prep_{name}")
        number = sqe.user_data
        assert self.ring.submit() == 1
        return number

    def wait(self, n: int = 1) -> list[Cqe]:
        """The next so many completions; what came with them is kept for the next call."""
        found = self._early
        while len(found) < n:
            more = self.ring.wait(1, timeout=BOUND)
            assert more, f"only {found} came"
            found += more
        self._early = found[n:]
        return found[:n]

    def __call__(self, name: str, *arguments: Any, **more: Any) -> Cqe:
        """Runs a request; its only completion."""
        number = self.start(name, *arguments, **more)
        [cqe] = self.wait()
        assert (cqe.user_data, cqe.call) == (number, f"io_uring_prep_{name}")
        assert not cqe.more
        return cqe

    def ok(self, name: str, *arguments: Any, **more: Any) -> int:
        """Runs a request that has to succeed; its result. What this kernel lacks is a skip."""
        try:
            return self(name, *arguments, **more).check()
        except FeatureUnavailable as error:
            pytest.skip(str(error))

    def group(self, entries: int, nbytes: int, bgid: int = 7) -> BufRing:
        """Registers a group of buffers. A kernel without is a skip."""
        try:
            return self.ring.register_buf_ring(entries, nbytes, bgid)
        except FeatureUnavailable as error:
            pytest.skip(str(error))

    def cancel(self, user_data: int) -> Cqe:
        """Cancels a request; the request's own last completion."""
        self.start("cancel64", user_data)
        return next(cqe for cqe in self.wait(2) if cqe.user_data == user_data)


@pytest.fixture(autouse=True)
def no_file_is_left_open() -> Iterator[None]:
    before = open_fds()
    yield
    assert open_fds() == before


@pytest.fixture
def ring(no_file_is_left_open: None) -> Iterator[Ring]:
    with Ring(16) as ring:
        yield ring
        assert ring.in_flight == 0


@pytest.fixture
def go(ring: Ring) -> Runner:
    return Runner(ring)
