"""facts.md 2.1, 2.2: what each combination of cancel flags matches, and what it answers."""

from __future__ import annotations

import os
import select
from collections.abc import Callable

import pytest

from iocancel import FeatureUnavailable
from iocancel.uring import CancelFlags, Opcode, cancel_flags

from .helpers import Asked, need_flags

ALL, FD, ANY, FD_FIXED, USERDATA, OP = CancelFlags
NOENT, INVAL, BADF, CANCELED = -2, -22, -9, -125
EVERY = [CancelFlags(bits) for bits in range(64)]
NAMES = [repr(flags).partition(".")[2].rstrip(">").split(":")[0] or "0" for flags in EVERY]

# What is pending: user_data, opcode, which pipe; and how it ends when it was not cancelled. Enough
# bytes are written in the end that the reads leave some for the polls to see.
A, B = 0, 1
PENDING = {
    (1, Opcode.READ, A): 10,
    (1, Opcode.POLL_ADD, A): select.POLLIN,
    (2, Opcode.POLL_ADD, A): select.POLLIN,
    (1, Opcode.POLL_ADD, B): select.POLLIN | select.POLLRDNORM,
    (2, Opcode.READ, B): 20,
}


class Scene:
    """Five requests on two pipes, of two kinds, with two user_data; slot 0 is pipe A, 1 a third one."""

    def __init__(self, asked: Asked, pipes: Callable[[], tuple[int, int]]) -> None:
        self.asked = asked
        self.ends = [pipes() for _ in range(3)]
        asked.ring.register_files([self.ends[0][0], self.ends[2][0], -1])

    def fill(self) -> None:
        for (user_data, opcode, which), result in PENDING.items():
            fd = self.ends[which][0]
            if opcode == Opcode.READ:
                self.asked.put(user_data, "read", fd, bytearray(result))
            else:
                self.asked.put(user_data, "poll_add", fd, result)
        self.asked.ring.submit()
        assert self.asked.pending(1, 2)

    def cancel(self, flags: CancelFlags, user_data: int, fd: int, slot: int, opcode: int) -> int:
        asked_opcode = opcode if flags & OP else None
        if flags & FD:
            key = user_data if flags & USERDATA else None
            return self.asked.cancel_fd(
                slot if flags & FD_FIXED else fd, flags, user_data=key, opcode=asked_opcode
            )
        return self.asked.cancel(user_data, flags, opcode=asked_opcode)

    def survivors(self) -> set[tuple[int, Opcode, int]]:
        """Which requests the cancel left alone: they end well when there is something to read."""
        for _, write_end in self.ends[:2]:
            os.write(write_end, bytes(100))
        ended = [(user_data, self.asked.end(user_data)) for user_data in (1, 1, 1, 2, 2)]
        well = [key for key, result in PENDING.items() if (key[0], result) in ended]
        assert len(well) + sum(res == CANCELED for _, res in ended) == 5, ended
        return set(well)


@pytest.fixture
def scene(asked: Asked, pipes: Callable[[], tuple[int, int]]) -> Scene:
    return Scene(asked, pipes)


def matches(flags: CancelFlags, user_data: int, pipe: int, opcode: int) -> set[tuple[int, Opcode, int]]:
    """What facts.md 2.1 says."""
    if flags & ANY:
        return set(PENDING)
    by_user_data = flags & USERDATA or not flags & (FD | OP)
    return {
        (has_user_data, has_opcode, has_pipe)
        for has_user_data, has_opcode, has_pipe in PENDING
        if (not by_user_data or has_user_data == user_data)
        and (not flags & FD or has_pipe == pipe)
        and (not flags & OP or has_opcode == opcode)
    }


def refused(scene: Scene, flags: CancelFlags) -> bool:
    """Whether this combination goes no further, here; and that it changes nothing then."""
    if flags & ANY and flags & (FD | OP):
        with pytest.raises(ValueError, match="no kernel takes both"):
            scene.cancel(flags, 1, scene.ends[A][0], 0, Opcode.POLL_ADD)
        return True
    lacking = flags & ~cancel_flags()
    if lacking & OP or (lacking & USERDATA and flags & FD):
        # A kernel without them, or one that takes them and acts otherwise (6.1): refused before submitting.
        with pytest.raises(FeatureUnavailable):
            scene.cancel(flags, 1, scene.ends[A][0], 0, Opcode.POLL_ADD)
        return True
    if lacking & ~USERDATA:  # 5.10: any flag is -EINVAL. (6.1 takes USERDATA, which alone changes nothing.)
        assert scene.cancel(flags, 1, scene.ends[A][0], 0, Opcode.POLL_ADD) == INVAL
        return True
    # Is USERDATA refused, or is it 6.1's? With a key that nothing has it is safe to ask.
    return bool(lacking) and not flags & ANY and scene.cancel(flags, 77, -1, -1, 0) == INVAL


@pytest.mark.parametrize("flags", EVERY, ids=NAMES)
def test_matrix_with_matches(scene: Scene, flags: CancelFlags) -> None:
    scene.fill()
    if refused(scene, flags):
        assert scene.survivors() == set(PENDING)
        return
    res = scene.cancel(flags, 1, scene.ends[A][0], 0, Opcode.POLL_ADD)
    matching = matches(flags, 1, A, Opcode.POLL_ADD)
    hit = set(PENDING) - scene.survivors()
    if flags & (ALL | ANY):
        assert hit == matching
        assert res == len(matching)
    else:
        # Which one of several differs from kernel to kernel (facts 9.4).
        assert len(hit) == 1
        assert hit <= matching
        assert res == 0


@pytest.mark.parametrize("flags", EVERY, ids=NAMES)
def test_matrix_without_a_match(scene: Scene, flags: CancelFlags) -> None:
    if refused(scene, flags):
        return
    expected = 0 if flags & (ALL | ANY) else NOENT  # with ALL never -ENOENT
    if not flags & ANY:  # that would match everything: an empty ring then
        scene.fill()
    assert scene.cancel(flags, 77, scene.ends[2][0], 1, Opcode.RECV) == expected
    if not flags & ANY:
        assert scene.survivors() == set(PENDING)


@pytest.mark.parametrize(
    ("flags", "user_data", "pipe", "opcode"),
    [
        (FD | USERDATA, 77, A, 0),
        (FD | USERDATA, 1, 2, 0),
        (OP | USERDATA, 77, A, Opcode.READ),
        (OP | USERDATA, 1, A, Opcode.RECV),
        (FD | OP, 1, 2, Opcode.READ),
        (FD | OP, 1, A, Opcode.RECV),
        (FD | OP | USERDATA, 2, A, Opcode.READ),
        (FD | OP | USERDATA, 2, B, Opcode.POLL_ADD),
    ],
)
@pytest.mark.parametrize("all_of_them", [CancelFlags(0), ALL], ids=["one", "all"])
def test_one_wrong_key_of_several_matches_nothing(
    scene: Scene, flags: CancelFlags, user_data: int, pipe: int, opcode: int, all_of_them: CancelFlags
) -> None:
    need_flags(flags)
    scene.fill()
    res = scene.cancel(flags | all_of_them, user_data, scene.ends[pipe][0], 0, opcode)
    assert res == (0 if all_of_them else NOENT)
    assert scene.survivors() == set(PENDING)


@pytest.mark.parametrize("more", [CancelFlags(0), ALL, USERDATA, OP])
def test_a_bad_fd_or_slot_is_ebadf(scene: Scene, more: CancelFlags) -> None:
    need_flags(FD | more)
    scene.fill()
    closed = os.dup(0)
    os.close(closed)
    assert scene.cancel(FD | more, 1, closed, 0, Opcode.READ) == BADF
    if FD_FIXED in cancel_flags():
        assert scene.cancel(FD | FD_FIXED | more, 1, 0, 2, Opcode.READ) == BADF  # an empty slot
        assert scene.cancel(FD | FD_FIXED | more, 1, 0, 700, Opcode.READ) == BADF  # none of that number
    assert scene.survivors() == set(PENDING)


def test_without_registered_files_a_slot_is_ebadf(asked: Asked) -> None:
    need_flags(FD | FD_FIXED)
    assert asked.cancel_fd(0, FD_FIXED) == BADF


@pytest.mark.parametrize("bits", [64, 128, 1 << 20, 1 << 31])
def test_unknown_bits_are_refused_before_submitting(asked: Asked, bits: int) -> None:
    with pytest.raises(ValueError, match="CancelFlags does not know"):
        asked.put(1, "cancel64", 1, bits)
    with pytest.raises(ValueError, match="CancelFlags does not know"):
        asked.put(1, "cancel_fd", 0, bits)


def test_duplicates_of_one_user_data_are_taken_one_at_a_time(asked: Asked, pipe: tuple[int, int]) -> None:
    """Which of them first differs (6.18: the newest); each cancel takes one, and says 0."""
    for _ in range(3):
        asked.go(1, "poll_add", pipe[0], select.POLLIN)
    for _ in range(3):
        assert asked.cancel(1) == 0
        assert asked.end(1) == CANCELED
    assert asked.cancel(1) == NOENT


def test_fd_takes_one_at_a_time_until_none_is_left(asked: Asked, pipe: tuple[int, int]) -> None:
    need_flags(FD)
    for user_data in (1, 2, 3, 4):
        asked.go(user_data, "poll_add", pipe[0], select.POLLIN)
    for _ in range(4):
        assert asked.cancel_fd(pipe[0]) == 0
    assert asked.cancel_fd(pipe[0]) == NOENT
    assert [asked.end(n) for n in (1, 2, 3, 4)] == [CANCELED] * 4


def test_empty_ring_answers(asked: Asked, pipe: tuple[int, int]) -> None:
    """facts 2.7: what a probe of a fresh ring sees."""
    assert asked.cancel(1) == NOENT
    for flags, expected in ((ALL, 0), (ANY, 0), (USERDATA, NOENT)):
        # USERDATA is taken on 6.1 as well, where it is only half there.
        assert asked.cancel(1, flags) in ({expected} if flags in cancel_flags() else {INVAL, NOENT})
    if FD in cancel_flags():
        assert asked.cancel_fd(pipe[0]) == NOENT
        assert asked.cancel_fd(-1) == BADF
    else:
        assert asked.cancel_fd(pipe[0]) == INVAL
    if OP in cancel_flags():
        assert asked.cancel(1, OP, opcode=Opcode.READ) == NOENT


def test_probe_is_about_this_kernel() -> None:
    found = cancel_flags()
    assert isinstance(found, CancelFlags)
    # Each came with, or after, those before it.
    assert FD_FIXED not in found or FD in found
    assert OP not in found or ALL in found
    assert cancel_flags() == found
