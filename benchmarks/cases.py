"""What is measured, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A work that one side does, so many times in a round."""

    side: str  # "c", "ours" or "peer"
    work: str
    repetitions: int


@dataclass(frozen=True)
class Row:
    """A line of the table: ours, what it is compared with, and the target for the ratio of the two."""

    name: str
    about: str
    items: int  # of one repetition: figures are for one item
    base: Job
    ours: Job
    peer: Job | None = None
    target: float | None = None


@dataclass(frozen=True)
class Case:
    """Rows whose jobs are measured in turn."""

    name: str
    rows: tuple[Row, ...]
    share: int = 1  # of the rounds: one in so many

    @property
    def jobs(self) -> tuple[Job, ...]:
        found = [job for row in self.rows for job in (row.base, row.ours, row.peer) if job is not None]
        return tuple(dict.fromkeys(found))


def _against_c(
    name: str, work: str, about: str, items: int, target: float, many: tuple[int, int, int]
) -> Case:
    """A case with a target, and the same by Sqe objects without one."""
    fast, by_sqe, peer = many
    base, theirs = Job("c", work, fast), Job("peer", work, peer)
    rows = [
        Row(name, about, items, base, Job("ours", work, fast), theirs, target),
        Row(
            f"{name} by Sqe",
            f"{about}; an object each",
            items,
            base,
            Job("ours", f"{work}-sqe", by_sqe),
            theirs,
        ),
    ]
    if work == "cancel":
        counted = Job("ours", "count", fast), Job("peer", "count", peer)
        about += "; their results not looked at"
        rows.append(Row(f"{name} counted", about, items, base, *counted))
    return Case(name, tuple(rows))


def _everything(pending: int, repetitions: int) -> Case:
    base = Job("ours", f"by-user-data-{pending}", repetitions)
    other = Job("ours", f"any-all-{pending}", repetitions)
    about = f"cancel {pending:,} polls by one ANY|ALL, against each by its user_data"
    return Case(other.work, (Row(other.work, about, pending, base, other),), share=5)


_CASES = (
    _against_c(
        "cancel-1024", "cancel", "cancel 1,024 polls by user_data and reap all", 1024, 2.0, (10, 1, 5)
    ),
    _against_c("one", "one", "one poll submitted, cancelled, both reaped", 100, 2.5, (10, 2, 5)),
    _against_c("nop-1024", "nop", "NOPs in batches of 1,024", 1024, 4.0, (10, 1, 5)),
    Case(
        "libaio",
        (
            Row(
                "libaio",
                "one poll submitted, cancelled and reaped on Linux AIO",
                100,
                Job("c", "libaio", 10),
                Job("ours", "libaio", 2),
            ),
        ),
        share=2,
    ),
    _everything(64, 10),
    _everything(1024, 2),
    _everything(4096, 1),
)
CASES = {case.name: case for case in _CASES}
