"""The ratios as an SVG that is readable on light and on dark pages."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from benchmarks.report import BROKERS, TITLES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.report import Row

_WIDTH, _LEFT, _RIGHT, _LINE, _TOP = 860, 216, 70, 24, 66
_STYLE: Final = """<style>
text { fill: #1f2328; font: 13px sans-serif } .small { font-size: 11px; fill: #59636e } .head { font-weight: bold }
.page { fill: #ffffff } .grid { stroke: #d1d9e0 } .one { stroke: #59636e; stroke-width: 1.5 }
.more { fill: #2e7d5b } .less { fill: #b5651d }
.mark { fill: none; stroke-width: 2 } .results { stroke: #0969da } .floor, .batches { stroke: #8250df }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.page { fill: #0d1117 } .grid { stroke: #30363d } .one { stroke: #9198a1 }
.more { fill: #3fb27f } .less { fill: #d98a3d } .results { stroke: #4493f8 } .floor, .batches { stroke: #ab7df8 }
}
</style>"""
#: What a mark looks like around a point.
_MARKS: Final = {
    "results": "M{x:.1f} {top}v18",
    "floor": "M{x:.1f} {top}m-5 9l5 -5l5 5l-5 5z",
    "batches": "M{x:.1f} {top}m-4 5h8v8h-8z",
}


def plot(rows: Sequence[Row]) -> str:
    """A bar from 1, which is bare Celery, to runclaim's ratio; a mark for each other side; the scale is logarithmic."""
    sides = ["runclaim", *_MARKS]
    found = [ratio for row in rows for side in sides if (ratio := row.ratio(side))]
    at = _scale(min([*found, 0.5]) / 1.15, max([*found, 2]) * 1.15)
    brokers = list(dict.fromkeys(row.broker for row in rows))
    height = _TOP + _LINE * (len(rows) + len(brokers)) + 34
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}">',
        _STYLE,
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
        *_legend(),
        *_grid(found, at, height),
    ]
    top = _TOP
    for broker in brokers:
        out.append(f'<text class="head" x="16" y="{top + 15}">over {BROKERS[broker]}</text>')
        for row in (row for row in rows if row.broker == broker):
            top += _LINE
            out += _bar(row, at, top)
        top += _LINE
    return "\n".join([*out, "</svg>"]) + "\n"


def _scale(least: float, most: float) -> Callable[[float], float]:
    width = (_WIDTH - _LEFT - _RIGHT) / math.log(most / least)
    return lambda ratio: _LEFT + width * math.log(ratio / least)


def _legend() -> list[str]:
    out = [
        '<text class="head" x="16" y="24">Against bare Celery, median of the ratios inside each round</text>',
        '<rect class="more" x="16" y="36" width="14" height="12"/>',
        '<rect class="less" x="32" y="36" width="14" height="12"/>',
        '<text class="small" x="52" y="46">runclaim, faster or slower</text>',
    ]
    x = 216
    for side, path in _MARKS.items():
        out.append(f'<path class="mark {side}" d="{path.format(x=x, top=33)}"/>')
        out.append(f'<text class="small" x="{x + 10}" y="46">{TITLES[side]}</text>')
        x += 36 + 6 * len(TITLES[side])
    return out


def _grid(found: Sequence[float], at: Callable[[float], float], height: int) -> list[str]:
    bottom = height - 30
    steps = (step * 10.0**power for power in range(-3, 4) for step in (1, 2, 5))
    out = []
    for step in steps:
        if min([*found, 0.5]) <= step * 1.1 and step <= max([*found, 2]) * 1.1:
            kind = "one" if step == 1 else "grid"
            x = f"{at(step):.1f}"
            out.append(f'<line class="{kind}" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>')
            out.append(f'<text class="small" x="{x}" y="{bottom + 16}" text-anchor="middle">{step:g}</text>')
    return out


def _bar(row: Row, at: Callable[[float], float], top: int) -> list[str]:
    label = row.label.replace(", CPU ms a run", ", CPU").replace(" ms to the end", " latency")
    out = [f'<text x="{_LEFT - 10}" y="{top + 14}" text-anchor="end">{label}</text>']
    if ratio := row.ratio("runclaim"):
        start, end = sorted((at(1), at(ratio)))
        kind = "more" if ratio >= 1 else "less"
        out += [
            f'<rect class="{kind}" x="{start:.1f}" y="{top + 2}" width="{max(end - start, 1):.1f}" height="14"/>',
            f'<text x="{_WIDTH - 16}" y="{top + 14}" text-anchor="end">{ratio:.2f}</text>',
        ]
    for side, path in _MARKS.items():
        if marked := row.ratio(side):
            out.append(f'<path class="mark {side}" d="{path.format(x=at(marked), top=top)}"/>')
    return out
