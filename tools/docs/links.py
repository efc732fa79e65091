"""Follow every link, with no network: in the site that was built, and in the pages as they lie on disk."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

__all__ = ["check_pages", "check_site", "external", "headings", "pages"]

# What a browser fetches by itself, and what it follows when somebody clicks.
FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "audio": "src"}
FOLLOWED = {"a": "href", "area": "href"}
_CSS_URL = re.compile(r"(?:@import\s+(?:url\()?|url\()\s*['\"]?([^'\")\s]+)")


class Page(HTMLParser):
    """What a page has: ids, and links with what they are for."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.fetched: list[str] = []
        self.followed: list[str] = []
        self.doubled: list[str] = []
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take what a tag has."""
        has = dict(attrs)
        name = has.get("id")
        if name:
            if name in self.ids:
                self.doubled.append(name)
            self.ids.add(name)
        if tag == "a" and has.get("name"):
            self.ids.add(str(has["name"]))
        for kinds, into in ((FETCHED, self.fetched), (FOLLOWED, self.followed)):
            link = has.get(kinds.get(tag, ""))
            if link:
                into.append(link)
        if tag == "link" and has.get("href"):
            loaded = {"stylesheet", "icon", "preload", "modulepreload", "manifest", "shortcut"}
            rel = set((has.get("rel") or "").split())
            (self.fetched if rel & loaded else self.followed).append(str(has["href"]))


def site(root: Path) -> dict[Path, Page]:
    """Return the pages of a site."""
    return {file.resolve(): Page(file) for file in sorted(root.rglob("*.html"))}


def check_site(root: Path) -> list[str]:
    """Return what is wrong with the links of a built site.

    Args:
        root: the directory with its index.html.
    """
    pages = site(root)
    faults = [] if pages else [f"{root}: no page at all"]
    for file, page in pages.items():
        where = file.relative_to(root.resolve())
        faults += [f"{where}: the id {name!r} is there twice" for name in page.doubled]
        for link in page.fetched:
            if urlsplit(link).scheme not in ("", "data") or link.startswith("//"):
                faults.append(f"{where}: loads {link} from elsewhere")
            else:
                faults += internal(link, file, where, pages)
        for link in page.followed:
            scheme = urlsplit(link).scheme
            if scheme == "https":
                continue
            if scheme or link.startswith("//"):
                faults.append(f"{where}: {link} is not https")
            else:
                faults += internal(link, file, where, pages)
    for file in sorted(root.rglob("*.css")):
        for link in _CSS_URL.findall(file.read_text()):
            if link.startswith(("data:", "#")):
                continue
            if urlsplit(link).scheme or not (file.parent / link).exists():
                faults.append(f"{file.relative_to(root)}: {link} is not here")
    return faults


def internal(link: str, file: Path, where: Path, pages: dict[Path, Page]) -> list[str]:
    """Return what is wrong with a link within the site."""
    if link.startswith("data:"):
        return []
    parts = urlsplit(link)
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return [f"{where}: {link} leads nowhere"]
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
        return [f"{where}: {link} leads to no such place in its page"]
    return []


def external(root: Path) -> set[str]:
    """Return the links that lead out of a built site."""
    return {
        link for page in site(root).values() for link in page.followed if urlsplit(link).scheme == "https"
    }


def pages(root: Path) -> list[Path]:
    """Return the project's Markdown pages: at the top, and in docs."""
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]


def check_pages(root: Path) -> list[str]:
    """Return what is wrong with the links of the pages as they lie on disk, where GitHub shows them.

    Args:
        root: the project's directory.
    """
    known = {page.resolve(): headings(page) for page in pages(root)}
    faults = []
    for page in pages(root):
        where = page.relative_to(root)
        for link in linked(page):
            parts = urlsplit(link)
            if parts.scheme:
                if parts.scheme != "https":
                    faults.append(f"{where}: {link} is not https")
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
            if not target.exists():
                faults.append(f"{where}: {link} leads nowhere")
            elif parts.fragment and target in known and parts.fragment not in known[target]:
                faults.append(f"{where}: {link} leads to no such heading")
    return faults


def linked(page: Path) -> list[str]:
    """Return what a page links to, and the pictures that it shows."""
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        for child in token.children or ():
            link = child.attrGet("href") or child.attrGet("src")
            if link:
                found.append(str(link))
    return found


def headings(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    found: set[str] = set()
    for before, token in itertools.pairwise(tokens):
        if before.type == "heading_open":
            text = "".join(child.content for child in token.children or ())
            anchor = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = 0
            name = anchor
            while name in found:
                number += 1
                name = f"{anchor}-{number}"
            found.add(name)
    return found
