"""Whether the site has all that users can call: a base that Sphinx leaves out takes its methods along."""

from __future__ import annotations

import importlib
import inspect
import zlib
from pathlib import Path
from typing import Any

from iocancel.awaiting import Verbs
from tools.docs.public import PUBLIC

__all__ = ["described", "members", "missing"]

# What streams raise in each world is on the page of errors.
NOT_FOR_USERS = {"broken_type", "busy_type", "closed_type"}


def described(site: Path) -> set[str]:
    """Return the names that a built site describes, from its inventory (objects.inv)."""
    data = (site / "objects.inv").read_bytes()
    _, _, _, _, rest = data.split(b"\n", 4)
    lines = zlib.decompress(rest).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines if " py:" in line}


def members(kind: type) -> set[str]:
    """Return the public methods and properties that a class has of ours."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        ours = base.__module__.startswith("iocancel")
        for name, value in vars(base).items():
            if name.startswith("_"):
                continue
            if ours and (
                inspect.isroutine(value) or isinstance(value, (property, staticmethod, classmethod))
            ):
                found[name] = value
            else:
                found.pop(name, None)
    return set(found) - NOT_FOR_USERS


def missing(known: set[str]) -> list[str]:
    """Return what a user may call and no page describes.

    Args:
        known: the names that the site describes.
    """
    names: dict[type, list[str]] = {}  # a class may be had from several modules
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            if inspect.isclass(kind := getattr(module, name)):
                names.setdefault(kind, []).append(f"{module.__name__}.{name}")
    faults = []
    for kind, own in names.items():
        # With the class, or with a base that is described itself; an adapter's are functions of its world.
        under = [name for base in kind.__mro__ for name in names.get(base, ())]
        under += ["iocancel.asyncio"] if kind is Verbs else []
        faults += [
            f"{own[0]}.{member} is on no page"
            for member in sorted(members(kind))
            if not known.intersection(f"{name}.{member}" for name in under)
        ]
    return faults
