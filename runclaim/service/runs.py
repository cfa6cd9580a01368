"""Runs: read, listed, and each as JSON."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runclaim.errors import RunNotFound
from runclaim.flows.declare.registry import is_gone
from runclaim.ledger import read
from runclaim.ledger.doors.run_pages import MOST, RunFilter, list_runs, run_line
from runclaim.sql.clock import rfc3339
from runclaim.states import TERMINAL, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection

    from runclaim.flows.client.access import LedgerAccess
    from runclaim.ledger.read import RunLine, RunView

#: States that a run does not leave by itself: a wait for its end is over with them.
ENDS: Final = TERMINAL | {RunState.BLOCKED}


def find_run(access: LedgerAccess, run_id: str) -> RunLine:
    """The run without its input and results. Raises: RunNotFound, LedgerUnavailable."""
    line = access.ask(lambda conn: run_line(conn, run_id))
    if line is None:
        raise RunNotFound(run_id)
    return line


def runs(access: LedgerAccess, wanted: RunFilter, *, limit: int) -> Iterator[dict[str, Any]]:
    """At most `limit` of the wanted runs, as JSON, as their pages are read."""
    after = None
    while limit > 0:
        size = min(limit, MOST)
        page = access.ask(partial(list_runs, wanted=wanted, after=after, limit=size))
        yield from (run_json(line) for line in page.runs)
        limit -= len(page.runs)
        if (after := page.next_after) is None:
            return


def run_json(run: RunLine | RunView) -> dict[str, Any]:
    """The run without its input and results."""
    return {
        "id": run.id,
        "project": run.project,
        "flow": run.flow,
        "key": run.key,
        "rerun": run.rerun,
        "subject": run.subject,
        "state": str(run.state),
        "phase": run.phase,
        "phases": [{"name": name, "status": str(status)} for name, status in run.phases.items()],
        "attempts": run.attempts,
        "priority": run.priority,
        "cancel_requested": run.cancel_requested,
        "error": error_json(run.error),
        "enqueued_at": rfc3339(run.enqueued_at),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "updated_at": rfc3339(run.updated_at),
        "claimed_at": rfc3339(run.claimed_at),
        "output_ref": run.output_ref,
    }


def whole_run_json(conn: Connection, view: RunView) -> dict[str, Any]:
    """The run with its input, and its result once it has succeeded."""
    has_result = view.state is RunState.SUCCEEDED
    result = read.results(conn, view.id).get(view.phase) if has_result else None
    made_by = {"delivery_id": view.delivery_id, "delivery_action": view.delivery_action}
    outputs = read.output_refs(conn, view.id) if view.output_ref else {}
    # A run that moves is at a phase that somebody has: nothing is asked for it.
    gone = view.state is RunState.QUEUED and is_gone(conn, view.flow, view.phase, view.project)
    more = {"input": view.input, "result": result, "output_refs": outputs, "phase_is_gone": gone}
    return run_json(view) | more | made_by


def error_json(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An error without its traceback, which is only for people who read the ledger."""
    return {"type": error.get("type"), "message": error.get("message")} if error else None
