"""The way of a run as an SVG that is readable on light and on dark pages, and on a narrow screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_WIDTH, _TOP, _ROW = 580, 64, 46
_LANES: Final = {"Your code": 52, "Ledger": 178, "Broker": 304, "Worker": 424, "Outside": 534}
_STYLE: Final = """<style>
text { fill: #1f2328; font: 14px sans-serif } .small { font-size: 12px; fill: #59636e } .head { font-weight: bold }
.page { fill: #ffffff } .lane { stroke: #d1d9e0 } .ledger { stroke: #2e7d5b; stroke-width: 3 }
.arrow { stroke: #59636e; stroke-width: 1.5; fill: none } .tip { fill: #59636e } .beat { stroke-dasharray: 4 4 }
.commit { fill: #2e7d5b } .number { fill: #ffffff; font-weight: bold; font-size: 12px }
.body { fill: #ddf4ff; stroke: #0969da }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .small { fill: #9198a1 }
.page { fill: #0d1117 } .lane { stroke: #30363d } .ledger { stroke: #3fb27f }
.arrow { stroke: #9198a1 } .tip { fill: #9198a1 }
.commit { fill: #3fb27f } .number { fill: #0d1117 }
.body { fill: #121d2f; stroke: #4493f8 }
}
</style>"""


@dataclass(frozen=True)
class Arrow:
    """Something that goes from one lane to another; with `commit` it is the commit of that number."""

    start: str
    end: str
    text: str
    commit: int | None = None
    upkeep: bool = False


@dataclass(frozen=True)
class Body:
    """The user's code at work, on the lane of the worker."""

    text: str


@dataclass(frozen=True)
class Title:
    """What the rows below it are about."""

    text: str


_WAY: Final[tuple[Arrow | Body | Title, ...]] = (
    Arrow("Your code", "Ledger", "enqueue", commit=1),
    Arrow("Your code", "Broker", "message: run id and fence"),
    Arrow("Broker", "Worker", "delivery"),
    Arrow("Worker", "Ledger", "claim plan: attempt 1, lease", commit=2),
    Body("plan runs"),
    Arrow("Worker", "Ledger", "complete plan, claim deliver", commit=3),
    Body("deliver runs"),
    Arrow("Worker", "Ledger", "complete deliver, plan action", commit=4),
    Arrow("Worker", "Ledger", "claim the action", commit=5),
    Arrow("Worker", "Outside", "send it"),
    Arrow("Worker", "Ledger", "record that it was posted", commit=6),
    Title("Repairs, sent by beat and done by any worker"),
    Arrow("Worker", "Ledger", "rescue: the lease lapsed", upkeep=True),
    Arrow("Worker", "Broker", "dispatch", upkeep=True),
)


def picture() -> str:
    """The picture for docs/how-it-works.md."""
    height = _TOP + _ROW * len(_WAY) + 18
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<title>The way of a run of two phases and one action</title>",
        _STYLE,
        f'<rect class="page" width="{_WIDTH}" height="{height}" rx="6"/>',
    ]
    for name, x in _LANES.items():
        out.append(f'<text class="head" x="{x}" y="26" text-anchor="middle">{name}</text>')
        line = "ledger" if name == "Ledger" else "lane"
        out.append(f'<line class="{line}" x1="{x}" y1="38" x2="{x}" y2="{height - 12}"/>')
    for row, step in enumerate(_WAY):
        out += _drawn(step, _TOP + _ROW * row)
    return "\n".join([*out, "</svg>"]) + "\n"


def _drawn(step: Arrow | Body | Title, top: int) -> list[str]:
    if isinstance(step, Arrow):
        return _arrow(step, top)
    if isinstance(step, Title):
        return [_label(step.text, _WIDTH // 2, top + 26, "head")]
    x = _LANES["Worker"]
    box = f'<rect class="body" x="{x - 62}" y="{top}" width="124" height="34" rx="6"/>'
    return [box, f'<text x="{x}" y="{top + 22}" text-anchor="middle">{step.text}</text>']


def _arrow(arrow: Arrow, top: int) -> list[str]:
    start, end, y = _LANES[arrow.start], _LANES[arrow.end], top + 26
    way = 1 if end > start else -1
    stop = end - way * (12 if arrow.commit else 4)
    line = "arrow beat" if arrow.upkeep else "arrow"
    out = [
        f'<path class="{line}" d="M{start} {y}H{stop - way * 6}"/>',
        f'<path class="tip" d="M{stop} {y}l{-way * 9} -5v10z"/>',
    ]
    out.append(_label(arrow.text, (start + end) // 2, top + 18, ""))
    if arrow.commit:
        out.append(f'<circle class="commit" cx="{end}" cy="{y}" r="10"/>')
        out.append(f'<text class="number" x="{end}" y="{y + 4}" text-anchor="middle">{arrow.commit}</text>')
    return out


def _label(text: str, x: int, y: int, style: str) -> str:
    """Text centred at `x`, on ground of the page's colour, so that no lane crosses it."""
    width = round(7.2 * len(text))
    ground = f'<rect class="page" x="{x - width // 2}" y="{y - 12}" width="{width}" height="15"/>'
    return f'{ground}<text class="{style}" x="{x}" y="{y}" text-anchor="middle">{text}</text>'
