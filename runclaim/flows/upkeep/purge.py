"""
Purging: finished history goes in batches, each of which is a short transaction, however fast the database is.

A batch locks what it deletes until it has committed, and on SQLite the whole ledger. So its size follows the time that
the last one took.
"""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from runclaim.flows.declare.retention import Retention, of_strangers
from runclaim.ledger.history.unused_subjects import Subject, end_subjects, subjects_after
from runclaim.ledger.listeners.turns import places
from runclaim.ledger.purge import purge, purge_keys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import Connection

    from runclaim.config import Config
    from runclaim.database import Database
    from runclaim.flows.declare.declared_flow import DeclaredFlow
    from runclaim.states import RunState

#: Locks are never to be held for 100 ms; a quarter of it leaves room for a machine that stalls.
AIM: Final = timedelta(milliseconds=25)
_FIRST: Final = 20
_LEAST: Final = 10
_MOST: Final = 500


def next_size(size: int, took: timedelta, *, aim: timedelta = AIM) -> int:
    """
    How many the next batch should take, after one of `size` that took this long.

    As many as fit into `aim` at that speed, from 10 (fewer would hardly take less) to 500. At most twice as many as
    before: one fast batch says little of the next.
    """
    fits = int(size * (aim / max(took, timedelta(microseconds=1))))
    return max(_LEAST, min(fits, 2 * size, _MOST))


def in_batches(database: Database, verb: Callable[[Connection, int], int]) -> int:
    """
    Call `verb(conn, limit)`, each time in a transaction of its own, until it deletes less than its limit.

    Between two batches others write to a SQLite file for as long as the batch took. They look for its lock now and
    then only, and would hardly ever find it free. Returns: how many went.
    """
    is_file = database.url.get_backend_name() == "sqlite"
    total, size = 0, _FIRST
    while True:
        limit, began = size, time.monotonic()
        gone = database.run(lambda conn: verb(conn, limit))  # noqa: B023 - called before the next turn
        total += gone
        if gone < limit:
            return total
        took = time.monotonic() - began
        size = next_size(limit, timedelta(seconds=took))
        if is_file:
            time.sleep(took)


def purge_all(
    database: Database,
    keep: Mapping[RunState, timedelta],
    flows: Mapping[str, Mapping[RunState, timedelta]] | None = None,
) -> int:
    """
    Delete all runs past their retention, then all expired keys whose runs are gone; as `ledger.purge` does.

    A run waits for the listeners that have not had all of its events, within a bound.

    Returns: how many runs went.
    """
    heard = min(database.ask(places).values(), default=None)
    total = in_batches(database, lambda conn, limit: purge(conn, keep, flows=flows, heard=heard, limit=limit))
    in_batches(database, lambda conn, limit: purge_keys(conn, limit=limit))
    return total


def end_unused_subjects(database: Database) -> None:
    """
    Look at every subject, and delete the rows of those without a run.

    `purge` deletes a subject's row with its last run, unless another transaction holds the row at that moment. This
    deletes such rows, and those from earlier releases, which kept all of them: once per process is enough.
    """
    last: Subject | None = None
    while page := database.ask(partial(subjects_after, last=last, limit=_MOST)):
        unused = [subject for subject, has_a_run in page.items() if not has_a_run]
        if unused:
            database.run(partial(end_subjects, named=unused))
        *_, last = page


def purge_expired(
    database: Database, config: Config, *, known: Iterable[DeclaredFlow[Any]], plain_names: Iterable[str]
) -> int:
    """As `purge_all`: each flow as its declaration says, plain calls as the settings say, others for the longest."""
    flows = list(known)
    keep = {name: Retention().keep(config) for name in plain_names}
    keep |= {flow.name: flow.retention.keep(config) for flow in flows}
    return purge_all(database, of_strangers(config, [flow.retention for flow in flows]), keep)
