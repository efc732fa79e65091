"""The wheel for musl, built and tried where the C library is glibc: by a Python for musl that is made for it.

No container and no Alpine: musl itself and what a Python takes (zlib, libffi, OpenSSL) are compiled from the
sources in Debian's archive, and Python with them. All of it lies in the cache, and is kept until one of the
sources has a new version. musl has the name there that it has in Alpine, which is what auditwheel knows.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from tools.kernels import fetch
from tools.wheel import roots, steps

if TYPE_CHECKING:
    import argparse

OUT = steps.OUT / "musl"
SUITE = "trixie"
# What Alpine's Python has too: threads of musl's would have 128 KiB.
STACK = "-DTHREAD_STACK_SIZE=0x100000"
# What nothing here wants of OpenSSL, which trio imports and pip fetches with.
LESS = """
    no-shared no-tests no-docs no-apps no-engine no-module no-legacy no-dso no-async no-quic no-dtls no-ct
    no-cms no-ts no-ocsp no-srp no-slh-dsa no-ml-dsa no-ml-kem
"""
# The sources, in the order to build them: what is run in each, unpacked. CC is musl's gcc from the second on.
RECIPES = {
    "musl": """
        LDFLAGS=-Wl,-soname,libc.musl-$MACHINE.so.1 ./configure --prefix="$PREFIX" --syslibdir="$PREFIX/lib"
        make $JOBS install
        for folder in linux asm-generic; do ln -s /usr/include/$folder "$PREFIX/include"; done
        ln -s "/usr/include/$(gcc -print-multiarch)/asm" "$PREFIX/include"
        # Python's configure asks whom it builds for; gcc itself would name glibc.
        printf '#!/bin/sh\\n[ "${1-}" != --print-multiarch ] || exit 0\\nexec "%s/bin/musl-gcc" "$@"\\n' \\
            "$PREFIX" >"$PREFIX/bin/cc"
        chmod +x "$PREFIX/bin/cc"
    """,
    "zlib": 'CFLAGS="-O2 -fPIC" ./configure --static --prefix="$PREFIX" && make $JOBS install',
    "libffi": """
        sed -i /LT_SYS_SYMBOL_USCORE/d configure.ac # which takes libltdl, and is not for Linux
        autoreconf -fi
        CFLAGS="-O2 -fPIC" ./configure --prefix="$PREFIX" --disable-shared --disable-docs
        make $JOBS install
    """,
    "openssl": f"""
        ./Configure linux-$MACHINE -O1 -fPIC --prefix="$PREFIX" --libdir=lib {" ".join(LESS.split())}
        make $JOBS build_generated
        make $JOBS libcrypto.a libssl.a
        make install_dev
    """,
    "python3.13": f"""
        export CPPFLAGS="-I$PREFIX/include" LDFLAGS="-L$PREFIX/lib" CFLAGS="-O1 {STACK}"
        PKG_CONFIG_LIBDIR="$PREFIX/lib/pkgconfig" ./configure \\
            --prefix="$PREFIX" --with-openssl="$PREFIX" --disable-test-modules
        make $JOBS
        make install
    """,
}


def configure() -> Path:
    """Return an apt configuration that knows the suite's sources."""
    configuration = fetch.configure(SUITE)
    listed = configuration.parent / "sources.list"
    archive, *_ = listed.read_text().splitlines()  # and not its updates
    listed.write_text(f"{archive}\ndeb-src{archive.removeprefix('deb')}\n")
    fetch.apt(configuration, "apt-get", "-qq", "update")
    return configuration


def python() -> Path:
    """Return the prefix of the kept Python for musl, made if it is not there or not of today's sources."""
    configuration = configure()
    source = ("source", "--download-only", "--tar-only", *RECIPES)
    with tempfile.TemporaryDirectory() as nothing:  # names and sums, of all that is not there
        listed = fetch.apt(configuration, "apt-get", "-qq", "--print-uris", *source, directory=Path(nothing))
    identity = hashlib.sha256(f"{listed}{RECIPES}".encode()).hexdigest()
    home = roots.cache().with_name("musl")
    stamp, prefix = home / "identity", home / "prefix"
    if stamp.exists() and stamp.read_text() == identity:
        return prefix
    steps.empty(home)
    (home / "sources").mkdir()
    fetch.apt(configuration, "apt-get", "-qq", *source, directory=home / "sources")
    for name in RECIPES:
        build(name, home, prefix)
    stamp.write_text(identity)
    return prefix


def build(name: str, home: Path, prefix: Path) -> None:
    """Unpack a source, and build it into the prefix."""
    print(f"wheel: musl: building {name}", flush=True)
    [archive] = (home / "sources").glob(f"{name}_*.orig.tar.?z")
    tree = steps.unpack(archive, home / "build")
    variables = {"PREFIX": str(prefix), "MACHINE": platform.machine(), "JOBS": f"-j{os.cpu_count()}"}
    if (cc := prefix / "bin/cc").exists():
        variables["CC"] = str(cc)
    log = home / f"{name}.log"
    with log.open("w") as output:
        done = subprocess.run(
            ["sh", "-euc", RECIPES[name]],
            cwd=tree,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        ending = "\n    ".join(log.read_text(errors="replace").splitlines()[-8:])
        raise roots.RootError(f"{name}: exit status {done.returncode}; {log} ends with:\n    {ending}")
    shutil.rmtree(home / "build")


def environment(prefix: Path, wanted: list[str]) -> Path:
    """Make an environment of the Python for musl, with what is wanted there; return its interpreter."""
    steps.run(prefix / "bin/python3", "-m", "venv", "--clear", OUT / "venv")
    interpreter = OUT / "venv/bin/python"
    steps.run(interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted)
    return interpreter


def main(options: argparse.Namespace, tree: Path, pytest: list[str]) -> int:
    """Build the wheel and try it; return the exit status."""
    began = time.monotonic()
    prefix, libraries = python(), OUT / "prefix"
    print(f"wheel: musl: {prefix} is there: {time.monotonic() - began:.0f} s", flush=True)
    tests = tomllib.loads((tree / "pyproject.toml").read_text())["dependency-groups"]["test"]
    OUT.mkdir(parents=True, exist_ok=True)
    interpreter = environment(prefix, ["build", *([] if options.no_tests else tests)])
    compiler = {"CC": str(prefix / "bin/cc")}
    wheel = options.wheel.resolve() if options.wheel else None
    if wheel is None:
        steps.dependencies(tree, libraries, compiler)
        built = steps.wheel(tree, OUT / "built", libraries, compiler, interpreter)
        wheel = steps.repair(tree, built, OUT / "wheel", libraries)
    status = 0
    if not options.build_only:
        steps.run(interpreter, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel)
        command = [str(tree / "tools/wheel/test.sh"), *(["--no-tests"] if options.no_tests else pytest)]
        path = f"{interpreter.parent}:{os.environ['PATH']}"
        variables = {**os.environ, "PATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        variables["IOCANCEL_LIBURING_INCLUDE"] = str(libraries / "include")  # for this Python's compiler
        status = subprocess.run(command, env=variables, check=False).returncode
    print(f"{wheel}: {wheel.stat().st_size} bytes")
    return status
