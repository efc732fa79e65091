"""A Sphinx extension: docstrings are written as one writes Markdown, and Sphinx takes reStructuredText.

The differences that matter: a block of code is four more spaces, after a paragraph that need not end in "::";
"Raises:" may have a sentence where there is no class to name; "a, b: ..." is about two arguments; a colon in
an attribute's sentence is a colon; a function's own argument is code, though something else has its name;
and a page of ours that is named by its file is a link to it.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# Their contents are indented, too. "Raises:" and the like, as napoleon knows them.
_SECTION = re.compile(r"[A-Z]\w*( \w+)?:$")
_SHORT = re.compile(r"(\s*)Raises: (.+)")
_RAISES = re.compile(r":raises ([^:]*):(.*)")
_SHARED = re.compile(r":(param|ivar) ([\w\\*]+(?:, [\w\\*]+)+):(.*)")
_COLON = "\N{TELEPHONE RECORDER}"  # stands for a colon meanwhile
_CLASSES = re.compile(r"[\w.]+(, [\w.]+)*")
_PAGE = re.compile(r"\bdocs/([\w/-]+)\.md\b")
_ITEM = re.compile(r"\s*([-*]|\d+\.) ")


def indent_of(line: str) -> int:
    """Return how far a line is indented."""
    return len(line) - len(line.lstrip())


def with_code_marked(lines: list[str]) -> list[str]:
    """Return the lines, with "::" before each indented block that is code."""
    out: list[str] = []
    within: int | None = None  # the indentation of the text around the block that we are in
    listed: int | None = None  # the same, of the list item that goes on below
    for number, line in enumerate(lines):
        if not line.strip():
            out.append(line)
            continue
        here = indent_of(line)
        if within is not None and here > within:
            out.append(line)
            continue
        within = None
        before = next((each for each in reversed(lines[:number]) if each.strip()), "")
        after_gap = number > 0 and not lines[number - 1].strip()
        if listed is not None and here <= listed:
            listed = None
        if (
            after_gap
            and here >= indent_of(before) + 4
            and listed is None
            and not _SECTION.match(before.strip())
        ):
            out += [" " * indent_of(before) + "::", ""]
            within = indent_of(before)
        elif _ITEM.match(line):
            listed = here
        out.append(line)
    return out


def with_sections(lines: list[str]) -> list[str]:
    """Return the lines, with "Raises: as `read`." as a section of that name."""
    out = []
    for line in lines:
        found = _SHORT.fullmatch(line)
        out += [line] if found is None else [f"{found[1]}Raises:", f"{found[1]}    {found[2]}"]
    return out


def with_sentences_marked(lines: list[str]) -> list[str]:
    """Return the lines of a docstring in field lists, where what is raised may be a sentence.

    "The loop's cancellation: ..." stays an item like a class; a sentence without a colon has none to be.
    """
    out = []
    for line in "\n".join(lines).split("\n"):  # napoleon has made one string of what is raised
        found = _RAISES.match(line)
        if found and not _CLASSES.fullmatch(found[1]) and not found[2].strip():
            line = f":raises: {found[1]}"
        out.append(line)
    return out


def with_each_named(lines: list[str]) -> list[str]:
    """Return the lines, with a field of its own for each of several names that share a description."""
    out = []
    number = 0
    while number < len(lines):
        found = _SHARED.match(lines[number])
        end = number + 1
        while end < len(lines) and (lines[end][:1].isspace()):
            end += 1
        if found is None:
            out += lines[number:end]
        else:
            for name in found[2].split(", "):
                out += [f":{found[1]} {name}:{found[3]}", *lines[number + 1 : end]]
        number = end
    return out


def with_arguments_as_code(lines: list[str], names: set[str]) -> list[str]:
    """Return the lines, with a function's own arguments as code, which refers to nothing."""
    return [
        re.sub(
            r"(?<![`:\w])`(\w+)`(?!`)", lambda found: f"`{found[0]}`" if found[1] in names else found[0], line
        )
        for line in lines
    ]


def arguments(obj: Any) -> set[str]:
    """Return the names of a function's arguments."""
    try:
        return set(inspect.signature(obj).parameters)
    except (TypeError, ValueError):  # none to be had, of what is written in C
        return set()


def own_signature(app: Sphinx, obj: Any, bound_method: bool) -> None:
    """Give the signature that Sphinx keeps with a bound method's function its first argument back.

    Where defaults are kept as they are written it keeps what the caller of the bound method sees, and would
    take that for the function's: one argument is missing then, and one more each time that it comes by.
    """
    del app
    kept = vars(obj.__func__).get("__signature__") if inspect.ismethod(obj) and not bound_method else None
    if kept is not None:
        first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        vars(obj.__func__)["__signature__"] = kept.replace(parameters=[first, *kept.parameters.values()])


def before(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring in place, before napoleon does."""
    del app, name, options
    lines[:] = [_PAGE.sub(r":doc:`/\1`", line) for line in with_code_marked(with_sections(lines))]
    if what in ("function", "method"):
        lines[:] = with_arguments_as_code(lines, arguments(obj))
    if what in ("attribute", "data", "property"):
        # Else napoleon takes "Found: ..." for a type and its description.
        lines[:] = [line.replace(":", _COLON) for line in lines]


def after(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite what napoleon has made."""
    del app, what, name, obj, options
    lines[:] = with_each_named(with_sentences_marked([line.replace(_COLON, ":") for line in lines]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("autodoc-before-process-signature", own_signature, priority=900)
    app.connect("autodoc-process-docstring", before, priority=100)
    app.connect("autodoc-process-docstring", after, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
