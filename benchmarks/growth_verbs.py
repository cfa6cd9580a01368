"""
The verbs, each with what has to be there before it and what it has to have done.

`prepare` is not timed; `act` is one transaction, timed with its BEGIN and COMMIT; `check` compares what it gave with
what it should have. Each leaves as many live rows as it found.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from benchmarks.growth_history import DAYS
from benchmarks.growth_live import LAPSED, lapse, make_due
from runclaim.keys import nonce
from runclaim.ledger import read
from runclaim.ledger.complete import complete
from runclaim.ledger.doors.gauges import gauges
from runclaim.ledger.doors.outside_workers import ready
from runclaim.ledger.doors.run_pages import RunFilter, list_runs
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import Verdict, fail
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.listeners import tail
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.rescue import rescue
from runclaim.states import TERMINAL, RunState
from tests.ledger import factories

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from benchmarks.growth_live import Ledger
    from runclaim.ledger.fence import Claim

#: What one call takes, as its limit.
DISPATCHED, RESCUED, PURGED, TOLD, BEATS = 100, 50, 2, 500, 20
_DAY: Final = timedelta(days=1)
#: With this the oldest tenth is past its retention.
KEEP: Final = dict.fromkeys(TERMINAL, DAYS * 0.9 * _DAY)
_SUCCEEDED: Final = frozenset({RunState.SUCCEEDED})
_FAILED: Final = frozenset({RunState.FAILED})


@dataclass(frozen=True, slots=True)
class Verb:
    """One row of the table."""

    name: str
    act: Callable[[Connection, Ledger, Any], Any]
    check: Callable[[Ledger, Any, Any], object]
    prepare: Callable[[Connection, Ledger], Any] = lambda _conn, _ledger: None
    #: What is to be done with the answer, so that the next call finds what this one found.
    restore: Callable[[Connection, Ledger, Any], object] | None = None


def _taken(conn: Connection, phases: int = 3) -> Claim:
    """A claim of a new run that has so many phases."""
    return factories.claimed_run(conn, nonce(), phases=factories.PHASES[:phases])


def _queued(conn: Connection, _ledger: Ledger) -> Any:
    return factories.wanted(conn, factories.queued_run(conn, nonce(), phases=("plan",)))


def _end(conn: Connection, _ledger: Ledger, moved: Any) -> None:
    factories.finish(conn, next(iter(moved.values())).claim)


def _finish(conn: Connection, _ledger: Ledger, claims: list[Claim]) -> None:
    complete(conn, [factories.completion(each) for each in claims])


def _cancel(conn: Connection, _ledger: Ledger, made: Any) -> None:
    from runclaim.ledger.cancel import cancel

    cancel(conn, [each.run_id for each in made])


def _old(_conn: Connection, ledger: Ledger, *, step: int = 1) -> tuple[str, Any]:
    """A finished run, and a message that enqueues it again under its key; a long `step` leaves few to choose from."""
    number = 0
    while not number or number % 10 >= 6 or number // 7 % 10 >= 7:  # noqa: PLR2004 - flow and project of live runs
        number = ledger.some() // step * step
    key = ledger.history.key_of(number)
    return ledger.history.id_of(number), factories.new_run(key, fingerprint=key.hash)


def _one_of_few(conn: Connection, ledger: Ledger) -> tuple[str, Any]:
    """As `_old`, of about ten, so that they are in memory at every size."""
    return _old(conn, ledger, step=ledger.history.many // 40)


def _listed(**how: Any) -> Callable[[Connection, Ledger, Any], Any]:
    """A page of 50; `share` begins it after that share of the history, `days` bounds it to a day that long ago."""
    share, days = how.pop("share", None), how.pop("days", None)

    def act(conn: Connection, ledger: Ledger, _: object) -> Any:
        bounds = {}
        if days is not None:
            until = datetime.fromtimestamp(ledger.history.ends_at / 1e6, UTC) - days * _DAY
            bounds = {"since": until - _DAY, "until": until}
        after = None if share is None else ledger.history.place(share)
        return list_runs(conn, RunFilter(**{"project": "default"} | how | bounds), after=after)

    return act


def _page(_ledger: Ledger, _given: object, page: Any) -> bool:
    return len(page.runs) == 50  # noqa: PLR2004 - the page's size


def _read(conn: Connection, _ledger: Ledger, given: Any) -> Any:
    run_id, _ = given
    return read.run(conn, run_id), read.results(conn, run_id), read.journal(conn, run_id)


def _tailed(conn: Connection, ledger: Ledger, _: object) -> Any:
    middle = 9 * ledger.history.many // 2
    return tail.after(conn, middle, tail.newest(conn), limit=TOLD)


VERBS: Final = (
    Verb(
        "enqueue",
        lambda conn, _, __: enqueue(conn, [factories.new_run(nonce())]),
        lambda _, __, made: made[0].created,
        restore=_cancel,
    ),
    Verb(
        "enqueue, superseding",
        lambda conn, _, __: enqueue(conn, [factories.new_run(nonce(), subject="pr-live")]),
        lambda _, __, made: made[0].created,
    ),
    Verb(
        "enqueue a finished run again",
        lambda conn, _, given: enqueue(conn, [given[1]]),
        lambda _, given, made: made[0].run_id == given[0] and not made[0].created,
        prepare=_old,
    ),
    Verb(
        "enqueue one of few finished runs again",
        lambda conn, _, given: enqueue(conn, [given[1]]),
        lambda _, given, made: made[0].run_id == given[0] and not made[0].created,
        prepare=_one_of_few,
    ),
    Verb(
        "claim",
        lambda conn, _, given: factories.take_all(conn, [given]),
        lambda _, __, claims: len(claims) == 1,
        prepare=_queued,
        restore=_finish,
    ),
    Verb(
        "heartbeat of 20",
        lambda conn, _, given: heartbeat(conn, given),
        lambda _, given, told: len(told) == len(given),
        prepare=lambda _, ledger: [(each, 1000 * _DAY) for each in ledger.chance.sample(ledger.running, BEATS)],
    ),
    Verb(
        "complete, claiming the next phase",
        lambda conn, _, claim: complete(conn, [factories.completion(claim)]),
        lambda _, claim, moved: moved[claim.run_id].state is RunState.RUNNING,
        prepare=lambda conn, _: _taken(conn, 2),
        restore=_end,
    ),
    Verb(
        "complete the last phase",
        lambda conn, _, claim: complete(conn, [factories.completion(claim)]),
        lambda _, claim, moved: moved[claim.run_id].state is RunState.SUCCEEDED,
        prepare=lambda conn, _: _taken(conn, 1),
    ),
    Verb(
        "fail",
        lambda conn, _, claim: fail(conn, [factories.failure(claim, Verdict.FAIL)]),
        lambda _, claim, states: states[claim.run_id] is RunState.FAILED,
        prepare=lambda conn, _: _taken(conn),
    ),
    Verb(
        "dispatch 100",
        lambda conn, _, __: factories.due(conn, limit=DISPATCHED),
        lambda _, __, due: len(due) == DISPATCHED,
        restore=lambda conn, _, due: make_due(conn, [each.run_id for each in due]),
    ),
    Verb(
        "rescue 50",
        lambda conn, _, __: rescue(conn, limit=RESCUED),
        lambda _, __, given_back: len(given_back) == RESCUED,
        restore=lambda conn, _, given_back: lapse(conn, list(given_back)),
    ),
    Verb(
        "ready",
        lambda conn, _, __: ready(conn, project="default", flow="review", phases=["plan"]),
        lambda _, __, found: found is not None,
    ),
    Verb("list", _listed(), _page),
    Verb("list, a page from the middle", _listed(share=0.5), _page),
    Verb("list, oldest first", _listed(oldest_first=True), _page),
    Verb("list the failed", _listed(states=_FAILED), _page),
    Verb("list a flow, a page from the middle", _listed(flow="review", share=0.5), _page),
    Verb("list the succeeded of a flow of one day", _listed(flow="review", states=_SUCCEEDED, days=9), _page),
    Verb("list a flow that has no runs", _listed(flow="none"), lambda _, __, page: page.runs == []),
    Verb(
        "read a finished run, its results and journal",
        _read,
        lambda _, given, found: (found[0].id, len(found[1]), len(found[2])) == (given[0], 3, 9),
        prepare=_old,
    ),
    Verb(
        "read one of few finished runs, its results and journal",
        _read,
        lambda _, given, found: (found[0].id, len(found[1]), len(found[2])) == (given[0], 3, 9),
        prepare=_one_of_few,
    ),
    Verb("tail 500 events from the middle", _tailed, lambda _, __, lines: len(lines) == TOLD),
    Verb("gauges", lambda conn, _, __: gauges(conn), lambda _, __, found: found.running["review"][1] == LAPSED),
    Verb(
        "purge 2",
        lambda conn, _, __: purge(conn, KEEP, limit=PURGED),
        lambda _, __, gone: gone == PURGED,
    ),
    Verb(
        "purge where nothing is due",
        lambda conn, _, __: purge(conn, dict.fromkeys(TERMINAL, 1000 * _DAY)),
        lambda _, __, gone: gone == 0,
    ),
    Verb("purge 2 keys", lambda conn, _, __: purge_keys(conn, limit=PURGED), lambda _, __, gone: gone == PURGED),
)  # fmt: skip
