"""Each request's 64 bytes, compared with what liburing's own function of that name makes of them.

A C program is compiled here against the installed header; for each case it is told the addresses that
the entry holds, calls liburing's function, and prints the bytes. What the addresses point to, and that
it is pinned, is checked here. A function that the header lacks is a skip of its case.

Environment: IOCANCEL_LIBURING_INCLUDE names another directory with liburing.h; CC, CFLAGS as usual.
"""

import os
import re
import shlex
import shutil
import socket
import struct
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from iocancel._native import ffi, lib
from iocancel.uring import Sqe

from .helpers import FakeRing
from .prep_cases import CASES, USER_DATA, Case, Memory

# Of what the header has, this is not offered: sqe.py says why.
LEFT_OUT = {"rw", "uring_cmd", "uring_cmd128", "nop128"}


PROGRAM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#define ADDR ((void *)(uintptr_t)v[0])
#define OFF ((void *)(uintptr_t)v[1])
#define ADDR3 ((void *)(uintptr_t)v[2])

int main(int argc, char **argv)
{
	struct io_uring_sqe entry, *sqe = &entry;
	unsigned long long v[3] = { 0 };

	memset(sqe, 0, sizeof(*sqe));
	for (int i = 0; i < 3 && i + 2 < argc; i++)
		v[i] = strtoull(argv[i + 2], NULL, 0);
	(void)v;
	switch (atoi(argv[1])) {
@CASES@
	default:
		return 1;
	}
	for (unsigned i = 0; i < sizeof(*sqe); i++)
		printf("%02x", ((unsigned char *)sqe)[i]);
	return 0;
}
"""


class Liburing:
    """The C program, and the cases that it lacks."""

    def __init__(self, folder: Path) -> None:
        command = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
        self.compiler = [c for c in command if not c.startswith("-")][:1]
        if shutil.which(self.compiler[0]) is None:
            pytest.skip(f"no C compiler ({self.compiler[0]})")
        include = os.environ.get("IOCANCEL_LIBURING_INCLUDE")
        self.options = [
            *(["-isystem", include] if include else []),
            *shlex.split(os.environ.get("CFLAGS", "")),
        ]
        self.folder = folder
        header = self._run("-E", "-dM", "-include", "liburing.h", "-x", "c", os.devnull)
        if header.returncode:
            pytest.skip("no liburing.h that compiles")
        number = dict(re.findall(r"#define IO_URING_VERSION_(MAJOR|MINOR) (\d+)", header.stdout))
        self.version = int(number.get("MAJOR", 2)), int(number.get("MINOR", 2))
        self.missing: set[int] = set()
        # A compiler complains of a missing function once, whatever calls it again.
        while found := self._lacking():
            self.missing |= found
        complaints = self._compile("-o", "entries")
        assert (folder / "entries").exists(), complaints

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C"}
        return subprocess.run(
            [*self.compiler, *self.options, "-D_GNU_SOURCE", *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    def _compile(self, *options: str) -> str:
        lines = []
        for number, case in enumerate(CASES):
            if number not in self.missing:  # the compiler names this line where the header lacks it
                lines += [
                    f"\tcase {number}:",
                    f'#line 1 "CASE_{number}"',
                    f"\t\tio_uring_prep_{case.c}; break;",
                ]
        (self.folder / "entries.c").write_text(PROGRAM.replace("@CASES@", "\n".join(lines)))
        return self._run("-Werror=implicit-function-declaration", "entries.c", *options).stderr

    def _lacking(self) -> set[int]:
        complaints = self._compile("-fsyntax-only", "-fmax-errors=0")
        return {int(n) for n in re.findall(r"CASE_(\d+):1:.*error:", complaints)}

    def entry(self, number: int, *addresses: int) -> bytes:
        done = subprocess.run(
            [self.folder / "entries", str(number), *map(str, addresses)], capture_output=True, check=True
        )
        return bytes.fromhex(done.stdout.decode())

    def functions(self) -> set[str]:
        """The names of all that prepare, less their prefix."""
        text = self._run("-E", "-include", "liburing.h", "-x", "c", os.devnull).stdout
        return set(re.findall(r"\bio_uring_prep_(\w+)\s*\(\s*struct io_uring_sqe\b", text)) | set(
            re.findall(r"\bio_uring_prep_(rw)\b", text)
        )


@pytest.fixture(scope="module")
def liburing(tmp_path_factory: pytest.TempPathFactory) -> Liburing:
    return Liburing(tmp_path_factory.mktemp("liburing"))


@pytest.fixture
def sqe() -> Any:
    return Sqe(FakeRing())  # type: ignore[arg-type]


FIELDS = {"OFF": 8, "ADDR": 16, "ADDR3": 48}


@pytest.mark.parametrize(
    ("number", "case"), list(enumerate(CASES)), ids=[f"{case.name}-{n}" for n, case in enumerate(CASES)]
)
def test_the_bytes_are_liburing_s(liburing: Liburing, sqe: Any, number: int, case: Case) -> None:
    if number in liburing.missing:
        pytest.skip(f"liburing {liburing.version} has no io_uring_prep_{case.name}, or not this form of it")
    if liburing.version < case.since:
        pytest.skip(f"liburing {liburing.version} did it otherwise, before {case.since}")
    memory = Memory()
    sqe.user_data = USER_DATA
    case.prepare(sqe, memory)
    ours = bytes(sqe._bytes)
    held = {name: struct.unpack_from("=Q", ours, at)[0] for name, at in FIELDS.items()}
    theirs = bytearray(liburing.entry(number, held["ADDR"], held["OFF"], held["ADDR3"]))
    struct.pack_into("=Q", theirs, 32, USER_DATA)
    assert ours == theirs, f"ours   {ours.hex(' ', 4)}\ntheirs {theirs.hex(' ', 4)}"
    # Every address in it is the start of something pinned, and has there what it should.
    pinned = {int(ffi.cast("uintptr_t", pin)) for pin in sqe._pins if isinstance(pin, ffi.CData)}
    used = {name for name in FIELDS if re.search(rf"\b{name}\b", case.c)}
    assert {held[name] for name in used} <= pinned
    expected = case.there(memory)
    assert expected.keys() <= used
    for name, content in expected.items():
        assert bytes(ffi.buffer(ffi.cast("char *", held[name]), len(content))) == content


def test_every_request_is_compared() -> None:
    ours = {name.removeprefix("prep_") for name in dir(Sqe) if name.startswith("prep_")}
    assert ours == {case.name for case in CASES}


def test_nothing_is_left_out_silently(liburing: Liburing) -> None:
    if liburing.version > (2, 15):
        pytest.skip(f"liburing {liburing.version} is newer than what is wrapped")
    ours = {name.removeprefix("prep_") for name in dir(Sqe) if name.startswith("prep_")}
    assert liburing.functions() - ours <= LEFT_OUT


def test_a_new_request_replaces_the_old_and_keeps_what_is_the_user_s(sqe: Any) -> None:
    sqe.user_data, sqe.data, sqe.personality = 7, "mine", 3
    sqe.flags = lib.IOSQE_ASYNC
    sqe.prep_read(1, None, nbytes=5, buf_group=9)
    assert sqe.flags == lib.IOSQE_ASYNC | lib.IOSQE_BUFFER_SELECT
    sqe.prep_statx(None, "x", 0, 0, bytearray(256))
    pins = sqe._pins
    sqe.prep_nop()
    assert pins
    assert sqe._pins == ()
    assert (sqe.user_data, sqe.data, sqe.personality, sqe.flags) == (7, "mine", 3, lib.IOSQE_ASYNC)
    fresh = Sqe(FakeRing())  # type: ignore[arg-type]
    fresh.user_data, fresh.flags, fresh.personality = 7, lib.IOSQE_ASYNC, 3
    assert sqe._bytes == fresh._bytes


def test_a_pinned_buffer_can_t_be_resized(sqe: Any) -> None:
    buffer = bytearray(16)
    sqe.prep_read(0, buffer)
    with pytest.raises(BufferError):
        buffer.append(1)
    sqe.prep_nop()
    buffer.append(1)


def test_a_file_object_is_kept(sqe: Any) -> None:
    with socket.socket() as sock:
        sqe.prep_poll_add(sock, 1)
        assert sock in sqe._pins
        sqe.prep_splice(sock, -1, sock, -1, 1)
        assert sqe._pins == (sock, sock)
