"""The programs in README.md run as they are printed, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iocancel.errors import EngineUnavailable

from .support import need_uring

README = Path(__file__).parents[1] / "README.md"
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), re.DOTALL)


def test_every_program_has_its_output() -> None:
    assert len(PROGRAMS) == README.read_text().count("```python") >= 4


@pytest.mark.parametrize(
    ("program", "output"),
    PROGRAMS,
    ids=["threads", "asyncio", "operations", "io_uring", "libaio", "posix_aio"][: len(PROGRAMS)],
)
def test_programs(program: str, output: str, capsys: pytest.CaptureFixture[str]) -> None:
    if "open_engine" in program:
        need_uring()  # on another system the counts are others
    try:
        exec(compile(program, str(README), "exec"), {"__name__": "__main__"})
    except EngineUnavailable as error:
        pytest.skip(str(error))
    assert capsys.readouterr().out == output


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README.read_text()):
        assert (README.parent / target).exists(), target


def test_the_tests_that_the_kernel_facts_name_are_there() -> None:
    tests = Path(__file__).parent
    names = re.findall(
        r"`(?:tests/)?([\w/]*test_\w+\.py|[\w/]+/)`", (tests.parent / "docs/kernel-facts.md").read_text()
    )
    assert len(names) > 10
    for name in names:
        assert (tests / name).exists() or (tests / "uring" / name).exists(), name
