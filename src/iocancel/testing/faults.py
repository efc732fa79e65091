"""What goes wrong in a test, and who could still save it."""

from __future__ import annotations

import threading


class ScriptError(AssertionError):
    """A script asked for what no kernel does, or the engine did what no kernel allows."""


class Deadlock(AssertionError):
    """A wait that nothing can end: raised where a real engine would hang."""


def alone() -> bool:
    """Whether no other thread can wake this one. pytest-timeout's watchdog only ever ends the test."""
    me = threading.current_thread()
    return all(thread is me or thread.name.startswith("pytest_timeout ") for thread in threading.enumerate())
