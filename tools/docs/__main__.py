"""`./dev docs`: make the pages that are generated, build the site, follow every link, miss nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sphinx.cmd.build import build_main

from tools.docs import collect, complete, generate, links

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "docs"
SITE = ROOT / "build" / "docs"


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return our options."""
    parser = argparse.ArgumentParser(prog="./dev docs")
    add = parser.add_argument
    add(
        "--collect",
        nargs="*",
        metavar="KERNEL",
        help='first have kernels say what they do ("5.10", "here"; all of them when none is named)',
    )
    add("--external", action="store_true", help="also list the links that lead elsewhere")
    return parser.parse_args(arguments)


def build() -> int:
    """Have Sphinx build the site; a warning is an error, and all of them are shown."""
    strict = ["-W", "--keep-going", "-n"]
    # Everything anew: what an object's docstring says is not seen to have changed.
    return build_main(["-q", "-E", "-a", "-b", "html", *strict, str(SOURCE), str(SITE)])


def main() -> int:
    """Run the command; return its exit status."""
    options = parse(sys.argv[1:])
    if options.collect is not None:
        collect.prepare()
        collect.collect(options.collect)
    for page in generate.write():
        print(f"docs: wrote {page.relative_to(ROOT)}")
    status = build()
    faults = links.check_site(SITE) + links.check_pages(ROOT)
    faults += complete.missing(complete.described(SITE))
    for fault in faults:
        print(f"docs: {fault}", file=sys.stderr)
    if options.external:
        print("\n".join(sorted(links.external(SITE))))
    if status or faults:
        print("docs: not good as it is, see above", file=sys.stderr)
        return 1
    print(f"docs: {len(list(SITE.rglob('*.html')))} pages, {SITE.relative_to(ROOT)}/index.html is the first")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
