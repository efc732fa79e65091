"""The GIL, on which much rests: free-threaded CPython turns it on, or the import fails (csrc/gil.h)."""

from __future__ import annotations

import os
import subprocess
import sysconfig

import pytest

from .support import need, python

ON = "import sys\nprint(getattr(sys, '_is_gil_enabled', lambda: True)())\n"


def anew(source: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a program in an interpreter that was told nothing of the GIL, but by this."""
    told = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    return python(source, *options, environment={**told, **variables})


def test_it_is_on() -> None:
    done = anew("import iocancel._native\n" + ON)
    assert done.stdout == "True\n", done.stderr


def test_it_is_free_threaded_python_that_says_so() -> None:
    need(sysconfig.get_config_var("Py_GIL_DISABLED"), "it is about free-threaded Python")
    assert anew(ON).stdout == "False\n", "what the first test sees is the import's doing"
    assert (
        "RuntimeWarning: The global interpreter lock (GIL) has been enabled"
        in anew("import iocancel._native").stderr
    )
    assert anew("import iocancel._native", "-W", "error", PYTHON_GIL="1").stderr == ""


@pytest.mark.parametrize("way", ["PYTHON_GIL", "-X"])
def test_no_import_without_it(way: str) -> None:
    need(sysconfig.get_config_var("Py_GIL_DISABLED"), "it is about free-threaded Python")
    source = "import iocancel\niocancel.sleep(0)"
    done = anew(source, PYTHON_GIL="0") if way == "PYTHON_GIL" else anew(source, "-X", "gil=0")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: iocancel needs the GIL, and this interpreter was told to leave it off:"
        " run it without PYTHON_GIL=0 and -X gil=0"
    )
