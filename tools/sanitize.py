"""`./dev sanitize`: the tests with the extension built for sanitizers, and the leak tests under valgrind.

Each build goes to a directory of its own, which comes first on PYTHONPATH: the one in src/ stays as it is.
ASan is not asked for leaks, because it lists those of the interpreter with ours, and they can only be told
apart by suppressing every stack that the interpreter is in, which is every stack. valgrind's list has the
library of each frame, so that ours are those with the extension in their stack.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "sanitize"
COMPILER = os.environ.get("CC", "cc")
# An error ends the process, so that none goes by unseen.
SANITIZE = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g -O1"
NOTHING_SELECTED = 5  # pytest's exit status


def build(name: str, flags: str) -> Path:
    """Build the package with these compiler flags; return the directory to import it from."""
    directory = OUT / name
    shutil.rmtree(directory, ignore_errors=True)
    where = ["--build-lib", f"{directory}/lib", "--build-temp", f"{directory}/temp"]
    flags = f"{os.environ.get('CFLAGS', '')} {flags}".strip()
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(directory), *where]
    environment = {**os.environ, "CC": COMPILER, "CFLAGS": flags, "LDFLAGS": flags}
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    return directory / "lib"


def environment(library: Path, tool: str) -> dict[str, str]:
    """Return what every run has; tests may look at IOCANCEL_SANITIZE, to allow for a slow one."""
    return {
        **os.environ,
        "PYTHONPATH": str(library),
        # The interpreter's own allocator hides small blocks from both tools.
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
        "IOCANCEL_SANITIZE": tool,
    }


def check_import(library: Path, variables: dict[str, str], *before: str) -> None:
    """Make sure that the tests will import this build, not the one in src/."""
    code = "import iocancel._native as n; print(n.__file__)"
    command = [*before, sys.executable, "-c", code]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if str(library) not in done.stdout:
        raise SystemExit(f"sanitize: imported is not the build in {library}:\n{done.stdout}{done.stderr}")


def asan(pytest: list[str]) -> list[str]:
    """Run the tests under AddressSanitizer and UndefinedBehaviorSanitizer; return what is wrong."""
    runtime = printed(COMPILER, "-print-file-name=libasan.so")
    if not Path(runtime).is_absolute():
        raise SystemExit(
            f"sanitize: {COMPILER} has no libasan.so: take gcc on a glibc system, and its libasan"
        )
    library = build("asan", SANITIZE)
    logs = OUT / "asan" / "logs"
    logs.mkdir()
    # A test may ask for more memory than there is: that must fail as it does without ASan.
    options = f"detect_leaks=0:allocator_may_return_null=1:handle_segv=2:print_legend=0:log_path={logs}/asan"
    variables = {
        **environment(library, "asan"),
        "LD_PRELOAD": os.path.realpath(runtime),
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    check_import(library, variables)
    # UBSan writes to stderr (beside ASan it takes no log_path), which pytest must not swallow.
    ours = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=sys"]
    command = [sys.executable, "-m", "pytest", *ours, *pytest]
    status = subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode
    # Also what a child of a test died of, which the test may not have minded.
    wrong = [text for log in sorted(logs.iterdir()) if is_error(text := log.read_text(errors="replace"))]
    if status:
        wrong.append(f"pytest ended with {status} under ASan and UBSan")
    return wrong


def is_error(text: str) -> bool:
    """Tell an error from a warning (of a refused allocation, say)."""
    return "ERROR: AddressSanitizer" in text or "runtime error:" in text


def leaks(pytest: list[str]) -> list[str]:
    """Run the tests that are marked `leak` under valgrind; return what is wrong."""
    library = build("valgrind", "-g -O1")
    logs = OUT / "valgrind" / "logs"
    logs.mkdir()
    variables = environment(library, "valgrind")
    check_import(library, variables)
    valgrind = ["valgrind", "-q", "--leak-check=full", "--show-leak-kinds=definite"]
    # It does not see what the kernel writes into a ring, and would call all of it undefined.
    valgrind += ["--undef-value-errors=no", "--num-callers=40", "--error-limit=no", "--fair-sched=yes"]
    valgrind += ["--child-silent-after-fork=yes", "--xml=yes", f"--xml-file={logs}/%p.xml"]
    command = [*valgrind, sys.executable, "-m", "pytest", "-m", "leak", "-p", "no:cacheprovider", *pytest]
    status = subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode
    wrong = [problem for log in sorted(logs.glob("*.xml")) for problem in problems(log)]
    if status and not (status == NOTHING_SELECTED and pytest):
        wrong.append(f"pytest ended with {status} under valgrind")
    return wrong


def problems(log: Path) -> list[str]:
    """Return the errors in valgrind's report, and the leaks in it that are ours."""
    try:
        root = ElementTree.parse(log).getroot()
    except ElementTree.ParseError as error:
        return [f"{log}: valgrind did not finish its report: {error}"]
    found = []
    for entry in root.iter("error"):
        # Of all its stacks: where it happened, and where the memory was taken and given back.
        frames = [
            (Path(each.findtext("obj") or "").name, each.findtext("fn") or "?")
            for each in entry.iter("frame")
        ]
        if is_ours(frames, leak=(entry.findtext("kind") or "").startswith("Leak_")):
            what = entry.findtext("what") or entry.findtext("xwhat/text") or ""
            stack = "".join(f"\n    {function} ({library})" for library, function in frames[:12])
            found.append(f"valgrind: {what}{stack}")
    return found


def is_ours(frames: list[tuple[str, str]], *, leak: bool) -> bool:
    """Tell by the (library, function) of its stacks whether an error is ours.

    Not ours: the C library's vector code reads past the end of the interpreter's strings, on purpose.
    """
    if leak:
        # What is made when a module is loaded lives as long as the process.
        loading = any(function.startswith("PyInit_") for _, function in frames)
        return not loading and any(library.startswith("_native") for library, _ in frames)
    libraries = ("_native", "_cffi_backend", "liburing", "libaio")
    return any(library.startswith(libraries) or "aio" in function for library, function in frames)


def printed(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main() -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="./dev sanitize", epilog="Other arguments go to pytest.")
    parser.add_argument("--only", choices=("asan", "leaks"), help="one of the two")
    options, pytest = parser.parse_known_args()
    wrong = []
    if options.only != "leaks":
        wrong += asan(pytest)
    if options.only != "asan":
        wrong += leaks(pytest)
    print("\n".join(wrong) if wrong else "sanitize: no error, no leak of ours")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
