"""Builds `iocancel._native`, out of line, against the headers of liburing and libaio.

What may be called is in `csrc/*.cdef.h`, the C behind it in `csrc/*.c`. A name that the installed
headers may lack is written `HAVE_name` in the shims: all of them are tried here in one compilation,
and those that compile are defined for the shims.

Environment: IOCANCEL_WERROR=1 makes warnings errors; CC, CFLAGS, CPPFLAGS and LDFLAGS are as usual.
"""

import os
import re
import shlex
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
PARTS = ("process", "wake", "uring", "libaio", "attempt", "ready", "posix_aio")
LIBRARIES = ["uring", "aio", "rt", "pthread"]
HEADERS = {
    "liburing.h": "liburing-dev (apt), liburing-devel (dnf), liburing-dev (apk)",
    "libaio.h": "libaio-dev (apt), libaio-devel (dnf), libaio-dev (apk)",
}
# cffi's own wrappers have a parameter each that they do not use.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]


def _words(name: str) -> list[str]:
    return shlex.split(os.environ.get(name, ""))


def _compile(source: str, *options: str) -> str:
    """The compiler's complaints about `source`, empty where there are none."""
    compiler = _words("CC") or shlex.split(sysconfig.get_config_var("CC") or "cc")[:1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "try.c")
        path.write_text(source)
        command = [*compiler, *_words("CPPFLAGS"), *_words("CFLAGS"), "-w", str(path), *options]
        try:
            done = subprocess.run(
                command, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, text=True
            )
        except FileNotFoundError:
            raise SystemExit(
                f"iocancel: no C compiler ({compiler[0]}): install gcc (apt, dnf), or gcc and musl-dev (apk)"
            ) from None
    return done.stderr if done.returncode else ""


def check_headers() -> None:
    """Ends the build with one line where a header or a library is missing."""
    for header, packages in HEADERS.items():
        if _compile(f"#include <stddef.h>\n#include <{header}>\n", "-fsyntax-only"):
            raise SystemExit(f"iocancel: {header} is missing or does not compile: install {packages}")


def available(names: list[str]) -> set[str]:
    """Which of `names` (constants, functions, struct types) the installed headers have."""
    lines = ["#define _GNU_SOURCE", "#include <liburing.h>", "#include <libaio.h>", "#include <aio.h>"]
    tries = [*names, "ioc_surely_missing"]
    for name in tries:
        # The compiler names this line, not its own guess of the culprit.
        operand = name.replace("struct_", "struct ", 1) if name.startswith("struct_") else f"({name})"
        lines += [f'#line 1 "TRY_{name}"', f"unsigned long try_{name}(void) {{ return sizeof({operand}); }}"]
    complaints = _compile("\n".join(lines) + "\n", "-fsyntax-only", "-fmax-errors=0")
    lacking = set(re.findall(r"TRY_(\w+):1", complaints))
    if "ioc_surely_missing" not in lacking or "io_uring_queue_exit" in lacking:
        raise SystemExit(f"iocancel: the C compiler's answer was not understood:\n{complaints}")
    return set(names) - lacking


def make() -> FFI:
    """The builder that cffi's setuptools hook, and tools/make_stub.py, ask for."""
    check_headers()
    shims = "".join(p.read_text() for p in sorted(CSRC.glob("*.[ch]")))
    wanted = sorted({"io_uring_queue_exit", *re.findall(r"\bHAVE_(\w+)", shims)})
    builder = FFI()
    for part in PARTS:
        builder.cdef((CSRC / f"{part}.cdef.h").read_text())
    builder.set_source(
        "iocancel._native",
        "".join(f'#include "{part}.h"\n' for part in ("gil", *PARTS)),
        sources=[os.path.relpath(path, ROOT) for path in sorted(CSRC.glob("*.c"))],
        depends=[os.path.relpath(p, ROOT) for p in sorted(CSRC.glob("*.h"))],
        libraries=LIBRARIES,
        define_macros=[("_GNU_SOURCE", None), *((f"HAVE_{n}", "1") for n in sorted(available(wanted)))],
        # -iquote: csrc/libaio.h has the system header's name, and must not be found in its place.
        extra_compile_args=[
            "-std=gnu11",
            "-iquote",
            os.path.relpath(CSRC, ROOT),
            *(WARNINGS if os.environ.get("IOCANCEL_WERROR") == "1" else []),
        ],
    )
    return builder


ffi = make()
