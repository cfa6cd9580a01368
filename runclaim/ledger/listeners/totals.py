"""
totals: what the journal tells, counted once for good, so that no purge lowers a total.

A listener of the journal like any other, its cursor and the totals in one transaction: each event is counted once,
however many processes fold at the same time and whichever of them dies. It costs a run nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING, Final

from sqlalchemy import Text, select

from runclaim.events import EventType
from runclaim.ledger import counters
from runclaim.ledger.listeners.tail import after
from runclaim.ledger.listeners.turns import advance, cursor_of
from runclaim.models import phase_results
from runclaim.sql.rowset import Id, pack, rowset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta

    from sqlalchemy import Connection

    from runclaim.ledger.listeners.tail import Line

#: Its name among the listeners.
NAME: Final = "runclaim.totals"
#: The upper ends of the buckets, in seconds; longer times are in the last, which has no end.
BUCKETS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0)
#: The end of a run, by its event.
ENDS: Final = {
    EventType.RUN_SUCCEEDED: "succeeded",
    EventType.RUN_FAILED: "failed",
    EventType.RUN_CANCELED: "canceled",
    EventType.RUN_SUPERSEDED: "superseded",
}
_COMPLETE: Final = frozenset({EventType.PHASE_COMPLETED, EventType.PHASE_SKIPPED})
_asked: Final = rowset("asked", run_id=Id(), phase=Text())
_RAN: Final = select(
    phase_results.c.run_id, phase_results.c.phase, phase_results.c.started_at, phase_results.c.finished_at
).join_from(
    _asked, phase_results, (phase_results.c.run_id == _asked.c.run_id) & (phase_results.c.phase == _asked.c.phase)
)


def fold(conn: Connection, *, upto: int, limit: int = 500) -> int:
    """
    Count the next events up to `upto`, which has to be settled.

    Returns: how many were read; fewer than `limit` when there are no more, or another process was faster. The caller
    owns the transaction.
    """
    cursor = cursor_of(conn, NAME, start=0)
    lines = after(conn, cursor, upto, limit=limit)
    if not lines or not advance(conn, NAME, seen=cursor, to=lines[-1].id):
        return 0
    amounts = Counter({(f"events/{name}", flow): many for (name, flow), many in _types(lines).items()})
    for name, flow, took in _durations(lines, _ran(conn, lines)):
        amounts[f"{name}/{bisect_left(BUCKETS, took.total_seconds())}", flow] += 1
        amounts[f"{name}/sum", flow] += round(took.total_seconds() * 1_000_000)
    counters.add(conn, amounts)
    return len(lines)


def _types(lines: Iterable[Line]) -> Counter[tuple[str, str]]:
    return Counter((line.type, line.flow) for line in lines)


def _ran(conn: Connection, lines: Iterable[Line]) -> dict[tuple[str, str | None], tuple[datetime, datetime]]:
    rows = [{"run_id": line.run_id, "phase": line.phase} for line in lines if line.type in _COMPLETE]
    if not rows:
        return {}
    return {
        (run_id, phase): (began, ended) for run_id, phase, began, ended in conn.execute(_RAN, {"asked": pack(rows)})
    }


def _durations(
    lines: Iterable[Line], ran: dict[tuple[str, str | None], tuple[datetime, datetime]]
) -> Iterator[tuple[str, str, timedelta]]:
    for line in lines:
        if line.type == EventType.RUN_STARTED:
            yield "start_seconds", line.flow, line.at - line.enqueued_at
        elif line.type in ENDS:
            yield "run_seconds", line.flow, line.at - line.enqueued_at
        elif line.type in _COMPLETE and (line.run_id, line.phase) in ran:
            began, ended = ran[line.run_id, line.phase]
            yield "phase_seconds", f"{line.flow}.{line.phase}", ended - began
