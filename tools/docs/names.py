"""A Sphinx extension: what a name in a docstring means.

Docstrings have a name in single backquotes, and annotations name classes by the module that defines them, not
by the one that users import them from. So a name that Sphinx does not find is looked up in the running
package: the object that it stands for is linked to where it is documented. What is Python's own, the
kernel's, or an argument's name is shown as code. A name of ours that is nowhere is a warning, and so an
error.
"""

from __future__ import annotations

import builtins
import importlib
import re
import sys
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

from docutils import nodes
from sphinx.util.nodes import make_refnode

from tools.docs.public import PUBLIC

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

PACKAGE = "iocancel"
# What annotations call by a name of their own; docs/api/index.md says what each stands for.
ALIASES = ("Fd", "File", "FileDescriptorLike", "HasFileno", "Path", "ReadableBuffer", "WriteableBuffer")
VARIABLES = ("T", "Ts")  # of types, in annotations that can't be evaluated without a type checker
# Auditing events have dotted names, too.
EVENTS = ("iocancel.cancel", "iocancel.close", "iocancel.open_engine")
# What annotations say, and what users know of it.
STANDS_FOR = {"Core": "iocancel.Engine", "iocancel.uring.core.RingCore": "iocancel.uring.Ring"}
_NOTHING = object()


def find(dotted: str) -> Any:
    """Return the object of this dotted name, importing what has to be; `_NOTHING` where there is none."""
    parts = dotted.split(".")
    if not all(part.isidentifier() for part in parts):
        return _NOTHING
    found: Any = _NOTHING
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        rest = parts[end:]
        break
    else:
        found, rest = builtins, parts
    for part in rest:
        try:
            found = getattr(found, part)
        except AttributeError:
            return _NOTHING
    return found


def spellings(target: str, module: str, cls: str) -> Iterator[str]:
    """Yield what a name may mean, where it stands."""
    if module and cls:
        yield f"{module}.{cls}.{target}"
    if module:
        yield f"{module}.{target}"
    yield f"{PACKAGE}.{target}"
    yield target


def has_attribute(owner: Any, name: str) -> bool:
    """Whether a class's docstring, or its annotations, tell of an attribute that has no entry of its own."""
    said = f"{getattr(owner, '__doc__', '')}"
    return (
        name in getattr(owner, "__annotations__", {})
        or re.search(rf"^ +(\w+, )*{re.escape(name)}(, \w+)*( \(.*\))?:", said, re.MULTILINE) is not None
    )


class Documented:
    """Where each object of the package is documented."""

    def __init__(self, env: BuildEnvironment) -> None:
        self.domain = env.domains.python_domain
        self.by_object: dict[int, str] = {}
        self.classes = {
            name.rpartition(".")[2]
            for name, entry in self.domain.objects.items()
            if entry.objtype in ("class", "exception")
        }
        self.kept: list[Any] = []  # an id is worth something while its object lives
        for name in self.domain.objects:
            found = find(name)
            if str(getattr(found, "__module__", "")).startswith(PACKAGE):
                self.by_object.setdefault(id(found), name)
                self.kept.append(found)

    def name_of(self, target: str) -> str | None:
        """Return the documented name of what a dotted name stands for."""
        if target in self.domain.objects:
            return target
        found = find(target)
        if found is _NOTHING:
            return None
        if id(found) in self.by_object:
            return self.by_object[id(found)]
        # A method or an attribute: of a class that is documented under another name.
        owner, dot, last = target.rpartition(".")
        if dot and owner:
            known = self.name_of(owner)
            if known and f"{known}.{last}" in self.domain.objects:
                return f"{known}.{last}"
            if known and has_attribute(find(owner), last):
                return known
        return None


def ours(target: str, known: Documented) -> bool:
    """Whether a name can only be one of ours, so that it has to be somewhere."""
    head, dot, _ = target.partition(".")
    return bool(dot) and (head == PACKAGE or head in known.classes)


def foreign(target: str) -> bool:
    """Whether it is a name of Python's own library, of trio's or of the type checkers'."""
    if target.rpartition(".")[2] in ALIASES or target in (*VARIABLES, *EVENTS):
        return True
    if target.partition(".")[0] in {"trio", "anyio", "_typeshed"}:
        return True
    found = find(target)
    if isinstance(found, (TypeVar, TypeVarTuple)):
        return True
    if found is _NOTHING:
        modules = ("typing", "collections.abc", "types")
        return any(find(f"{module}.{target}") is not _NOTHING for module in modules)
    head = target.partition(".")[0]
    return hasattr(builtins, head) or head in sys.stdlib_module_names


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Node | None:
    """Find what Sphinx did not find."""
    if node.get("refdomain") != "py":
        return None
    target = str(node["reftarget"]).removesuffix("()")
    if " " in target:  # words, where a class could be: "The loop's cancellation"
        return contnode
    if target in STANDS_FOR:
        target = STANDS_FOR[target]
        contnode = nodes.inline("", target.rpartition(".")[2])
    known = getattr(env, "iocancel_documented", None)
    if known is None:
        known = env.iocancel_documented = Documented(env)  # type: ignore[attr-defined]
    for spelt in spellings(target, node.get("py:module") or "", node.get("py:class") or ""):
        name = known.name_of(spelt)
        if name is not None and ("." in target or known.domain.objects[name].objtype != "module"):
            entry = known.domain.objects[name]
            docname = str(node.get("refdoc", env.docname))
            return make_refnode(app.builder, docname, entry.docname, entry.node_id, contnode, name)
    for name, entry in known.domain.objects.items() if "." in target else ():
        if name.endswith(f".{target}"):  # a class by its own name, whose module another one says
            docname = str(node.get("refdoc", env.docname))
            return make_refnode(app.builder, docname, entry.docname, entry.node_id, contnode, name)
    if foreign(target):
        return contnode
    if node["reftype"] == "obj" and not ours(target, known):
        return contnode
    return None


def public_objects() -> dict[int, Any]:
    """Return what users import, by its id."""
    found = {}
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            value = getattr(module, name)
            found[id(value)] = value
    return found


def without_ours(
    app: Sphinx, name: str, obj: Any, options: Any, bases: list[Any], known: dict[int, Any] | None = None
) -> None:
    """Leave out bases that are ours and not for users: what they bring is shown with the class."""
    del app, name, obj, options
    known = public_objects() if known is None else known
    bases[:] = [
        base
        for base in bases
        if id(getattr(base, "__origin__", base)) in known
        or not str(getattr(base, "__module__", "")).startswith(PACKAGE)
    ] or [object]


def forget(app: Sphinx, env: BuildEnvironment) -> None:
    """Don't keep objects with the environment."""
    del app
    if hasattr(env, "iocancel_documented"):
        del env.iocancel_documented


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-bases", without_ours)
    app.connect("env-check-consistency", forget)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
