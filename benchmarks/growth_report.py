"""The figures as tables of text, for docs/growth.md and docs/growth-plans.md."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from benchmarks.growth_timing import Times, quantile
from benchmarks.pages import renew

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.growth_purge import Batches
    from benchmarks.growth_vacuum import Vacuum

_NAMES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
#: A median this many times that of the smallest ledger is too much.
BOUND: Final = 1.3
_MEGA: Final = 1_000_000


@dataclass(slots=True)
class Report:
    """What was measured on one kind of database; lists are by size, the smallest first."""

    kind: str
    sizes: list[int]
    times: Times = field(default_factory=dict)
    plans: dict[str, list[str]] = field(default_factory=dict)
    purges: list[tuple[Batches, Batches]] = field(default_factory=list)
    vacuum: Vacuum | None = None


def table(report: Report) -> str:
    """Markdown: all tables of one database."""
    parts = [_verbs(report), _purges(report)]
    if report.vacuum is not None:
        parts += [_dead(report.vacuum), _probes(report.vacuum)]
    return "\n\n".join(parts)


def _rows(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verbs(report: Report) -> str:
    rows = []
    for name, took in report.times.items():
        medians = [statistics.median(each) for each in took]
        ratio = medians[-1] / medians[0]
        p99 = " / ".join(f"{quantile(each, 0.99):.1f}" for each in took)
        mark = "**" if ratio > BOUND else ""
        rows.append([name, *(f"{each:.2f}" for each in medians), f"{mark}{ratio:.2f}{mark}", p99])
    return _rows(["verb", *(f"{size:,}" for size in report.sizes), "ratio", "p99"], rows)


def _purges(report: Report) -> str:
    rows = []
    for size, (fixed, own) in zip(report.sizes, report.purges, strict=True):
        rows += [[f"{size:,}", "500", fixed.told()], [f"{size:,}", "as beat does", own.told()]]
    head = ["finished runs", "batches", "runs in batches", "median", "p99", "longest", "first to last", "runs a second"]
    return _rows(head, rows)


def _dead(vacuum: Vacuum) -> str:
    rows = [
        [
            each.name,
            f"{each.live:,}",
            f"{each.dead:,}",
            f"{50 + (each.live + each.dead) // 5:,}",
            f"{each.size / _MEGA:,.0f} + {each.indexes / _MEGA:,.0f}",
            f"{vacuum.after_purge[each.name]:.1f}",
        ]
        for each in vacuum.purged
    ]
    head = ["table", "live rows", "dead rows", "dead rows autovacuum waits for", "MB, and of indexes", "VACUUM, s"]
    return _rows(head, rows)


def _probes(vacuum: Vacuum) -> str:
    whens = list(vacuum.probes)
    rows = [
        [name, *(f"{vacuum.probes[when][name]:.2f}" for when in whens)] for name in next(iter(vacuum.probes.values()))
    ]
    told = [vacuum.runs[when] for when in whens]
    rows += [
        ["dead rows of runs", *(f"{each.dead:,}" for each in told)],
        ["MB of the runs' indexes", *(f"{each.indexes / _MEGA:,.0f}" for each in told)],
        ["updates, and HOT", *(f"{each.updates:,}, {each.hot:,}" for each in told)],
    ]
    last = f"The VACUUM of runclaim_runs in between: {vacuum.after_churn:.1f} s."
    return _rows(["", *whens], rows) + "\n\n" + last


def write(docs: Path, report: Report) -> None:
    """Renew this database's part of both pages."""
    name = f"make growth, {_NAMES[report.kind]}"
    renew(docs / "growth.md", name, table(report))
    shown = "\n\n".join(
        f"### {name}\n\n" + "\n\n".join(f"```\n{each}\n```" for each in found if each)
        for name, found in report.plans.items()
    )
    renew(docs / "growth-plans.md", name, f"Of {report.sizes[-1]:,} finished runs.\n\n{shown}")
