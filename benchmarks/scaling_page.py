"""Tables of text, and where they stand in docs/scaling.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def renew(name: str, told: str) -> None:
    """Put `told` between the page's marks for `name`. Raises: ValueError when it has none."""
    begin, end = (f"<!-- {name}: {where} -->" for where in ("begin", "end"))
    text = PAGE.read_text()
    if begin not in text or end not in text:
        raise ValueError(f"{PAGE} has no place for {name}")
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{told}\n{end}{after}")
