"""Forks: each in a process of its own."""

from collections.abc import Callable

Fresh = Callable[..., str]

CHILD = """
    rounds = 3 if os.environ.get("IOCANCEL_GUEST") == "1" else 50
    warnings.simplefilter("ignore", DeprecationWarning)     # Python 3.12 sees the threads
    def child(act):
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            act()
            sys.exit()                                       # an orderly end, with what was inherited
        assert os.waitpid(pid, 0)[1] == 0
    def refused(call):
        try:
            call()
        except errors.EngineUnavailable as error:
            assert error.reason and "spawn" in error.remedy and "fork" in str(error)
            print("refused")
"""


def test_a_forked_child_of_a_user(fresh: Fresh) -> None:
    out = fresh(
        CHILD
        + """
    r, w = os.pipe()
    running, queued = Aiocb(r, bytearray(1), lio_opcode=LIO_READ), Aiocb(r, bytearray(1))
    done = Aiocb(r, bytearray(1))
    aio_read(running), aio_read(queued)
    def act():
        for block in (running, queued):
            for call in (aio_error, aio_return, aio_read):
                refused(lambda: call(block))
            refused(lambda: aio_suspend([block]))
            refused(lambda: aio_cancel(r, block))
        refused(lambda: aio_read(done))                      # never started
        refused(lambda: aio_write(done))
        refused(lambda: aio_fsync(os.O_SYNC, done))
        refused(lambda: aio_cancel(r))
        refused(lambda: lio_listio(LIO_WAIT, [running]))
        assert "another process" in repr(running), repr(running)
        running.buf.append(1)                                # nobody here writes into it
        assert in_progress() == 0
        globals().pop("queued")                              # no warning, no call
        gc.collect()
        child(lambda: refused(lambda: aio_error(running)))   # a grandchild
    child(act)
    os.write(w, b"xy")                                       # the parent is as it was
    aio_suspend([running]), aio_suspend([queued])
    print(aio_return(running), aio_return(queued))
    """
    )
    assert out.splitlines() == ["refused"] * 16 + ["1 1"]


def test_forks_while_threads_are_at_it(fresh: Fresh) -> None:
    # The C library's lock is held at many a fork: a child that took it would hang in its first call.
    out = fresh(
        CHILD
        + """
    r, w = os.pipe()
    os.write(w, b"x" * 60000)
    over = threading.Event()
    begun = threading.Barrier(3)                 # a child of a process that never used it may use it
    def busy():
        fd = os.dup(r)
        block = Aiocb(fd, bytearray(1))
        aio_read(block)
        aio_suspend([block])
        begun.wait()
        while not over.is_set():
            aio_read(block)
            aio_cancel(fd, block)
            aio_suspend([block])
            if aio_error(block) == 0:
                os.write(w, b"x")            # back again
    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    try:
        for _ in range(rounds):
            pid = os.fork()
            if pid == 0:
                try:
                    aio_cancel(r)
                except errors.EngineUnavailable:
                    os._exit(0)
                os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        over.set()                               # else what fails would wait for them
    for thread in threads:
        thread.join()
    print(in_progress())
    """
    )
    assert out == "0\n"


def test_aio_init_in_a_forked_child(fresh: Fresh, glibc: bool) -> None:
    out = fresh(
        CHILD
        + """
    aio_cancel(0)
    child(lambda: refused(lambda: aio_init()) if GLIBC else print("refused"))
    """.replace("GLIBC", str(glibc))
    )
    assert out == "refused\n"


def test_a_forked_child_may_use_it_first(fresh: Fresh) -> None:
    out = fresh(
        CHILD
        + """
    r, w = os.pipe()
    block = Aiocb(r, bytearray(1))
    def act():
        os.write(w, b"x")
        aio_read(block)
        aio_suspend([block])
        print(aio_return(block))
    child(act)
    act()                                                    # and so may the parent, afterwards
    """
    )
    assert out.split() == ["1", "1"]


def test_a_child_forked_by_c_code(fresh: Fresh) -> None:
    out = fresh("""
        libc = ctypes.PyDLL(None)                            # Python's own fork hooks don't run
        r, w = os.pipe()
        block, other = Aiocb(r, bytearray(1)), Aiocb(r, bytearray(1))
        aio_read(block), aio_read(other)
        pid = libc.fork()
        if pid == 0:
            try:
                aio_error(block)
            except errors.EngineUnavailable:
                print("refused")
            del other
            gc.collect()
            print(in_progress())
            sys.exit()                                       # an orderly end, with what was inherited
        assert os.waitpid(pid, 0)[1] == 0
        os.write(w, b"xy")
        aio_suspend([block]), aio_suspend([other])
        print(aio_return(block))
    """)
    assert out.split() == ["refused", "0", "1"]


def test_notices_in_a_forked_child(fresh: Fresh) -> None:
    out = fresh(
        CHILD
        + """
    r, w = os.pipe()
    fd = os.eventfd(0)
    event = SigEvent.thread(fd)
    block = Aiocb(r, bytearray(1), sigevent=event)
    aio_read(block)
    def act():
        global event
        before = len(os.listdir("/proc/self/fd"))
        del event
        globals().pop("block")
        gc.collect()
        from iocancel.posix_aio import notify, ledger
        ledger._inherited.clear()
        gc.collect()
        print(before - len(os.listdir("/proc/self/fd")), notify.waiting())
    child(act)
    os.write(w, b"x")
    print(os.eventfd_read(fd))
    """
    )
    assert out.splitlines() == ["1 0", "1"]  # its duplicate is closed, though nothing will ever be told there
