"""Every block of code of README.md and docs: programs run, and print what the page says."""

from __future__ import annotations

import doctest
import functools
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from iocancel import __main__ as command

from ..support import BOUND, GUEST, lacks_namespaces, need, need_uring
from .blocks import ROOT, BadPage, Block, blocks, blocks_of, pages
from .runner import LACKING

BLOCKS = [block for page in pages() for block in blocks(page)]
PROGRAMS = [block for block in BLOCKS if block.kind == "python"]
COMMANDS = [block for block in BLOCKS if block.kind in ("sh", "console")]
# What a page may hold beside programs and commands: output, drawings, data, formats, and Sphinx's own.
OTHERS = {"", "text", "json", "toml", "ini", "yaml", "c", "diff", "dockerfile"}
# A guest is slow, and the contract suite is about its kernel; README's are run there, too.
HERE = [block for block in PROGRAMS if not GUEST or block.page.name == "README.md"]


def test_nothing_is_of_an_unknown_kind() -> None:
    for block in BLOCKS:
        assert block.kind in {"python", "sh", "console", *OTHERS} or block.kind[0] == "{", block.name


def test_the_readme_shows_what_its_programs_print() -> None:
    shown = [block for block in PROGRAMS if block.page.name == "README.md"]
    assert len(shown) >= 4
    assert all(block.output for block in shown)


def test_programs_are_never_left_out() -> None:
    assert [block.name for block in PROGRAMS if block.not_run] == []


@pytest.mark.parametrize("block", HERE, ids=[block.name for block in HERE])
def test_program(block: Block) -> None:
    need(not block.root or os.geteuid() == 0, "not root")
    need(not block.root or not lacks_namespaces(), lacks_namespaces())
    need_uring()  # what the pages show is what it does
    done = run(block)
    if done.returncode == LACKING:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = block.expected()
    if expected is not None:
        compare(expected, done.stdout)


# In a mount namespace of its own, so that it does not matter what is mounted here.
TRACEFS = 'mount -t tracefs tracefs /sys/kernel/tracing || exit 77; exec "$@"'


def run(block: Block) -> subprocess.CompletedProcess[str]:
    if block.world == "trio" or re.search(r"^import trio", block.code, re.MULTILINE):
        need(importlib.util.find_spec("trio"), "no trio here")
    if re.search(r"^import uvloop", block.code, re.MULTILINE):
        need(importlib.util.find_spec("uvloop"), "no uvloop here")
    told = {
        "page": str(block.page.relative_to(ROOT)),
        "world": block.world,
        "parts": [asdict(part) for part in block.parts()],
    }
    line = [
        sys.executable,
        "-P",
        "-W",
        "error::DeprecationWarning",
        str(Path(__file__).with_name("runner.py")),
    ]
    if block.tracefs:
        line = ["unshare", "--mount", "sh", "-c", TRACEFS, "sh", *line]
    given = json.dumps(told)
    return subprocess.run(
        line, input=given, capture_output=True, text=True, timeout=BOUND, check=False, cwd=ROOT
    )


def compare(expected: str, got: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(expected, got, doctest.ELLIPSIS):
        example = doctest.Example("", expected)
        pytest.fail(checker.output_difference(example, got, doctest.ELLIPSIS | doctest.REPORT_NDIFF))


# Commands


@pytest.mark.parametrize("block", COMMANDS, ids=[block.name for block in COMMANDS])
def test_commands(block: Block) -> None:
    """Those that need nothing are run, of the others it is looked at whether there is such a thing."""
    if block.not_run:
        assert len(block.not_run) > 8, "a reason for a reader"
        return
    for line in lines_of(block):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"\w+=.*", words[0]):
            del words[0]
        match words:
            case []:
                pass
            case ["iocancel", "doctor" | "demo", *_] if not GUEST:
                assert status_of(*words[1:]) == 0, line
            case ["iocancel", *options]:
                command._parser().parse_args(options)
            case ["./dev", session, *_]:
                assert session == "test" or re.search(rf"^def {session}\(", noxfile(), re.MULTILINE), line
            case ["python" | "python3", program, *_] if program.endswith(".py"):
                assert (ROOT / program).exists(), line
            case _:
                pytest.fail(f"{block.name}: {line!r}: say <!-- not run: REASON --> before the block")


@functools.cache
def status_of(*words: str) -> int:
    """The command's exit status; several pages show the same."""
    line = [sys.executable, "-m", "iocancel", *words]
    return subprocess.run(line, stdout=subprocess.DEVNULL, timeout=BOUND, check=False).returncode


def lines_of(block: Block) -> list[str]:
    """The command lines; of a console those behind a prompt."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.kind == "console":
        lines = [line[2:] for line in lines if line[:2] in ("$ ", "# ")]
    return lines


def noxfile() -> str:
    return (ROOT / "noxfile.py").read_text()


# That the tests above can fail


PAGE = ROOT / "docs" / "none.md"


def one(text: str) -> Block:
    [*_, block] = blocks_of(text, PAGE)
    return block


def test_a_wrong_output_is_found() -> None:
    done = run(one("```python\nprint(1)\n```\n"))
    assert done.stdout == "1\n"
    compare("1\n", done.stdout)
    compare("...\n", done.stdout)
    with pytest.raises(pytest.fail.Exception, match=r"Expected|Differences"):
        compare("2\n", done.stdout)


def test_a_program_that_fails_is_found_at_its_line() -> None:
    done = run(one("# Title\n\n```python\nx = 1\n\nraise KeyError(x)\n```\n"))
    assert done.returncode == 1
    assert 'docs/none.md", line 6' in done.stderr


def test_what_is_hidden_runs() -> None:
    text = """
<!-- setup asyncio
import asyncio
x = 1
-->
```python
y = await asyncio.sleep(0, x + 1)
```
<!-- after
print(y)
-->

Words in between.

<!-- continues -->
```python
z = y + 1
```
<!-- after
print(z)
-->
"""
    block = one(text)
    assert block.world == "asyncio"
    done = run(block)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n3\n", "")


def test_trio_awaits_too() -> None:
    need(importlib.util.find_spec("trio"), "no trio here")
    done = run(one("<!-- trio -->\n```python\nimport trio\n\nprint(await trio.sleep(0))\n```\n"))
    assert (done.stdout, done.stderr) == ("None\n", "")


def test_what_the_machine_lacks_is_a_status_of_its_own() -> None:
    done = run(one("```python\nimport iocancel\n\nraise iocancel.FeatureUnavailable(22, 'x')\n```\n"))
    assert done.returncode == LACKING
    assert "FeatureUnavailable" in done.stderr


def test_comments_say_what_is_meant() -> None:
    assert one("<!-- a remark -->\n```python\n```\n").before == []
    assert one("<!-- needs root -->\n```python\n```\n").root
    assert one("<!-- not run: it installs packages -->\n```sh\n```\n").not_run == "it installs packages"
    with pytest.raises(BadPage, match="nobody understands"):
        one("<!-- setup twisted -->\n```python\n```\n")
    with pytest.raises(BadPage, match="no block"):
        one("<!-- continues -->\n```python\n```\n")
    assert one("<!-- setup\nx\n-->\nWords.\n\n```python\n```\n").before == [], (
        "it is for what is right behind it"
    )


def test_an_unknown_command_is_found() -> None:
    with pytest.raises(pytest.fail.Exception, match="not run"):
        test_commands(one("```sh\nrm -rf /\n```\n"))
    with pytest.raises(AssertionError):
        test_commands(one("```sh\n./dev nothing\n```\n"))
    with pytest.raises(SystemExit):
        test_commands(one("```sh\niocancel trace --nothing\n```\n"))
