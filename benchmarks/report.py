"""The figures as a table of text and as a plot, both for docs/performance.md."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: The table stands between these lines of the page.
_BEGIN: Final = "<!-- make bench: begin -->"
_END: Final = "<!-- make bench: end -->"
_WIDTH, _LEFT, _LINE = 720, 250, 26
_HEAD: Final = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">'
)


@dataclass(frozen=True, slots=True)
class Row:
    """One measure over all rounds: bare Celery's figures and runclaim's, round by round."""

    broker: str
    label: str
    bare: list[float]
    ours: list[float]

    @property
    def ratios(self) -> list[float]:
        """Runclaim against bare Celery inside each round; above one is better, also for latencies."""
        pairs = zip(self.bare, self.ours, strict=True)
        return sorted(bare / ours if "ms" in self.label else ours / bare for bare, ours in pairs)

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)


def table(rows: Sequence[Row]) -> str:
    """Markdown: medians, the median of the rounds' ratios, and the ratios' spread."""
    lines = ["| broker | work | bare Celery | runclaim | ratio | spread |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row.broker} | {row.label} | {statistics.median(row.bare):,.1f} | {statistics.median(row.ours):,.1f}"
        f" | **{row.ratio:.2f}** | {row.ratios[0]:.2f} to {row.ratios[-1]:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def plot(rows: Sequence[Row]) -> str:
    """SVG: a bar for each ratio, with a line at 1, which is bare Celery."""
    most = max(row.ratio for row in rows) * 1.12
    scale = (_WIDTH - _LEFT - 60) / most
    height = _LINE * len(rows) + 50
    out = [
        _HEAD.format(width=_WIDTH, height=height),
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, row in enumerate(rows):
        top = _LINE * number + 12
        colour = "#2e7d5b" if row.ratio >= 1 else "#b5651d"
        out += [
            f'<text x="{_LEFT - 8}" y="{top + 14}" text-anchor="end">{row.label}, {row.broker}</text>',
            f'<rect x="{_LEFT}" y="{top}" width="{row.ratio * scale:.1f}" height="18" fill="{colour}"/>',
            f'<text x="{_LEFT + row.ratio * scale + 6:.1f}" y="{top + 14}">{row.ratio:.2f}</text>',
        ]
    one = _LEFT + scale
    out += [
        f'<line x1="{one:.1f}" y1="6" x2="{one:.1f}" y2="{height - 30}" stroke="#444" stroke-dasharray="4 3"/>',
        f'<text x="{one:.1f}" y="{height - 12}" text-anchor="middle">bare Celery = 1 (longer is better)</text>',
        "</svg>",
    ]
    return "\n".join(out) + "\n"


def write(docs: Path, rows: Sequence[Row], *, rounds: int) -> None:
    """Renew the page's table and its plot."""
    page = docs / "performance.md"
    before, _, rest = page.read_text().partition(_BEGIN)
    _, _, after = rest.partition(_END)
    told = f"{_BEGIN}\n{table(rows)}\n\nMedians of {rounds} interleaved rounds.\n{_END}"
    page.write_text(before + told + after)
    (docs / "performance.svg").write_text(plot(rows))
