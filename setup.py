"""Builds the extension; everything else is in pyproject.toml."""

import sys
import sysconfig

from setuptools import setup

if sys.implementation.name != "cpython":
    raise SystemExit(f"iocancel: it is for CPython, not {sys.implementation.name}: docs/install.md says why")
# The stable ABI, which free-threaded CPython 3.14 does not have.
ABI = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}}

setup(cffi_modules=["build_ffi.py:ffi"], options=ABI)
