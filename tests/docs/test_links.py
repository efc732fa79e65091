"""Links, and what the site's own extensions do."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from tools.docs import docstrings, links

from ..support import need

ROOT = Path(__file__).parents[2]


def test_pages_lead_somewhere() -> None:
    assert links.check_pages(ROOT) == []


def test_a_page_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "# One\n\n## `Two`, and three\n\n[a](#two-and-three) [b](#nothing) [c](docs/x.md#x) [d](docs/y.md)\n"
        "[e](http://example.org) [f](https://example.org) ![g](docs/g.svg)\n"
    )
    (tmp_path / "docs" / "x.md").write_text("# X\n\n| a |\n|---|\n| [h](../README.md#one) [i](x.md#y) |\n")
    assert links.check_pages(tmp_path) == [
        "README.md: #nothing leads to no such heading",
        "README.md: docs/y.md leads nowhere",
        "README.md: http://example.org is not https",
        "README.md: docs/g.svg leads nowhere",
        "docs/x.md: x.md#y leads to no such heading",
    ]


def test_a_site_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text(
        '<p id="a"></p><p id="a"></p><a href="#a">1</a><a href="#b">2</a><a href="two.html">3</a>'
        '<a href="https://example.org">4</a><a href="http://example.org">5</a><img src="https://example.org/x.png">'
        '<link rel="stylesheet" href="x.css"><script src="//example.org/x.js"></script>'
    )
    (tmp_path / "x.css").write_text(
        "@import url(https://example.org/font.css); p { background: url(none.png) }"
    )
    assert links.check_site(tmp_path) == [
        "one.html: the id 'a' is there twice",
        "one.html: loads https://example.org/x.png from elsewhere",
        "one.html: loads //example.org/x.js from elsewhere",
        "one.html: #b leads to no such place in its page",
        "one.html: two.html leads nowhere",
        "one.html: http://example.org is not https",
        "x.css: https://example.org/font.css is not here",
        "x.css: none.png is not here",
    ]
    assert links.external(tmp_path) == {"https://example.org"}
    assert links.check_site(tmp_path / "nothing") == [f"{tmp_path}/nothing: no page at all"]


# Docstrings


def test_code_in_docstrings_is_marked() -> None:
    text = "One.\n\n    code()\n        more()\n\nTwo.\n\nArgs:\n    x: y.\n\n- an item\n\n    and more\n"
    marked = docstrings.with_code_marked(text.split("\n"))
    assert marked[:6] == ["One.", "", "::", "", "    code()", "        more()"]
    assert marked.count("::") == 1


def test_sentences_are_told_from_classes() -> None:
    lines = docstrings.with_sections(["Raises: as `read`."])
    assert lines == ["Raises:", "    as `read`."]
    given = [":raises OSError: failed.", ":raises The loop's: late,\n    as told.", ":raises as x.:"]
    told = docstrings.with_sentences_marked(given)
    assert told == [
        ":raises OSError: failed.",
        ":raises The loop's: late,",
        "    as told.",
        ":raises: as x.",
    ]


def test_names_that_share_a_line_are_described_each() -> None:
    lines = docstrings.with_each_named([":param a, b: text", "    more", ":param c: other"])
    assert lines == [":param a: text", "    more", ":param b: text", "    more", ":param c: other"]


def test_an_argument_is_no_reference() -> None:
    def verb(name: str, *, data: bytes) -> None:
        del name, data

    lines = ["Whether `name` is there, ``data`` or `other`; :py:obj:`name`."]
    told = docstrings.with_arguments_as_code(lines, docstrings.arguments(verb))
    assert told == ["Whether ``name`` is there, ``data`` or `other`; :py:obj:`name`."]
    assert docstrings.arguments(3) == set()


VERBS = """\
.. autofunction:: iocancel.asyncio.open
.. autofunction:: iocancel.asyncio.write
.. autofunction:: iocancel.trio.open
.. autofunction:: iocancel.trio.write
"""


def test_verbs_of_a_world_have_all_their_arguments_and_sentences(tmp_path: Path) -> None:
    """They are methods of one object for each world, of the same functions."""
    need(importlib.util.find_spec("sphinx"), "no Sphinx here: ./dev docs brings it")
    need(importlib.util.find_spec("trio"), "no trio here")
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "tools.docs.docstrings"]
    settings = f"extensions = {extensions}\nautodoc_preserve_defaults = True\nadd_module_names = False\n"
    (source / "conf.py").write_text(settings)
    (source / "index.rst").write_text(f"Title\n=====\n\n{VERBS}")
    line = [sys.executable, "-m", "sphinx", "-q", "-b", "text", str(source), str(site)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    told = " ".join((site / "index.txt").read_text().split())
    assert told.count("open(path: Path, flags: int = os.O_RDONLY, mode: int = 0o777, *, dir_fd:") == 2, told
    assert told.count("write(fd: File, data: ReadableBuffer, offset: int = -1, *, abandon_on_cancel:") == 2
    assert told.count("on a disk's file it may have been, which its") == 2, "to the end of the sentence"


# Names


SOUND = (
    "open_engine",
    "iocancel.engines.open_engine",
    "iocancel.engines.auto.open_engine",  # where it is defined
    "TimeoutError",
    "user_data",
    "Ring.submit",
)
WRONG = ("iocancel.opem_engine", "Ring.nothing", "iocancel.uring.Rign")
CONF = """\
extensions = ["tools.docs.names"]
default_role = "py:obj"
nitpicky = True
"""
INDEX = """\
Title
=====

.. py:class:: iocancel.uring.Ring

   .. py:method:: submit()

.. py:function:: iocancel.open_engine()

.. py:currentmodule:: iocancel

"""


def test_names_of_ours_that_are_nowhere_are_found(tmp_path: Path) -> None:
    need(importlib.util.find_spec("sphinx"), "no Sphinx here: ./dev docs brings it")
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    (source / "conf.py").write_text(CONF)
    (source / "index.rst").write_text(INDEX + "".join(f"- `{name}`\n" for name in (*SOUND, *WRONG)))
    line = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(source), str(site)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    found = re.findall(r"reference target not found: (\S+)", done.stderr)
    assert sorted(found) == sorted(WRONG), done.stderr
    page = (site / "index.html").read_text()
    assert page.count('href="#iocancel.open_engine"') >= 3, "by each of its names"
