"""The house in CONTRIBUTING.md: the layers that import-linter holds, each with its comment in pyproject.toml."""

from __future__ import annotations

import re
import textwrap
import tomllib
from typing import Final

from website.contents import ROOT

PAGE: Final = ROOT / "CONTRIBUTING.md"
_BEGIN: Final = "<!-- the house: made from pyproject.toml by `make docs` -->\n"
_END: Final = "<!-- /the house -->"
_WIDTH: Final = 34


def house() -> str:
    """A line for each layer, the highest first; a layer that is too long for its column goes on below."""
    text = (ROOT / "pyproject.toml").read_text()
    contracts = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract.get("containers") == ["runclaim"])
    return "```text\n" + "\n".join(line for layer in layers for line in _lines(layer, text)) + "\n```\n"


def _lines(layer: str, text: str) -> list[str]:
    comment = re.search(rf'^ *"{re.escape(layer)}", *# (.+)$', text, re.MULTILINE)
    # A name in brackets is a room that is not built yet.
    rooms = [room for room in layer.split(" | ") if not room.startswith("(")]
    first, *more = textwrap.wrap(" | ".join(rooms), _WIDTH)
    return [f"{first:{_WIDTH + 2}}{comment[1] if comment else ''}".rstrip(), *more]


def renewed() -> str:
    """CONTRIBUTING.md with the house as it is now."""
    before, _, rest = PAGE.read_text().partition(_BEGIN)
    return before + _BEGIN + house() + _END + rest.partition(_END)[2]
