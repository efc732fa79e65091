"""Have each of the kernels that the reference is about say what it does: `./dev docs --collect`.

Debian's run in qemu (see `tools.kernels`); this machine's own is asked directly.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from tools.docs import seen
from tools.kernels import boot, fetch

__all__ = ["DATA", "ROOT", "collect"]

ROOT = Path(__file__).parents[2]
DATA = ROOT / "docs" / "data" / "doctor"
LIMIT = 600.0  # seconds for each guest; an emulated one takes about one minute


def collect(wanted: list[str]) -> list[Path]:
    """Ask kernels, one after the other, and keep what they say.

    Args:
        wanted: series ("6.1"), and "here"; all of them when empty.

    Returns:
        The files that were written.
    """
    files = []
    for name in wanted or [*fetch.SUITES, "here"]:
        text = seen.written(seen.look()) if name == "here" else in_guest(name)
        file = DATA / f"{seen.series(json.loads(text)['kernel'])}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        print(f"docs: {file.relative_to(ROOT)}", flush=True)
        files.append(file)
    return files


def in_guest(name: str) -> str:
    """Boot a series' kernel, and return what it says."""
    known = fetch.find(name)
    variables = {
        "HOME": str(Path.home()),
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "TMPDIR": "/mnt/scratch",
    }
    exports = "".join(f"export {key}={shlex.quote(value)}\n" for key, value in variables.items())
    command = shlex.join([sys.executable, "-B", "-m", "tools.docs.seen"])
    script = f"cd {shlex.quote(str(ROOT))} || exit 126\n{exports}{command} >/run/report.xml\n"
    machine = boot.Machine(os.environ.get("IOCANCEL_ACCEL", "tcg"))
    done = boot.run(known, machine, script, LIMIT)
    if done.status != 0:
        tail = "\n".join((done.output + done.console).splitlines()[-15:])
        why = "did not answer in time" if done.status is None else f"ended with {done.status}"
        raise SystemExit(f"docs: the examination under {known.release} {why}:\n{tail}")
    return done.report.decode()


def here() -> str:
    """Return the series of the kernel that runs here."""
    return seen.series(platform.release())


def prepare() -> None:
    """Compile everything where it is fast: a guest sees it read-only, and is slow."""
    for directory in (ROOT / "src", ROOT / "tools", Path(sys.prefix)):
        subprocess.run([sys.executable, "-m", "compileall", "-qq", directory], check=False)
