"""Buffers that tell who wrote where nothing was to be written."""

from __future__ import annotations


class CanaryDied(AssertionError):
    """A byte was written that nobody was allowed to write.

    Attributes:
        offsets (list[int]): where, counted from the buffer's first byte; negative ones lie before it.
    """

    def __init__(self, text: str, offsets: list[int]) -> None:
        super().__init__(text)
        self.offsets = offsets


class Canary:
    """A buffer between two guards.

        canary = Canary(4096)
        op = engine.read(fd, canary.buffer)
        op.wait()
        canary.seal()       # it has ended: from now on nothing may be written, inside neither
        ...
        canary.check()      # raises CanaryDied, which names the first byte that was

    Args:
        size: of the buffer, in bytes.
        guard: of each guard, in bytes.
    """

    def __init__(self, size: int, *, guard: int = 64) -> None:
        if size < 0 or guard < 0:
            raise ValueError("size and guard take numbers of bytes >= 0")
        self._size, self._guard = size, guard
        # A pattern that no repetition of one byte, and no shift by a few, looks like.
        self._whole = bytearray((37 * i + 11) & 0xFF for i in range(size + 2 * guard))
        self._before = bytes(self._whole)
        self._sealed = False
        self.buffer = memoryview(self._whole)[guard : guard + size]
        """What the operation is given."""

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return bytes(self.buffer)

    def untouched(self) -> bool:
        """Whether nothing was written into the buffer since it was made, or sealed."""
        return bytes(self.buffer) == self._before[self._guard : self._guard + self._size]

    def seal(self) -> None:
        """The operation has ended: what is in the buffer now must stay. Checks the guards, too."""
        self.check()
        self._before = bytes(self._whole)
        self._sealed = True

    def check(self) -> None:
        """See that only was written where and when it was allowed.

        Raises:
            CanaryDied: something else was written; names the bytes.
        """
        now = bytes(self._whole)
        if now == self._before:
            return
        inside = range(self._guard, self._guard + self._size)
        wrong = [
            i
            for i, (was, is_) in enumerate(zip(self._before, now, strict=True))
            if was != is_ and (self._sealed or i not in inside)
        ]
        if wrong:
            first = wrong[0]
            when = "after the ending" if first in inside else "outside of the buffer"
            raise CanaryDied(
                f"{len(wrong)} bytes were written {when}: first at {first - self._guard} of {self._size}, "
                f"{self._before[first]:#04x} became {now[first]:#04x}",
                [i - self._guard for i in wrong],
            )
