"""The end of the interpreter, and limits: each in a process of its own."""

import errno
import os
import resource
from collections.abc import Callable, Iterator

import pytest

from iocancel import errors
from iocancel import posix_aio as aio
from iocancel.posix_aio import Aiocb

Pipe = Callable[[], tuple[int, int]]
Fresh = Callable[..., str]


def test_aio_init_before_the_first_use(fresh: Fresh, glibc: bool) -> None:
    out = fresh("""
        try:
            aio_init(threads=1, num=32, idle_time=2)
            aio_init(threads=1)          # again, while nothing was started
        except errors.FeatureUnavailable as error:
            print(error.feature, error.since, error.errno == errno.ENOSYS)
            sys.exit()
        pipes = [os.pipe() for _ in range(2)]
        blocks = [Aiocb(r, bytearray(1)) for r, _ in pipes]
        for block in blocks:
            aio_read(block)
        print(aio_cancel(pipes[1][0]).name, aio_cancel(pipes[0][0]).name)    # one thread: the second waits
        os.write(pipes[0][1], b"x")
        aio_suspend(blocks[:1])
    """)
    assert out.strip() == ("CANCELED NOTCANCELED" if glibc else "aio_init glibc True")


def test_no_thread_to_be_had(pipe: Pipe, fresh: Fresh) -> None:
    # Only in a process where no thread of the C library's lives is the start refused; root is exempt.
    out = fresh("""
        r, w = os.pipe()
        if os.getuid() == 0:
            os.setresuid(65534, 65534, 0)        # the real user counts
        hard = resource.getrlimit(resource.RLIMIT_NPROC)
        resource.setrlimit(resource.RLIMIT_NPROC, (1, hard[1]))
        block = Aiocb(r, bytearray(1), lio_opcode=LIO_READ)
        for start in (aio_read, lambda block: lio_listio(LIO_NOWAIT, [block]),
                      lambda block: lio_listio(LIO_WAIT, [block])):
            try:
                start(block)
            except errors.QueueFull as error:
                told = "RLIMIT_NPROC is 1" in str(error)
                print(error.errno == errno.EAGAIN, told, aio_error(block) == errno.EAGAIN)
                block.buf.append(1)              # it is over, and holds nothing
            except OSError as error:             # a list: of glibc's, one has failed
                print(error.errno == errno.EIO, True, aio_error(block) == errno.EAGAIN)
        resource.setrlimit(resource.RLIMIT_NPROC, hard)
        os.write(w, b"x")
        aio_read(block)
        aio_suspend([block])
        print(aio_return(block), in_progress())
        os.setresuid(0, 0, 0) if os.geteuid() != os.getuid() or 0 in os.getresuid() else None
    """)
    assert out.splitlines() == ["True True True"] * 3 + ["1 0"]


def test_idle_threads_end(fresh: Fresh) -> None:
    # glibc keeps one for a second (aio_init's idle_time); musl's ends with its operation.
    fresh("""
        r, w = os.pipe()
        os.write(w, b"x")
        block = Aiocb(r, bytearray(1))
        aio_read(block)
        aio_suspend([block])
        while len(os.listdir("/proc/self/task")) > 1:
            os.sched_yield()
    """)


RUNNING = """
    r, w = os.pipe()
    blocks = [Aiocb(r, bytearray(4), sigevent=SigEvent.signal(signal.SIGUSR1)) for _ in range(4)]
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    for block in blocks:
        aio_read(block)
"""


@pytest.mark.parametrize("warnings", ["default", "error"])
def test_the_interpreter_ends_with_some_in_progress(warnings: str, fresh: Fresh, glibc: bool) -> None:
    told = "operations in progress: 1, the first aio_read(fd" if glibc and warnings == "default" else ""
    fresh(RUNNING, "-W", f"{warnings}::ResourceWarning", stderr=told)


def test_what_ends_after_the_end_tells_nobody(fresh: Fresh) -> None:
    # A handler of Python's is gone then, and the signal's own action would end the process.
    fresh(
        RUNNING
        + """
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    late_write = w
    """,
        late="""
        @late
        def after():
            os.write(late_write, b"data")
            left = ctypes.c_int(1)
            while left.value and aio_error(blocks[0]) == errno.EINPROGRESS:
                os.sched_yield()
        """,
    )


def test_the_end_waits_for_what_is_about_to_end(fresh: Fresh) -> None:
    out = fresh(
        """
    r, w = os.pipe()
    block = Aiocb(r, bytearray(4))
    aio_read(block)
    threading.Thread(target=os.write, args=(w, b"data"), daemon=True).start()
    """,
        late="""
        @late
        def after():
            print(aio_error(block) in (0, errno.ECANCELED))  # seldom, no thread had taken it up
            try:
                aio_read(block)
            except RuntimeError as error:
                print(error)
        """,
    )
    assert out.splitlines() == [
        "True",
        "the interpreter is ending: no POSIX AIO operation can be started any more",
    ]


def test_the_end_with_a_collected_one_and_a_thread_that_waits(fresh: Fresh) -> None:
    fresh("""
        warnings.simplefilter("ignore", ResourceWarning)
        r, w = os.pipe()
        fd = os.eventfd(0)
        block = Aiocb(r, bytearray(1), sigevent=SigEvent.thread(fd))
        aio_read(block)
        threading.Thread(target=aio_suspend, args=([block],), daemon=True).start()
        def several():
            try:
                lio_listio(LIO_WAIT, [Aiocb(r, bytearray(1), lio_opcode=LIO_READ) for _ in range(3)])
            except OSError:
                pass                     # cancelled, if it comes so far
        threading.Thread(target=several, daemon=True).start()
        while in_progress() < 4:
            os.sched_yield()
        del block
    """)


def test_what_outlives_its_module(fresh: Fresh) -> None:
    fresh("""
        import sys
        from iocancel.posix_aio import ledger, notify
        r, w = os.pipe()
        block = Aiocb(r, bytearray(4))
        aio_read(block)
        os.write(w, b"data")
        aio_suspend([block])
        # What is in sys goes when the other modules are cleared.
        sys._kept = block, SigEvent.thread(os.eventfd(0)), ledger, notify
    """)


def test_an_exit_without_use(fresh: Fresh) -> None:
    assert fresh("print(in_progress())") == "0\n"


@pytest.fixture
def nproc() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NPROC)
    yield
    resource.setrlimit(resource.RLIMIT_NPROC, limits)


def test_what_a_refusal_says(nproc: None) -> None:
    from iocancel.posix_aio.calls import refusal

    for limit in (resource.getrlimit(resource.RLIMIT_NPROC)[0], resource.RLIM_INFINITY):
        try:
            resource.setrlimit(resource.RLIMIT_NPROC, (limit, resource.getrlimit(resource.RLIMIT_NPROC)[1]))
        except (ValueError, PermissionError):  # the hard limit is lower
            continue
        error = refusal(-errno.EAGAIN, "aio_read(fd 1)")
        assert isinstance(error, errors.QueueFull)
        assert ("unlimited" if limit == resource.RLIM_INFINITY else str(limit)) in str(error)
    assert str(refusal(-errno.EIO, "x")) == f"[Errno {errno.EIO}] {os.strerror(errno.EIO)}: x"


def test_in_progress(pipe: Pipe) -> None:
    read, write = pipe()
    blocks = [Aiocb(read, bytearray(1)) for _ in range(3)]
    for count, block in enumerate(blocks, 1):
        aio.aio_read(block)
        assert aio.in_progress() == count
    os.write(write, b"xyz")
    for block in blocks:
        aio.aio_suspend([block])
    assert aio.in_progress() == 0
