"""Builds the extension; everything else is in pyproject.toml."""

import sysconfig

from setuptools import setup

# The stable ABI, which free-threaded CPython 3.14 does not have.
ABI = {} if sysconfig.get_config_var("Py_GIL_DISABLED") else {"bdist_wheel": {"py_limited_api": "cp311"}}

setup(cffi_modules=["build_ffi.py:ffi"], options=ABI)
