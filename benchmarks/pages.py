"""What is measured stands between two marks of a page, so that the words around it stay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PERFORMANCE: Final = _DOCS / "performance.md"
SCALING: Final = _DOCS / "scaling.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown has it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def renew(page: Path, name: str, told: str) -> None:
    """Put `told` between the page's marks of this name. Raises: ValueError when it has none."""
    begin, end = (f"<!-- {name}: {where} -->" for where in ("begin", "end"))
    before, found, rest = page.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{page} has no {begin} … {end}")
    page.write_text(f"{before}{begin}\n{told}\n{end}{after}")
