"""The eBPF program of `ebpf`, instruction by instruction, as the kernel takes it.

It is so small that a compiler would be more to keep than this: it copies the head of a request, looks at
the opcode in it, and puts what cancels into a queue. In C:

    struct record { u64 time, thread, req; u8 head[SIZE]; } r;
    r.req = ctx[ARGUMENT];
    bpf_probe_read_kernel(r.head, SIZE, r.req);
    if (r.head[OPCODE] is one of OPCODES) {
        r.time = bpf_ktime_get_ns();
        r.thread = bpf_get_current_pid_tgid();
        if (bpf_map_push_elem(&queue, &r, 0) != 0) __sync_fetch_and_add(&lost[0], 1);
    }
    return 0;

The instructions are in the kernel's Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable

# linux/bpf.h, as it has been since the program's parts came (the youngest: probe_read_kernel, Linux 5.5).
# A test compares these with the compiler's.
PSEUDO_MAP_FD, PSEUDO_MAP_VALUE = 1, 2
KTIME_GET_NS, GET_CURRENT_PID_TGID, MAP_PUSH_ELEM, PROBE_READ_KERNEL = 5, 14, 87, 113
LOAD_8, LOAD_64, STORE_64, ADD_ATOMIC_64, LOAD_WIDE = 0x71, 0x79, 0x7B, 0xDB, 0x18
ADD, SET, COPY, GO, IF_EQUAL, CALL, EXIT = 0x07, 0xB7, 0xBF, 0x05, 0x15, 0x85, 0x95

# A record: what is in front of the request's head.
TIME, THREAD, REQ, HEAD = 0, 8, 16, 24

# What a call returns, and its arguments; what calls leave alone; the end of the stack.
_R0, _R1, _R2, _R3, _R6, _STACK = 0, 1, 2, 3, 6, 10


def _one(code: int, to: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """struct bpf_insn. Its registers are bit fields, which go by the machine's byte order."""
    registers = source << 4 | to if sys.byteorder == "little" else to << 4 | source
    return struct.pack("=BBhi", code, registers, offset, value)


def _wide(to: int, kind: int, fd: int) -> bytes:
    """A map, or where its first value is, by the map's fd."""
    return _one(LOAD_WIDE, to, kind, 0, fd) + _one(0)


def assemble(argument: int, size: int, opcode: int, opcodes: Iterable[int], queue: int, lost: int) -> bytes:
    """The program.

    Args:
        argument: which one of the event's arguments is the request.
        size: how much of it to copy, in bytes, a multiple of 8.
        opcode: where in that its opcode is.
        opcodes: those to keep.
        queue: a queue's fd, whose records are `HEAD` + `size` bytes.
        lost: the fd of an array whose first value, of 64 bits, counts what the queue had no room for.
    """
    record = -(HEAD + size)  # on the stack, which grows down
    put = [
        _one(CALL, value=KTIME_GET_NS),
        _one(STORE_64, _STACK, _R0, record + TIME),
        _one(CALL, value=GET_CURRENT_PID_TGID),
        _one(STORE_64, _STACK, _R0, record + THREAD),
        _one(STORE_64, _STACK, _R6, record + REQ),
        _wide(_R1, PSEUDO_MAP_FD, queue),
        _one(COPY, _R2, _STACK),
        _one(ADD, _R2, value=record),
        _one(SET, _R3, value=0),
        _one(CALL, value=MAP_PUSH_ELEM),
        _one(IF_EQUAL, _R0, offset=4, value=0),  # over the four (one is two wide) below
        _wide(_R1, PSEUDO_MAP_VALUE, lost),
        _one(SET, _R2, value=1),
        _one(ADD_ATOMIC_64, _R1, _R2),
    ]
    end = [_one(SET, _R0, value=0), _one(EXIT)]
    wanted = sorted(opcodes)
    look = [
        # Each goes over those that are left and over the jump to the end, to `put`.
        _one(IF_EQUAL, _R1, offset=len(wanted) - number, value=each)
        for number, each in enumerate(wanted)
    ]
    body = b"".join(put)
    return b"".join(
        [
            _one(LOAD_64, _R6, _R1, 8 * argument),
            _one(COPY, _R1, _STACK),
            _one(ADD, _R1, value=record + HEAD),
            _one(SET, _R2, value=size),
            _one(COPY, _R3, _R6),
            _one(CALL, value=PROBE_READ_KERNEL),
            _one(LOAD_8, _R1, _STACK, record + HEAD + opcode),
            *look,
            _one(GO, offset=len(body) // 8),
            body,
            *end,
        ]
    )
