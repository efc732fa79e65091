"""The pictures of the docs: whole by themselves, readable in light and dark, shown somewhere."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "pictures"
SVG = "{http://www.w3.org/2000/svg}"
# Those of ./dev bench --plot have a test of their own, which draws them again.
DRAWN = [path for path in sorted(FOLDER.glob("*.svg")) if not path.name.startswith("bench-")]


def test_there_are_some() -> None:
    assert {path.stem for path in DRAWN} >= {"life", "race", "worlds", "buffer", "close"}


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_it_says_what_it_shows(path: Path) -> None:
    """To those who do not see it."""
    root = ET.parse(path).getroot()
    assert root.get("role") == "img"
    told = [root.find(f"{SVG}{name}") for name in ("title", "desc")]
    assert all(each is not None and each.text for each in told)
    assert root.get("aria-labelledby") == " ".join(each.get("id", "") for each in told if each is not None)


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_it_needs_nothing_from_elsewhere(path: Path) -> None:
    root = ET.parse(path).getroot()
    assert {each.tag.removeprefix(SVG) for each in root.iter()} <= {
        *("svg", "title", "desc", "style", "defs", "marker"),
        *("rect", "path", "text", "tspan"),
    }
    for each in root.iter():
        for name, value in each.attrib.items():
            assert not name.startswith("on"), name
            assert "href" not in name
            assert "url(" not in value or value.startswith("url(#"), value


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.stem)
def test_each_colour_is_there_in_the_light_and_in_the_dark(path: Path) -> None:
    """And no element has one that is not: the paper changes with the ink."""
    text = path.read_text()
    found = re.search(
        r"<style>(.*?)@media \(prefers-color-scheme: dark\) \{(.*)\}\s*</style>", text, re.DOTALL
    )
    assert found is not None
    light, dark = found.groups()
    coloured = re.compile(r"\.(\w+) \{[^}]*#")
    assert set(coloured.findall(light)) == set(coloured.findall(dark))
    root = ET.parse(path).getroot()
    body = [each for each in root.iter() if each.tag in (f"{SVG}rect", f"{SVG}path", f"{SVG}text")]
    named = set(coloured.findall(light))
    for each in body:
        assert set(each.get("class", "").split()) & named, ET.tostring(each)
        assert each.get("fill") is None
        assert each.get("stroke") is None
    assert any(each.get("class") == "paper" for each in body[:2]), "behind all else, of the whole size"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.svg")), ids=lambda path: path.stem)
def test_it_is_shown_somewhere(path: Path) -> None:
    """On the site: the README's own are not in it."""
    pages = (ROOT / "docs").rglob("*.md")
    assert any(f"pictures/{path.name})" in page.read_text() for page in pages)
