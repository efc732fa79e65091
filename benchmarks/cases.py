"""What is measured, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Job:
    """A work that one side does, so many times in a round."""

    side: str
    """"c"; "ours", "engine"; "peer", "caio", "fio", "aiofiles"; "standard" (Python's own), "blocking" (both);
    "asyncio", "uvloop" and "trio" themselves, and "ours on" each."""
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
    against: str = ""  # what it is compared with, where that is not C (or the work's own name)
    base_items: int | None = None  # of one repetition of the base, where it has not as many
    limit: float | None = None  # nanoseconds that the median of all repetitions may take: its spread is told


@dataclass(frozen=True)
class Case:
    """Rows whose jobs are measured in turn."""

    name: str
    rows: tuple[Row, ...]
    share: int = 1  # of the rounds: one in so many
    warm: bool = True  # with a round before, which is not looked at

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


def _cancel_all(*many: tuple[int, int]) -> Case:
    """The engine's cancel_all, against C that cancels by user_data, the newest first."""
    rows = []
    for pending, repetitions in many:
        name = f"cancel-all-{pending}"
        about = f"engine.cancel_all() of {pending:,} polls, each settled, against C newest first"
        by_hand = f"newest-first-{pending}"
        jobs = (
            Job("c", by_hand, repetitions),
            Job("engine", name, repetitions),
            Job("peer", by_hand, repetitions),
        )
        rows.append(Row(name, about, pending, *jobs, target=4.0))
    few = next(row for row in rows if row.items == 1024)
    rows += [
        Row(
            f"{row.name} growth",
            f"what each costs among {row.items:,}, against among 1,024",
            row.items,
            few.ours,
            row.ours,
            target=1.5 if row.items == 16384 else None,
            against="1,024 pending",
            base_items=1024,
        )
        for row in rows
        if row.items > 4096
    ]
    return Case("cancel-all", tuple(rows), share=8)


def _traced(pending: int) -> Case:
    """What `iocancel trace` costs those whose cancels it shows."""
    jobs = Job("engine", f"cancel-all-{pending}", 1), Job("engine", f"cancel-all-{pending}-traced", 1)
    about = f"engine.cancel_all() of {pending:,} polls while the kernel records it for `iocancel trace`"
    row = Row("traced", about, pending, *jobs, against="not traced")
    return Case("traced", (row,), share=2)


def _instead_of_any_all(pending: int, share: int, target: float | None = None) -> Case:
    name = f"instead-{pending}"
    about = f"engine.cancel_all() of {pending:,} polls, against one ANY|ALL in C"
    jobs = Job("c", f"any-all-{pending}", 1), Job("engine", f"cancel-all-{pending}", 1)
    row = Row(name, about, pending, *jobs, target=target, against="C ANY|ALL")
    return Case(name, (row,), share, warm=False)


def _reads() -> Case:
    """4 KiB from the page cache, 64 in flight."""
    about = "4 KiB cached reads, 64 in flight"
    others = {
        "os.pread": Job("standard", "pread", 1),
        "thread pool": Job("standard", "threads", 1),
        "caio": Job("caio", "read", 1),
        "fio": Job("fio", "read", 1),
    }
    ours = {
        "read": f"{about}, buffers of the engine's own, which become bytes",
        "read-into": f"{about}, into given buffers",
        "reap": f"{about}, as `read`, each reaped as it comes and another sent",
    }
    return Case(
        "reads",
        tuple(
            Row(work, ours[work], 4096, base, Job("engine", work, 1), against=against)
            for work in ours
            for against, base in others.items()
            if work != "reap" or against == "os.pread"
        ),
        share=8,
    )


def _ready() -> Case:
    """A pipe that is ready."""
    about = "64 bytes of a ready pipe"
    plain, selected = Job("blocking", "os-read", 5), Job("blocking", "select-read", 5)
    ours, scoped = Job("blocking", "read", 5), Job("blocking", "read-in-scope", 5)
    by_timeout = f"iocancel.read(fd, n, timeout=1) of {about}"
    by_scope = f"iocancel.read(fd, n) of {about}, within fail_after()"
    return Case(
        "ready",
        (
            Row("ready", by_timeout, 1000, plain, ours, against="os.read"),
            Row("ready", by_timeout, 1000, selected, ours, target=1.0, against="select + os.read"),
            Row("ready in scope", by_scope, 1000, plain, scoped, against="os.read"),
            Row("ready in scope", by_scope, 1000, selected, scoped, against="select + os.read"),
        ),
    )


def _latency() -> Case:
    """How long after it was told a thread knows."""
    about = "from scope.cancel() in one thread to Cancelled in another's read of a silent pipe"
    by_signal = "from os.kill() in another thread to KeyboardInterrupt in a read of a silent pipe"
    wake, cancel = Job("blocking", "wake", 10), Job("blocking", "cancel", 10)
    cold_wake, cold = Job("blocking", "wake-idle", 10), Job("blocking", "cancel-idle", 10)
    select, interrupt = Job("blocking", "interrupt-select", 10), Job("blocking", "interrupt", 10)
    return Case(
        "latency",
        (
            Row("cancel", about, 1, wake, cancel, against="os.read woken by a byte", limit=100_000),
            Row(
                "cancel, idle",
                f"{about}; both processors idle for 2 ms before",
                1,
                cold_wake,
                cold,
                against="os.read woken by a byte",
                limit=5_000_000,
            ),
            Row("Ctrl-C", by_signal, 1, select, interrupt, against="select.select", limit=5_000_000),
        ),
        share=2,
    )


def _ended() -> tuple[Case, Case]:
    """Many pending receives that end together."""

    def case(name: str, work: str, about: str) -> Case:
        asyncio, uvloop = Job("asyncio", work, 1), Job("uvloop", work, 1)
        on_asyncio, on_uvloop = Job("ours on asyncio", work, 1), Job("ours on uvloop", work, 1)
        return Case(
            name,
            (
                Row(name, about, 4000, asyncio, on_asyncio, target=1.0, against="asyncio"),
                Row(f"{name} beside uvloop", about, 4000, uvloop, on_asyncio, target=1.0, against="uvloop"),
                Row(f"{name} on uvloop", about, 4000, uvloop, on_uvloop, against="uvloop"),
            ),
            share=4,
        )

    about = "4,000 tasks, each in a receive from a silent socket of its own"
    return (
        case("tasks", "cancel", f"{about}: from the first task.cancel() to the last one's end"),
        case("timeouts", "timeouts", f"{about} and an asyncio.timeout() of its own; all run out at once"),
    )


def _echo() -> Case:
    """There and back, between two tasks."""
    about = "64 bytes there and back between two tasks, over a socketpair"
    asyncio, uvloop, trio = (Job(side, "echo", 1) for side in ("asyncio", "uvloop", "trio"))
    stream, verbs = Job("ours on asyncio", "echo", 1), Job("ours on asyncio", "echo-verbs", 1)
    on_uvloop, verbs_on_uvloop = Job("ours on uvloop", "echo", 1), Job("ours on uvloop", "echo-verbs", 1)
    by_stream = f"{about}: iocancel.asyncio.Stream"
    by_verbs = f"{about}: iocancel.asyncio.recv and sendall"
    return Case(
        "echo",
        (
            Row("echo", by_stream, 1000, asyncio, stream, target=1.0, against="loop.sock_recv"),
            Row("echo on uvloop", by_stream, 1000, uvloop, on_uvloop, against="uvloop's sock_recv"),
            Row("echo by verbs", by_verbs, 1000, asyncio, verbs, against="loop.sock_recv"),
            Row(
                "echo by verbs on uvloop",
                by_verbs,
                1000,
                uvloop,
                verbs_on_uvloop,
                against="uvloop's sock_recv",
            ),
            Row(
                "echo on trio",
                f"{about}: iocancel.trio.Stream",
                1000,
                trio,
                Job("ours on trio", "echo", 1),
                against="trio.SocketStream",
            ),
        ),
        share=2,
    )


def _awaited_reads() -> Case:
    """As `_reads`, awaited: 64 tasks, each reads its share."""
    others = {
        "caio": Job("caio", "reads", 1),
        "aiofiles": Job("aiofiles", "reads", 1),
        "run_in_executor": Job("asyncio", "reads", 1),
    }
    about = "4 KiB cached reads awaited by 64 tasks"
    ours = {
        "awaited reads": ("reads", f"{about}, each of which suspends, and is taken without waiting"),
        "awaited reads, ring": ("reads-ring", f"{about}, each through the ring"),
        "awaited reads, inline": ("reads-inline", f"{about}, each taken at once, without giving way"),
    }
    return Case(
        "awaited-reads",
        tuple(
            Row(
                name,
                text,
                4096,
                base,
                Job("ours on asyncio", work, 1),
                target=0.5 if (against, work) == ("caio", "reads") else None,
                against=against,
            )
            for name, (work, text) in ours.items()
            for against, base in others.items()
        )
        + (
            # What is left for any verb that suspends: the loop's own way, and the system call.
            Row(
                "no verb at all",
                f"{about}: asyncio.sleep(0), then os.pread",
                4096,
                others["caio"],
                Job("asyncio", "reads-bare", 1),
                against="caio",
            ),
        ),
        share=4,
    )


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
    _traced(1024),
    _cancel_all((64, 20), (1024, 3), (4096, 1), (16384, 1), (60000, 1)),
    _instead_of_any_all(64, 5),
    _instead_of_any_all(1024, 5),
    _instead_of_any_all(4096, 20),
    _instead_of_any_all(16384, 50, target=1 / 250),  # 4 s each time; 60,000 would take a minute
    _reads(),
    _ready(),
    _latency(),
    *_ended(),
    _echo(),
    _awaited_reads(),
)
CASES = {case.name: case for case in _CASES}
