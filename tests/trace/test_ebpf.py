"""What cancels aim at, read by eBPF on this machine's kernel, as root, from requests that are really made."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from iocancel._native import lib
from iocancel.trace import ebpf, libbpf, program
from iocancel.trace.ebpf import Request, Requests, available
from iocancel.trace.libbpf import Btf, Member, Missing
from iocancel.trace.tracefs import Instance
from iocancel.uring import CancelFlags, Opcode, PollFlags, Ring, Sqe, cancel_flags

from ..support import (
    BOUND,
    compiled,
    few,
    leaving_nothing,
    need,
    need_uring,
    not_measured,
    python,
    until,
)

NAME = 0x1234_5678_9ABC_DEF0
EVENTS = [f"io_uring/{name}" for name in ebpf.EVENTS]


@pytest.fixture(scope="session")
def works() -> None:
    """What the library finds out by cancelling is found out before, and does not come in between."""
    need_uring()
    cancel_flags()
    reason = available()
    need(reason is None, f"no eBPF here: {reason}")


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    libbpf.load.cache_clear()
    with leaving_nothing():
        yield


@pytest.fixture
def requests(works: None) -> Iterator[Requests]:
    with Requests(room=1 << 19) as requests:
        yield requests


@pytest.fixture
def ring(pipe: tuple[int, int]) -> Iterator[Ring]:
    """A ring; its first registered file is a pipe's."""
    with Ring(64) as ring:
        ring.register_files([pipe[0]])
        yield ring


@pytest.fixture
def btf(works: None) -> Iterator[Btf]:
    with Btf() as btf:
        yield btf


def ours(requests: Requests) -> list[Request]:
    """What this thread has asked for: others cancel on this machine, too."""
    return [each for each in requests.read() if each.tid == threading.get_native_id()]


def did(ring: Ring, *fill: Callable[[Sqe], None]) -> list[int]:
    """Submit requests, named NAME and so on, and take their answers in the order of their names."""
    for number, each in enumerate(fill):
        sqe = ring.get_sqe()
        each(sqe)
        sqe.user_data = NAME + number
    ring.submit_and_wait(len(fill), timeout=BOUND)
    return [cqe.res for cqe in sorted(ring.peek(), key=lambda cqe: cqe.user_data)]


ALL, ANY, FD, OP = CancelFlags.ALL, CancelFlags.ANY, CancelFlags.FD, CancelFlags.OP
FIXED, USERDATA = CancelFlags.FD_FIXED, CancelFlags.USERDATA
KEY = (1 << 64) - 2

# How it is asked for, by a ring and an fd, and what is to be read: key, fd, flags, only. -1: that fd.
CANCELS: dict[str, tuple[Callable[[Sqe, int], None], tuple[int | None, int | None, int, int | None]]] = {
    "user_data": (lambda sqe, fd: sqe.prep_cancel64(KEY), (KEY, None, 0, None)),
    "all": (lambda sqe, fd: sqe.prep_cancel64(7, ALL), (7, None, ALL, None)),
    "any": (lambda sqe, fd: sqe.prep_cancel64(7, ANY), (None, None, ANY, None)),
    "any all": (lambda sqe, fd: sqe.prep_cancel64(0, ANY | ALL), (None, None, ANY | ALL, None)),
    "fd": (lambda sqe, fd: sqe.prep_cancel_fd(fd), (None, -1, FD, None)),
    "fd all": (lambda sqe, fd: sqe.prep_cancel_fd(fd, ALL), (None, -1, FD | ALL, None)),
    "fixed": (lambda sqe, fd: sqe.prep_cancel_fd(0, FIXED), (None, 0, FD | FIXED, None)),
    "op": (
        lambda sqe, fd: sqe.prep_cancel64(0, opcode=Opcode.ACCEPT),
        (None, None, OP, Opcode.ACCEPT),
    ),
    "userdata op": (
        lambda sqe, fd: sqe.prep_cancel64(KEY, USERDATA, opcode=Opcode.READ),
        (KEY, None, USERDATA | OP, Opcode.READ),
    ),
    "fd userdata op all": (
        lambda sqe, fd: sqe.prep_cancel_fd(fd, ALL, user_data=KEY, opcode=Opcode.POLL_ADD),
        (KEY, -1, FD | USERDATA | OP | ALL, Opcode.POLL_ADD),
    ),
}


@pytest.mark.parametrize("name", CANCELS)
def test_each_kind_of_cancel(requests: Requests, ring: Ring, pipe: tuple[int, int], name: str) -> None:
    """Every field; the rest of what the kernel has there is what an earlier request left, and not shown."""
    ask, expected = CANCELS[name]
    flags = CancelFlags(expected[2])
    need(not flags & (OP | USERDATA) or cancel_flags() & OP, "this kernel has no IORING_ASYNC_CANCEL_OP")
    before = [lambda sqe: sqe.prep_cancel_fd(pipe[1], ALL)] * 40  # leaves its fd wherever the next may be
    if cancel_flags() & OP:
        before = [lambda sqe: sqe.prep_cancel_fd(pipe[1], ALL, opcode=Opcode.FSYNC)] * 40
    did(ring, *before)
    assert len(ours(requests)) == 40
    did(ring, lambda sqe: ask(sqe, pipe[0]))
    [found] = ours(requests)
    key, fd, number, only = expected
    assert found[5:] == (Opcode.ASYNC_CANCEL, key, pipe[0] if fd == -1 else fd, number, only)
    assert (found.pid, found.tid, found.user_data) == (os.getpid(), threading.get_native_id(), NAME)
    assert found.req > 1 << 63  # an address of the kernel's


def test_a_cancel_that_finds_its_target(requests: Requests, ring: Ring, pipe: tuple[int, int]) -> None:
    """Also by what has been used before, and with a request in between that is no cancel."""
    sqe = ring.get_sqe()
    sqe.prep_poll_add(pipe[0], 1)
    sqe.user_data = KEY
    ring.submit()
    assert ours(requests) == []
    sqe = ring.get_sqe()
    sqe.prep_cancel64(KEY)
    sqe.user_data = NAME
    ring.submit_and_wait(2, timeout=BOUND)
    assert {cqe.user_data: cqe.res for cqe in ring.peek()} == {KEY: -errno.ECANCELED, NAME: 0}
    [found] = ours(requests)
    assert (found.user_data, found.key) == (NAME, KEY)


def test_timeouts_and_polls(requests: Requests, ring: Ring) -> None:
    update = PollFlags.UPDATE_EVENTS | PollFlags.UPDATE_USER_DATA
    did(
        ring,
        lambda sqe: sqe.prep_timeout_remove(KEY),
        lambda sqe: sqe.prep_timeout_update(5.0, KEY - 1),
        lambda sqe: sqe.prep_poll_remove(KEY - 2),
        lambda sqe: sqe.prep_poll_update(KEY - 3, 8, 1, update),
        lambda sqe: sqe.prep_poll_update(KEY - 4, 0, 4, PollFlags.UPDATE_EVENTS),
        lambda sqe: sqe.prep_nop(),
    )
    assert [each[4:] for each in ours(requests)] == [
        (NAME, Opcode.TIMEOUT_REMOVE, KEY, None, 0, None),
        (NAME + 1, Opcode.TIMEOUT_REMOVE, KEY - 1, None, lib.IORING_TIMEOUT_UPDATE, None),
        (NAME + 2, Opcode.POLL_REMOVE, KEY - 2, None, 0, None),
        (NAME + 3, Opcode.POLL_REMOVE, KEY - 3, None, update, None),
        (NAME + 4, Opcode.POLL_REMOVE, KEY - 4, None, PollFlags.UPDATE_EVENTS, None),
    ]


def watch(tracefs: Path) -> Instance:
    """The events of this thread's requests, and nobody else's."""
    mine = f"common_pid == {threading.get_native_id()}"
    there = [each for each in EVENTS if (tracefs / "events" / each).is_dir()]
    return Instance(there, tracefs=tracefs, filters=dict.fromkeys(there, mine))


def submitted(instance: Instance) -> list[tuple[int, int, int]]:
    """This thread's cancels by the events: time, address, user_data."""
    readers = {each.id: each.reader("req", "user_data", "opcode") for each in instance.formats}
    found = []
    for when, kind, raw in instance.finish().records:
        req, user_data, opcode = readers[kind](raw)
        if opcode == Opcode.ASYNC_CANCEL:
            found.append((when, req, user_data))
    return found


def test_each_event_finds_its_own(works: None, tracefs: Path, ring: Ring) -> None:
    """Addresses are used again and again, and names too: only the time tells."""
    many = few(2000)
    with watch(tracefs) as instance:
        did(ring, lambda sqe: sqe.prep_cancel64(1))  # its event is there before anything can belong to it
        with Requests(room=1 << 19) as requests:
            for number in range(many):
                did(ring, lambda sqe, key=number: sqe.prep_cancel64(key))  # type: ignore[misc]
            events = submitted(instance)
            assert instance.lost == 0
            requests.collect()
            found = [requests.find(*event) for event in events]
            assert requests.find(*events[-1]) is None  # each once
            assert requests.lost == 0
    assert found[0] is None
    assert [each.key for each in found[1:] if each is not None] == list(range(many))
    assert len({req for _, req, _ in events}) < many


def test_an_event_that_was_not_seen_takes_nothing_from_others(works: None, tracefs: Path, ring: Ring) -> None:
    with watch(tracefs) as instance, Requests(room=1 << 19) as requests:
        for number in range(100):
            did(ring, lambda sqe, key=number: sqe.prep_cancel64(key))  # type: ignore[misc]
        requests.collect()
        every = submitted(instance)
        found = [requests.find(*event) for event in every[1::3]]
        assert requests.find(every[-1][0] + 10**9, *every[-1][1:]) is None
    assert [each and each.key for each in found] == list(range(100))[1::3]


def test_what_is_lost_is_counted_and_never_guessed(works: None, tracefs: Path, ring: Ring) -> None:
    with watch(tracefs) as instance, Requests(room=8) as requests:
        for number in range(50):
            did(ring, lambda sqe, key=number: sqe.prep_cancel64(key))  # type: ignore[misc]
        requests.collect()
        found = [requests.find(*event) for event in submitted(instance)]
        lost = requests.lost
        # There is room again; but others may take it.
        until(lambda: did(ring, lambda sqe: sqe.prep_cancel64(1)) and ours(requests), "it is taken down")
    keys = [(at, each.key) for at, each in enumerate(found) if each is not None]
    assert all(at == key for at, key in keys)
    assert len(keys) <= 8
    assert lost >= 42


def test_a_burst_of_a_program_that_knows_nothing_of_us(works: None, tmp_path: Path) -> None:
    """Each of its cancels is read, or counted as lost; what is not a cancel is not there."""
    many = few(100_000)
    source = tmp_path / "burst.c"
    source.write_text(BURST)
    built = compiled("-O2", "-o", str(tmp_path / "burst"), str(source), "-luring")
    need(not built.returncode, f"no compiler, or no liburing: {built.stderr}")
    with Requests(room=few(60_000)) as requests:
        child = subprocess.Popen([str(tmp_path / "burst"), str(many)])
        pid, found = child.pid, []
        while child.poll() is None:
            found += [each for each in requests.read() if each.pid == pid]
        found += [each for each in requests.read() if each.pid == pid]
        lost = requests.lost
    assert child.returncode == 0
    keys = [each.key or 0 for each in found]
    assert keys == sorted(set(keys))
    assert {each.user_data - (each.key or 0) for each in found} == {5}
    assert 0 < len(found) <= many <= len(found) + lost


BURST = """
#include <liburing.h>
#include <stdlib.h>
int main(int count, char **words)
{
    struct io_uring ring;
    struct io_uring_cqe *cqe;
    int many = count > 1 ? atoi(words[1]) : 0;
    if (io_uring_queue_init(64, &ring, 0)) return 1;
    for (int i = 0; i < many; i++) {
        struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
        io_uring_prep_nop(sqe);
        sqe = io_uring_get_sqe(&ring);
        io_uring_prep_cancel64(sqe, i + 1, 0);
        sqe->user_data = i + 6;
        io_uring_submit_and_wait(&ring, 2);
        for (int k = 0; k < 2; k++) {
            if (io_uring_peek_cqe(&ring, &cqe)) return 2;
            io_uring_cqe_seen(&ring, cqe);
        }
    }
    return 0;
}
"""


def test_what_nobody_asks_for_does_not_pile_up(works: None, ring: Ring) -> None:
    with Requests(room=8) as requests:
        kept = []
        for _ in range(40):
            did(ring, lambda sqe: sqe.prep_cancel64(1))
            requests.collect()
            assert sum(map(len, requests._waiting.values())) == requests._many <= 4 * 8
            kept.append(requests._many)
        assert max(kept) > 0


# Where it can't be had


def test_without_privilege(works: None) -> None:
    code = "import os; from iocancel.trace.ebpf import available; os.setgid(65534); os.setuid(65534)"
    done = python(code + "; print(available())", environment=not_measured())
    assert done.stdout.startswith("eBPF takes root (CAP_BPF and CAP_PERFMON): "), done
    assert len(done.stdout.splitlines()) == 1


def test_without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise OSError("libbpf.so.1: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    reason = available()
    assert reason is not None
    assert "apt install libbpf1" in reason


def test_an_older_libbpf(works: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(libbpf._CALLS, "bpf_no_such_call", (None, []))
    reason = available()
    assert reason is not None
    assert "bpf_no_such_call" in reason


def test_a_program_that_the_kernel_does_not_take(works: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left of it: the fixture looks for fds."""
    monkeypatch.setattr(ebpf, "assemble", lambda *_: program._one(program.GO, offset=100))
    reason = available()
    assert reason is not None
    assert reason.startswith("this kernel does not take the eBPF program: ")


def test_a_kernel_without_types(works: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str, *__: object) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(libbpf, "made", nothing)
    reason = available()
    assert reason is not None
    assert "CONFIG_DEBUG_INFO_BTF" in reason


def test_what_libbpf_does_not_make(btf: Btf) -> None:
    with pytest.raises(OSError, match="btf__type_by_id") as caught:
        libbpf.made("btf__type_by_id", btf._btf, 2**31)
    assert caught.value.errno == errno.EINVAL


class Lacking:
    """A kernel's types, less some of its fields."""

    def __init__(self, real: Btf, lacks: set[str], arguments: dict[str, list[str]] | None = None) -> None:
        self.real, self.lacks, self.arguments = real, lacks, arguments

    def member(self, name: str, path: str) -> Member:
        if f"{name}.{path}" in self.lacks:
            raise Missing(f"no {path}")
        return self.real.member(name, path)

    def parameters(self, name: str) -> list[str]:
        assert self.arguments is not None
        if name not in self.arguments:
            raise Missing(f"no {name}")
        return self.arguments[name]


def test_a_field_that_the_kernel_lacks_is_unknown(requests: Requests, ring: Ring, btf: Btf) -> None:
    """Before 5.19 there were no flags, and before 6.6 no opcode to match."""
    took: Any = Lacking(btf, {"io_cancel.flags", "io_cancel.fd", "io_poll_update.update_events"})
    requests._head = ebpf._Head(took)
    did(ring, lambda sqe: sqe.prep_cancel64(KEY, ALL), lambda sqe: sqe.prep_poll_remove(5))
    assert [each[5:] for each in ours(requests)] == [
        (Opcode.ASYNC_CANCEL, KEY, None, None, None),
        (Opcode.POLL_REMOVE, 5, None, None, None),
    ]
    took = Lacking(btf, {"io_cancel.addr"})
    with pytest.raises(Missing, match="no addr"):
        ebpf._Head(took)


def test_where_it_is_called(btf: Btf) -> None:
    """By what the kernel says of the event's arguments; the first parameter of a probe is its own."""
    for arguments, expected in (
        ({"btf_trace_io_uring_submit_req": ["", "io_kiocb"]}, ("io_uring_submit_req", 0)),
        ({"btf_trace_io_uring_submit_sqe": ["", "io_ring_ctx", "io_kiocb", ""]}, ("io_uring_submit_sqe", 1)),
    ):
        took: Any = Lacking(btf, set(), arguments)
        assert ebpf._event(took) == expected
    took = Lacking(btf, set(), {"btf_trace_io_uring_submit_sqe": ["", "", ""]})
    with pytest.raises(Missing, match="at hand"):
        ebpf._event(took)
    with pytest.raises(Missing, match="CONFIG_IO_URING"):
        ebpf._event(Lacking(btf, set(), {}))  # type: ignore[arg-type]


def test_the_kernels_types(btf: Btf) -> None:
    """As the compiler has them, for a struct that is in its headers."""
    assert btf.member("io_uring_sqe", "fd") == Member(4, 4, signed=True)
    assert btf.member("io_uring_sqe", "cancel_flags") == Member(28, 4, signed=False)  # in a union
    assert btf.member("io_uring_sqe", "user_data") == Member(32, 8, signed=False)
    assert btf.member("pt_regs", "ip" if os.uname().machine == "x86_64" else "pc").size == 8
    with pytest.raises(Missing, match="no struct no_such"):
        btf.member("no_such", "field")
    with pytest.raises(Missing, match="no no_such in its struct io_uring_sqe"):
        btf.member("io_uring_sqe", "no_such")
    with pytest.raises(Missing, match=r"no fd\.more"):
        btf.member("io_uring_sqe", "fd.more")
    with pytest.raises(Missing, match="no btf_trace_no_such"):
        btf.parameters("btf_trace_no_such")
    with pytest.raises(Missing, match="not a function's"):
        btf.parameters("gfp_t")


def test_the_numbers_are_the_compilers(tmp_path: Path) -> None:
    names = {
        "BPF_MAP_TYPE_ARRAY": ebpf.MAP_TYPE_ARRAY,
        "BPF_MAP_TYPE_QUEUE": ebpf.MAP_TYPE_QUEUE,
        "BPF_PROG_TYPE_RAW_TRACEPOINT": ebpf.PROG_TYPE_RAW_TRACEPOINT,
        "BPF_PSEUDO_MAP_FD": program.PSEUDO_MAP_FD,
        "BPF_PSEUDO_MAP_VALUE": program.PSEUDO_MAP_VALUE,
        "BPF_FUNC_ktime_get_ns": program.KTIME_GET_NS,
        "BPF_FUNC_get_current_pid_tgid": program.GET_CURRENT_PID_TGID,
        "BPF_FUNC_map_push_elem": program.MAP_PUSH_ELEM,
        "BPF_FUNC_probe_read_kernel": program.PROBE_READ_KERNEL,
        "BPF_LDX | BPF_MEM | BPF_B": program.LOAD_8,
        "BPF_LDX | BPF_MEM | BPF_DW": program.LOAD_64,
        "BPF_STX | BPF_MEM | BPF_DW": program.STORE_64,
        "BPF_STX | BPF_ATOMIC | BPF_DW": program.ADD_ATOMIC_64,
        "BPF_LD | BPF_IMM | BPF_DW": program.LOAD_WIDE,
        "BPF_ALU64 | BPF_ADD | BPF_K": program.ADD,
        "BPF_ALU64 | BPF_MOV | BPF_K": program.SET,
        "BPF_ALU64 | BPF_MOV | BPF_X": program.COPY,
        "BPF_JMP | BPF_JA": program.GO,
        "BPF_JMP | BPF_JEQ | BPF_K": program.IF_EQUAL,
        "BPF_JMP | BPF_CALL": program.CALL,
        "BPF_JMP | BPF_EXIT": program.EXIT,
        "BTF_KIND_INT": libbpf.KIND_INT,
        "BTF_KIND_PTR": libbpf.KIND_PTR,
        "BTF_KIND_STRUCT": libbpf.KIND_STRUCT,
        "BTF_KIND_UNION": libbpf.KIND_UNION,
        "BTF_KIND_TYPEDEF": libbpf.KIND_TYPEDEF,
        "BTF_KIND_FUNC_PROTO": libbpf.KIND_FUNC_PROTO,
    }
    lines = [f'_Static_assert(({text}) == {number}, "{text}");' for text, number in names.items()]
    source = tmp_path / "numbers.c"
    source.write_text("\n".join(["#include <linux/bpf.h>", "#include <linux/btf.h>", *lines, ""]))
    done = compiled("-fsyntax-only", str(source))
    need("No such file" not in done.stderr, "no <linux/bpf.h>")
    assert done.returncode == 0, done.stderr
