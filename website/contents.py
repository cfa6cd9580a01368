"""
docs/index.md as data: its sections, and the pages that each lists with one sentence.

The index is the only list of pages; the site's navigation and llms.txt are made from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
DOCS: Final = ROOT / "docs"
INDEX: Final = DOCS / "index.md"


@dataclass(frozen=True)
class Page:
    """One line of the index."""

    title: str
    path: Path
    sentence: str

    @property
    def place(self) -> Path:
        """Its path from the repository's root."""
        return self.path.relative_to(ROOT)


@dataclass(frozen=True)
class Section:
    """A heading of the index, and the pages below it."""

    title: str
    pages: tuple[Page, ...]


def sections() -> list[Section]:
    """The index, in its order."""
    parts = re.split(r"^## (.+)$", INDEX.read_text(), flags=re.MULTILINE)[1:]
    return [Section(title, tuple(_pages(text))) for title, text in zip(parts[::2], parts[1::2], strict=True)]


def _pages(text: str) -> list[Page]:
    lines = re.findall(r"^- \[([^\]]+)\]\(([^)]+)\): (.+)$", text, re.MULTILINE)
    return [Page(title, (DOCS / link).resolve(), sentence) for title, link, sentence in lines]


def introduction() -> tuple[str, str, str]:
    """The index's title, its first sentence, and what follows up to the first section."""
    title, sentence, rest = INDEX.read_text().partition("\n## ")[0].split("\n\n", 2)
    return title.removeprefix("# "), sentence, rest.strip()
