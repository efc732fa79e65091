"""What pages name is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def test_the_tests_that_the_kernel_facts_name_are_there() -> None:
    names = re.findall(
        r"`(?:tests/)?([\w/]*test_\w+\.py|[\w/]+/)`", (ROOT / "docs/kernel-facts.md").read_text()
    )
    assert len(names) > 10
    for name in names:
        assert (TESTS / name).exists() or (TESTS / "uring" / name).exists(), name
