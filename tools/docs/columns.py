"""A Sphinx extension: what Markdown can't say of pages.

A column of sentences keeps a width at which they can be read, since a table that is wider than the page
scrolls; a narrow first column, which names what the rows are about, stays in sight meanwhile. And comments,
which hold what makes a page's programs whole for the tests, are not carried into the site.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docutils import nodes

if TYPE_CHECKING:
    from sphinx.application import Sphinx

SENTENCE = 60  # characters
NAME = 32


def mark(app: Sphinx, doctree: nodes.document) -> None:
    """Mark the cells of columns in which a cell is as long as a sentence, and of names; css does the rest."""
    del app
    for table in doctree.findall(nodes.table):
        rows = [[*row.findall(nodes.entry)] for row in table.findall(nodes.row)]
        for number, column in enumerate(zip(*rows, strict=False)):
            longest = max(len(cell.astext()) for cell in column)
            for cell in column:
                if longest > SENTENCE:
                    cell["classes"].append("sentences")
                elif number == 0 and longest <= NAME and len(rows[0]) > 2:
                    cell["classes"].append("name")


def drop_comments(app: Sphinx, doctree: nodes.document) -> None:
    """Leave comments out."""
    del app
    for raw in list(doctree.findall(nodes.raw)):
        if raw.astext().lstrip().startswith("<!--"):
            raw.parent.remove(raw)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", mark)
    app.connect("doctree-read", drop_comments)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
