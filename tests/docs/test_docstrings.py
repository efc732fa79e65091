"""Public names: each is described once, and its docstring says what every argument is.

An argument is described where `Args:` or `Attributes:` has it; in the first paragraph, by its name; by what
the docstring refers to ("as for `read`", "otherwise as `readv`"); or by its class, for what many methods
take.
A method that overrides one of Python's own (io, socket) takes what that takes.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.docs.public import PUBLIC

API = Path(__file__).parents[2] / "docs" / "api"
# Made by others: what their constructors take is nobody's affair.
MADE = {
    "FdOperation",
    "Held",
    "Latency",
    "Multishot",
    "Operation",
    "Released",
    "Sqe",
    "Stats",
    "Sweep",
    "TracingUnavailable",
    "CanaryDied",
}
_FIELD = re.compile(r"^ *(?:- )?((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*)(?: \([^)]*\))?: ", re.MULTILINE)
_LIKE = re.compile(
    r"(?:[Aa]s(?: for)?|[Oo]therwise as|[Ss]ee) `([\w.]+)|"
    r"`([\w.]+)(?:\(\))?`,? (?:for|of|with|into|from|by)\b"
)


def own(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("iocancel")


def public() -> Iterator[tuple[str, Any]]:
    """Each public object once, and where it is."""
    seen: set[int] = set()
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            value = getattr(module, name)
            if id(value) not in seen and own(value) and not inspect.ismodule(value):
                seen.add(id(value))
                yield f"{module.__name__}.{name}", value


def members(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties of a class, its bases' of ours too."""
    found: set[str] = set()
    for base in kind.__mro__:
        for name, value in vars(base).items() if own(base) else ():
            if name.startswith("_") or name in found:
                continue
            found.add(name)
            if isinstance(value, property):
                yield name, value.fget
            elif inspect.isfunction(getattr(value, "__func__", value)):
                yield name, getattr(value, "__func__", value)


def everything() -> Iterator[tuple[str, Any, type | None]]:
    for name, value in public():
        yield name, value, None
        if inspect.isclass(value):
            for member, function in members(value):
                yield f"{name}.{member}", function, value


def parameters(value: Any) -> list[str]:
    """What a caller may give."""
    if inspect.isclass(value) and (
        issubclass(value, enum.Enum) or getattr(value, "_is_protocol", False) or value.__name__ in MADE
    ):
        return []
    try:
        found = inspect.signature(value).parameters
    except (TypeError, ValueError):
        return []
    return [name for name in found if name not in ("self", "cls") and not name.startswith("_")]


def described(value: Any, kind: type | None, depth: int = 3) -> set[str]:
    """The names that a docstring, and what it refers to, describe."""
    docs = [inspect.getdoc(value) or ""]
    if inspect.isclass(value):
        docs += [base.__doc__ or "" for base in value.__mro__ if own(base)]
    elif kind is not None:
        docs += [base.__doc__ or "" for base in kind.__mro__ if own(base)]
    found: set[str] = set()
    for doc in docs:
        for names in _FIELD.findall(doc):
            found.update(name.strip("* ") for name in names.split(","))
    for doc in docs[1:]:
        found.update(re.findall(r"`(\w+)`", doc))
    found.update(re.findall(r"\w+", docs[0].partition("\n\n")[0]))
    for pair in _LIKE.findall(docs[0]) if depth else ():
        other = look_up(pair[0] or pair[1], value, kind)
        if other is not None and other is not value:
            found |= described(other, kind, depth - 1)
    return found


def look_up(name: str, value: Any, kind: type | None) -> Any:
    """What a name in a docstring stands for."""
    first, *rest = name.split(".")
    module = importlib.import_module(value.__module__)
    places: list[Any] = [
        kind,
        module,
        importlib.import_module("iocancel"),
        importlib.import_module("iocancel.operation"),
    ]
    for place in places:
        found = getattr(place, first, None)
        for part in rest:
            found = getattr(found, part, None)
        if found is not None:
            return getattr(found, "__func__", found)
    return None


def of_pythons_own(name: str, kind: type | None) -> bool:
    """Whether a method is one that Python's own classes have as well."""
    last = name.rpartition(".")[2]
    return kind is not None and any(hasattr(base, last) for base in kind.__mro__ if not own(base))


def test_everything_has_a_docstring() -> None:
    lacking = [name for name, value, _ in everything() if not inspect.getdoc(value)]
    assert lacking == []


def test_every_argument_is_described() -> None:
    lacking = []
    for name, value, kind in everything():
        if not callable(value) or of_pythons_own(name, kind):
            continue
        missing = [each for each in parameters(value) if each not in described(value, kind)]
        if missing:
            lacking.append(f"{name}: {', '.join(missing)}")
    assert lacking == []


def documented() -> list[str]:
    """The names that the pages of the API describe."""
    found = []
    for page in API.glob("*.md"):
        module = ""
        for line in page.read_text().splitlines():
            words = line.split()
            if words[:2] == ["..", "currentmodule::"]:
                module = words[2]
            elif words[:1] == [".."] and re.fullmatch(r"auto(function|class|exception|data)::", words[1]):
                found.append(f"{module}.{words[2].removesuffix('()')}")
    return found


def test_each_is_on_one_page() -> None:
    names = documented()
    assert sorted(set(names)) == sorted(names), "described twice"
    described_ids = {}
    for name in names:
        module, _, last = name.rpartition(".")
        described_ids[id(getattr(importlib.import_module(module), last))] = name
    missing = [name for name, value in public() if id(value) not in described_ids]
    # Flags under their C names, which their enumeration describes.
    missing = [name for name in missing if not re.search(r"\.(IORING|AIO|LIO|SIGEV)_[A-Z_]+$", name)]
    assert missing == []


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_every_verb_of_a_world_is_on_its_page(name: str) -> None:
    module = importlib.import_module(f"iocancel.{name}")
    assert {f"iocancel.{name}.{each}" for each in module.__all__} <= set(documented())


# That the tests above can fail


def sound(one: int, two: int) -> None:
    """Something with `one`.

    Args:
        two: the other, in seconds.
    """


def lacking(one: int, two: int) -> None:
    """Something, otherwise as `nowhere`.

    Raises:
        OSError: nothing of `two`.
    """


def test_what_is_not_described_is_found() -> None:
    assert described(sound, None) >= {"one", "two"}
    assert not described(lacking, None) >= {"one", "two"}, "there is no such name in iocancel"
    assert parameters(sound) == ["one", "two"]
