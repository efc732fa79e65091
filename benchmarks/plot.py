"""`./dev bench --keep` and `--plot`: what was measured is kept, and pictures are made of it."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import card
from benchmarks.kept import DATA, PICTURES, KeptError, load
from benchmarks.pictures import draw


def keep(measured: Mapping[str, Any], data: Path = DATA) -> Path:
    """Write a measurement to the file of this kind of machine; returns that."""
    data.mkdir(parents=True, exist_ok=True)
    file = data / f"{measured['machine']['machine']}.json"
    file.write_text(json.dumps(measured, indent=1) + "\n")
    return file


def plot(files: Sequence[Path], *, check: bool = False, data: Path = DATA, pictures: Path = PICTURES) -> int:
    """Make the pictures of these files, or of all that are kept; say which.

    Args:
        files: as `--json` prints them.
        check: write nothing, and say which pictures are not what the files give.
        data: where files are kept.
        pictures: where pictures are.

    Returns:
        An exit status: 1 where a picture is not as it should be, 2 where none can be made.
    """
    try:
        version = card.library().__version__
    except ImportError as error:
        return _fail(f"{error}; ./dev bench --plot installs it")
    files = files or sorted(data.glob("*.json"))
    if not files:
        return _fail(f"nothing is kept in {data}: ./dev bench --keep measures, and keeps it")
    try:
        made = {name: text for file in files for name, text in draw(load(file)).items()}
    except KeptError as error:
        return _fail(str(error))
    if not made:
        return _fail(f"nothing that a picture shows is in {', '.join(map(str, files))}")
    if not check:
        pictures.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            (pictures / name).write_text(text)
            print(pictures / name)
        return 0
    wrong = differing(made, pictures, version)
    for line in wrong:
        print(line, file=sys.stderr)
    if not wrong:
        print(f"{len(made)} pictures are what the data give")
    return 1 if wrong else 0


def differing(made: Mapping[str, str], pictures: Path, version: str) -> list[str]:
    """How the pictures in a directory differ from those that were made with this version of matplotlib."""
    wrong = []
    for name, text in made.items():
        file = pictures / name
        if not file.exists():
            wrong.append(f"{file} is not there: ./dev bench --plot makes it")
        elif (there := file.read_text()) != text:
            by = drawn_by(there)
            with_ = "" if by == version else f" (it was made with matplotlib {by}, and here is {version})"
            wrong.append(f"{file} is not what the data give{with_}: ./dev bench --plot makes it")
    wrong += [
        f"{file} is of no data that are kept"
        for file in sorted(pictures.glob("bench-*.svg"))
        if file.name not in made
    ]
    return wrong


def drawn_by(svg: str) -> str:
    """The version of matplotlib that made a picture, as it says itself."""
    found = re.search(r"Matplotlib v([^,<\s]+)", svg)
    return found[1] if found else "?"


def _fail(why: str) -> int:
    print(f"benchmarks: {why}", file=sys.stderr)
    return 2
