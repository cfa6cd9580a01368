"""The figures as tables of text and as a plot, both for docs/performance.md."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from benchmarks.pages import renew

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BROKERS: Final = {"redis": "Redis", "rabbitmq": "RabbitMQ"}
TITLES: Final = {
    "bare": "bare Celery",
    "results": "with database results",
    "runclaim": "runclaim",
    "floor": "floor",
    "batches": "floor, in batches",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One measure over all rounds: each side's figures, round by round."""

    broker: str
    label: str
    figures: dict[str, list[float]]

    def ratios(self, side: str) -> list[float]:
        """The side against bare Celery inside each round; above one is better, also for latencies and CPU."""
        pairs = zip(self.figures.get("bare", ()), self.figures.get(side, ()), strict=False)
        return sorted(bare / ours if "ms" in self.label else ours / bare for bare, ours in pairs)

    def ratio(self, side: str) -> float | None:
        """Their median; none where one of the two was not measured."""
        ratios = self.ratios(side)
        return statistics.median(ratios) if ratios else None


def tables(rows: Sequence[Row]) -> str:
    """Markdown, a table for each broker: medians, the median of the rounds' ratios, and the ratios' spread."""
    brokers = dict.fromkeys(row.broker for row in rows)
    return "\n\n".join(
        f"**{BROKERS[broker]}**\n\n{_table([row for row in rows if row.broker == broker])}" for broker in brokers
    )


def _table(rows: Sequence[Row]) -> str:
    sides = [side for side in TITLES if side in rows[0].figures]
    lines = [["work", *(TITLES[side] for side in sides), "runclaim : bare", "spread"], ["---"] * (len(sides) + 3)]
    for row in rows:
        medians = [_number(statistics.median(row.figures[side])) for side in sides]
        ratio, spread = row.ratio("runclaim"), row.ratios("runclaim")
        told = [f"**{ratio:.2f}**", f"{spread[0]:.2f} to {spread[-1]:.2f}"] if ratio else ["", ""]
        lines.append([row.label, *medians, *told])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.1f}"  # noqa: PLR2004 - three digits are enough


def write(docs: Path, rows: Sequence[Row], *, rounds: int) -> None:
    """Renew the page's tables and its plot."""
    from benchmarks.plot import plot

    renew(docs / "performance.md", "make bench", f"{tables(rows)}\n\nMedians of {rounds} interleaved rounds.")
    (docs / "performance.svg").write_text(plot(rows))
