"""What of these tests an emulated guest need not run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support import GUEST

# They read pages and sources, and ask no kernel.
TEXT_ALONE = (
    "test_complete.py",
    "test_docstrings.py",
    "test_figures.py",
    "test_links.py",
    "test_names.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them in a guest."""
    for item in items:
        if GUEST and item.path.parent == Path(__file__).parent and item.path.name in TEXT_ALONE:
            item.add_marker(pytest.mark.skip(reason="it reads text alone, and a guest is slow"))
