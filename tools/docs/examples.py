"""The page of the example programs."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["page"]


def page(folder: Path) -> str:
    """Return the page: each program's purpose, from its docstring, and the program.

    Args:
        folder: where they are.
    """
    text = ["# Examples\n", "Whole programs; the tests run them.\n"]
    for file in sorted(folder.glob("*.py")):
        said = ast.get_docstring(ast.parse(file.read_text())) or ""
        first = said.partition("\n")[0].rstrip(".")
        text.append(f"## {file.name}\n\n{first}.\n")
        text.append(f"[{file.name}](../examples/{file.name})\n")
        text.append(f"```{{literalinclude}} ../examples/{file.name}\n:language: python\n```\n")
    return "\n".join(text)
