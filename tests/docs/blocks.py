"""The blocks of code of a page, and how each is to be run.

A block of Python is a program of its own; a block of text right behind it is what it prints. What a reader
need not see stands in comments before it:

    <!-- setup
    fd, other = os.pipe()
    -->

- `setup`: Python that runs before the block, in the same namespace;
- `after`: Python that runs behind it, to check and to clean up;
- `asyncio`, `trio`: behind either word, or in a comment of its own: the block awaits, in that loop;
- `continues`: the block goes on where the page's block before it ended;
- `needs root`, `needs tracefs`: it is skipped where that is lacking;
- `not run: REASON`: of commands alone, those that install or that wait for somebody.

Output is compared with doctest's `...` for what differs from run to run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
_WORLDS = ("asyncio", "trio")


class BadPage(Exception):
    """A page has what no rule is for."""


@dataclass
class Part:
    """Python that is run: a block, or what was hidden before or behind it."""

    line: int
    code: str


@dataclass
class Block:
    """A block of code."""

    page: Path
    line: int
    kind: str
    code: str
    world: str = ""
    before: list[Part] = field(default_factory=list)
    after: list[Part] = field(default_factory=list)
    earlier: Block | None = None
    output: str | None = None
    root: bool = False
    tracefs: bool = False
    not_run: str = ""

    @property
    def name(self) -> str:
        """What a test of it is called."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def parts(self) -> list[Part]:
        """Everything that has to run, in its order."""
        first = [] if self.earlier is None else self.earlier.parts()
        return [*first, *self.before, Part(self.line, self.code), *self.after]

    def expected(self) -> str | None:
        """What all of that prints; None where the page does not say."""
        if self.output is None:
            return None
        return ("" if self.earlier is None else self.earlier.expected() or "") + self.output


def pages() -> list[Path]:
    """The pages: at the top, and in docs, but for those that hold no programs of ours."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page."""
    return blocks_of(page.read_text(), page)


def blocks_of(text: str, page: Path) -> list[Block]:
    """The blocks of a page's text, with what its comments say of each."""
    found: list[Block] = []
    comments: list[Part] = []
    last: Block | None = None  # the block just before, where nothing came in between
    for token in MarkdownIt("commonmark").parse(text):
        line = (token.map or [0])[0] + 1
        if token.type == "html_block" and token.content.lstrip().startswith("<!--"):
            part = Part(line, re.sub(r"^\s*<!--|-->\s*$", "", token.content).strip("\n"))
            if last is not None and part.code.split()[:1] == ["after"]:
                take(last, part)
            else:
                comments.append(part)
            continue
        if token.type == "fence":
            kind = token.info.split()[0] if token.info else ""
            if kind == "text" and last is not None and last.kind == "python" and last.output is None:
                last.output = token.content
                continue
            block = Block(page, line + 1, kind, token.content)
            for part in comments:
                take(block, part, found)
            found.append(block)
            last = block
        else:
            last = None
        comments = []
    return found


def take(block: Block, part: Part, found: list[Block] | None = None) -> None:
    """Have a comment say something of a block; what is no such comment says nothing."""
    first, _, code = part.code.partition("\n")
    words = first.split()
    if not words or words[0] not in ("setup", "after", "continues", "needs", "not", *_WORLDS):
        return
    for world in _WORLDS:
        if world in words:
            block.world = world
            words.remove(world)
    match words:
        case ["setup"]:
            block.before.append(Part(part.line + 1, code))
        case ["after"]:
            block.after.append(Part(part.line + 1, code))
        case ["continues"]:
            before = [each for each in found or () if each.kind == "python"]
            if not before:
                raise BadPage(f"{block.name}: there is no block to continue")
            block.earlier = before[-1]
            block.world = block.world or before[-1].world
        case ["needs", "root"]:
            block.root = True
        case ["needs", "tracefs"]:
            block.root = block.tracefs = True
        case ["not", "run:", *reason] if reason:
            block.not_run = " ".join(reason)
        case []:
            pass
        case _:
            raise BadPage(f"{block.name}: a comment that nobody understands: {first}")
