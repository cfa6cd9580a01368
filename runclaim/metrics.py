"""
Prometheus metrics, computed from the ledger when they are asked for: the same from whichever process is scraped.

Gauges read live rows, totals their own table; a scrape within five seconds gets the figures of the last. A ledger that
does not answer is one metric, `runclaim_up` 0, and no error. Nothing is labelled by a run, a key or a project.
"""

from __future__ import annotations

import threading
from importlib.metadata import version
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from runclaim import logs
from runclaim.ledger import counters
from runclaim.ledger.doors.gauges import Gauges, gauges
from runclaim.ledger.doors.sizes import Size, sizes
from runclaim.ledger.listeners.totals import BUCKETS, ENDS
from runclaim.pause import Pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from sqlalchemy import Connection

    from runclaim.database import Database

    Totals = Mapping[tuple[str, str], int]

logger: Final = logs.logger("runclaim.metrics")

_FRESH_SECONDS: Final = 5.0
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_OUTCOMES: Final = {"actions_posted": "posted", "actions_failed": "failed", "actions_unknown": "unknown"}
_HISTOGRAMS: Final = {
    "start_seconds": (
        "runclaim_run_start_seconds",
        "Time from enqueue to the first start, including a requested delay.",
        "flow",
    ),
    "run_seconds": ("runclaim_run_duration_seconds", "Time from enqueue to the end of the run.", "flow"),
    "phase_seconds": ("runclaim_phase_duration_seconds", "Duration of the attempt that completed the phase.", "phase"),
}


class LedgerCollector(Collector):
    """Give it to a registry; `database` is asked for at the first scrape."""

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._fresh = Pause(_FRESH_SECONDS)
        self._families: list[Metric] = []

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering reads no ledger."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All metrics; at most one reading of the ledger in five seconds for all scrapes."""
        with self._lock:
            if not self._fresh.left:
                self._families = self._read()
                self._fresh.begin()
            return list(self._families)

    def _read(self) -> list[Metric]:
        def figures(conn: Connection) -> tuple[Gauges, Totals, list[Size]]:
            return gauges(conn), counters.totals(conn), sizes(conn)

        try:
            found, totals, tables = self._database().ask(figures, patience=0)
        except Exception as error:  # noqa: BLE001 - away, closed, or without our tables: a scrape tells and never fails
            logger.debug("the ledger could not be read: %s", error)
            return [_gauge("runclaim_up", "Whether the ledger answers.", (), [((), 0)])]
        return [*_from_gauges(found), *_from_totals(totals), *_from_sizes(tables)]


def exposition(collector: LedgerCollector) -> bytes:
    """The metrics as text, of type `CONTENT_TYPE`, for a door without a registry of its own."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry)


def _gauge(name: str, about: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels)
    for marks, value in values:
        family.add_metric(marks, value)
    return family


def _from_gauges(found: Gauges) -> Iterator[Metric]:
    runs: dict[tuple[str, str], int] = {}
    for each in found.queued:
        runs["queued", each.flow] = runs.get(("queued", each.flow), 0) + each.many
    runs |= {("running", flow): many for flow, (many, _) in found.running.items()} | found.stalled
    lanes = [((each.flow, each.queue or ""), each) for each in found.queued]
    yield _gauge("runclaim_up", "Whether the ledger answers.", (), [((), 1)])
    yield _gauge(
        "runclaim_build_info", "The release of the process that answered.", ("version",), [((version("runclaim"),), 1)]
    )
    yield _gauge("runclaim_runs", "Runs that have not ended, by state.", ("state", "flow"), runs.items())
    yield _gauge(
        "runclaim_queue_depth", "Queued runs that are due.", ("flow", "queue"), [(lane, it.due) for lane, it in lanes]
    )
    yield _gauge(
        "runclaim_queue_oldest_seconds",
        "How long the oldest due run has waited, in seconds.",
        ("flow", "queue"),
        [(lane, it.oldest_seconds) for lane, it in lanes],
    )
    yield _gauge(
        "runclaim_leases_lapsed",
        "Running phases whose lease has lapsed and that were not rescued yet.",
        ("flow",),
        [((flow,), lapsed) for flow, (_, lapsed) in found.running.items()],
    )
    yield _gauge(
        "runclaim_actions",
        "Actions that are not settled; an unknown action needs a person.",
        ("kind", "state"),
        found.actions.items(),
    )
    behind = [((name,), float(many)) for name, (many, _) in found.listeners.items()]
    yield _gauge("runclaim_listener_behind", "Events that a listener has not been told yet.", ("listener",), behind)
    aside = [((name,), float(many)) for name, (_, many) in found.listeners.items()]
    yield _gauge(
        "runclaim_listener_untold",
        "Events on which a listener failed and that will be told again.",
        ("listener",),
        aside,
    )


def _from_sizes(tables: list[Size]) -> Iterator[Metric]:
    rows = [((each.table,), float(each.rows)) for each in tables]
    yield _gauge("runclaim_table_rows", "Estimated number of rows of a table of the ledger.", ("table",), rows)
    filled = [((each.table,), float(each.bytes)) for each in tables if each.bytes]
    yield _gauge(
        "runclaim_table_bytes", "Size of a table with its indexes in bytes (PostgreSQL only).", ("table",), filled
    )


def _from_totals(totals: Totals) -> Iterator[Metric]:
    def counter(
        name: str, about: str, labels: tuple[str, ...], values: Iterable[tuple[tuple[str, ...], int]]
    ) -> Metric:
        family = CounterMetricFamily(name, about, labels=labels)
        for marks, value in values:
            family.add_metric(marks, value)
        return family

    kinds = {(name.removeprefix("events/"), flow): n for (name, flow), n in totals.items() if name[:7] == "events/"}
    finished = [((flow, ENDS[kind]), n) for (kind, flow), n in kinds.items() if kind in ENDS]  # type: ignore[index]
    rescued = [((flow,), n) for (kind, flow), n in kinds.items() if kind == "phase.rescued"]
    refused = [((flow,), n) for (name, flow), n in totals.items() if name == "duplicates_refused"]
    settled = [((kind, _OUTCOMES[name]), n) for (name, kind), n in totals.items() if name in _OUTCOMES]
    yield counter("runclaim_events", "Lines of the journal.", ("type", "flow"), kinds.items())
    yield counter("runclaim_runs_finished", "Runs that ended.", ("flow", "state"), finished)
    yield counter(
        "runclaim_leases_lost", "Claims that were given back because their worker died or stalled.", ("flow",), rescued
    )
    yield counter("runclaim_duplicates_refused", "Messages whose claim was refused.", ("flow",), refused)
    yield counter("runclaim_actions_settled", "Actions by how they ended.", ("kind", "outcome"), settled)
    for stored, (name, about, label) in _HISTOGRAMS.items():
        yield _histogram(name, about, label, {key: n for key, n in totals.items() if key[0].startswith(stored)})


def _histogram(name: str, about: str, label: str, stored: Totals) -> Metric:
    family = HistogramMetricFamily(name, about, labels=[label])
    ends = [*(str(end) for end in BUCKETS), "+Inf"]
    for mark in sorted({mark for _, mark in stored}):
        tail = {key.rpartition("/")[2]: n for (key, its), n in stored.items() if its == mark}
        running = accumulate(tail.get(str(place), 0) for place in range(len(ends)))
        family.add_metric([mark], list(zip(ends, running, strict=True)), tail.get("sum", 0) / 1_000_000)
    return family
