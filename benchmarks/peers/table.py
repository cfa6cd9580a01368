"""Figures of the peers as tables: absolute, and runclaim against each inside the round."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final

from benchmarks.pages import renew

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

#: The figures of a work, and what they are called; milliseconds are better when they are fewer.
_FIGURES: Final = {
    "W1": {"runs_per_s": "end to end, runs/s", "drain_per_s": "drained, runs/s"},
    "W2": {"runs_per_s": "end to end, runs/s", "drain_per_s": "drained, runs/s"},
    "W3": {"single_per_s": "one at a time, /s", "bulk_per_s": "in bulk, /s"},
    "W4": {"start_p50": "to the first body, ms", "finish_p50": "to the recorded end, ms"},
}
_TITLES: Final = {
    "W1": "W1: one phase",
    "W2": "W2: three phases",
    "W3": "W3: enqueues alone",
    "W4": "W4: latency of three phases, twenty a second",
}


def tables(found: Sequence[dict[str, Any]]) -> str:
    """Markdown: a table for each work. Ratios above 1 mean that runclaim is faster."""
    base = next((_name(each) for each in found if each["peer"] == "runclaim"), "")
    return "\n\n".join(_table(work, found, base) for work in _FIGURES if any(each["work"] == work for each in found))


def write(page: Path, found: Sequence[dict[str, Any]]) -> None:
    """Renew the tables on the page."""
    renew(page, "peers", tables(found))


def _table(work: str, found: Sequence[dict[str, Any]], base: str) -> str:
    ours = [each for each in found if each["work"] == work]
    figures, cpu = _FIGURES[work], work in ("W1", "W2")
    head = ["peer", *(cell for label in figures.values() for cell in (label, f"{base} : it"))]
    lines = [[*head, *(["CPU ms a run"] if cpu else [])], ["---"] * (len(head) + cpu)]
    for name in dict.fromkeys(map(_name, ours)):
        good = [each for each in ours if _name(each) == name and each.get("ok")]
        failed = sum(_name(each) == name for each in ours) - len(good)
        cells = [name + (f" ({failed} failed)" if failed else "")]
        for figure in figures:
            cells.append(_spread([each[figure] for each in good if each.get(figure)], "{:,.0f}"))
            cells.append("" if name == base else _spread(_ratios(ours, base, name, figure), "{:.1f}", strong=True))
        cells += [_spread([sum(each["cpu_ms_per_run"].values()) for each in good], "{:.2f}")] if cpu else []
        lines.append(cells)
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_TITLES[work]}**, {len({each['round'] for each in ours})} rounds\n\n{rows}"


def _name(each: dict[str, Any]) -> str:
    return f"{each['peer']}:{each['variant']}"


def _ratios(found: Iterable[dict[str, Any]], base: str, name: str, figure: str) -> list[float]:
    """Runclaim against the peer, a ratio for each round that has both."""
    by_round: dict[str, dict[str, float]] = {}
    for each in found:
        if each.get("ok") and each.get(figure):
            by_round.setdefault(each["round"], {})[_name(each)] = each[figure]
    pairs = [(both[base], both[name]) for both in by_round.values() if {base, name} <= both.keys()]
    return [theirs / ours if figure.endswith("_p50") else ours / theirs for ours, theirs in pairs]


def _spread(figures: list[float], form: str, *, strong: bool = False) -> str:
    if not figures:
        return "-"
    middle = form.format(statistics.median(figures))
    least, most = form.format(min(figures)), form.format(max(figures))
    return f"{f'**{middle}**' if strong else middle} ({least} to {most})"
