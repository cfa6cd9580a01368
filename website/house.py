"""The house in CONTRIBUTING.md: the floors that import-linter holds, each with its comment in pyproject.toml."""

from __future__ import annotations

import re
import textwrap
import tomllib
from typing import Final

from website.contents import ROOT

PAGE: Final = ROOT / "CONTRIBUTING.md"
#: What each drawing on the page is called, and which package's floors it shows.
DRAWINGS: Final = {"the house": "runclaim", "the floors of flows": "runclaim.flows"}
_WIDTH: Final = 34


def house(package: str = "runclaim") -> str:
    """A line for each floor of a package, the highest first; a floor that is too long for its column goes on below."""
    text = (ROOT / "pyproject.toml").read_text()
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == [package])
    return "```text\n" + "\n".join(line for layer in layers for line in _lines(layer, text)) + "\n```\n"


def _lines(layer: str, text: str) -> list[str]:
    comment = re.search(rf'^ *"{re.escape(layer)}", *# (.+)$', text, re.MULTILINE)
    # A name in brackets is a room that is not built yet.
    rooms = [room for room in layer.split(" | ") if not room.startswith("(")]
    first, *more = textwrap.wrap(" | ".join(rooms), _WIDTH)
    return [f"{first:{_WIDTH + 2}}{comment[1] if comment else ''}".rstrip(), *more]


def renewed() -> str:
    """CONTRIBUTING.md with its drawings as the contracts are now."""
    page = PAGE.read_text()
    for title, package in DRAWINGS.items():
        begin, end = f"<!-- {title}: made from pyproject.toml by `make docs` -->\n", f"<!-- /{title} -->"
        before, _, rest = page.partition(begin)
        page = before + begin + house(package) + end + rest.partition(end)[2]
    return page
