"""
A run from outside, on the ledger at hand: of the application's own flow, or by what its workers have registered.

Under an idempotency key the same request is done once: which run it got is kept in the transaction that makes it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from runclaim.cli.exits import NotFound, Refused
from runclaim.errors import InputError
from runclaim.flows.client.registered_flow import InputRefused, due_now, new_run, rerun_of
from runclaim.flows.client.ways import RERUN, Way
from runclaim.keys import fingerprint
from runclaim.ledger.doors import idempotency_keys as answers
from runclaim.ledger.doors.registered_flows import all_registered, registered
from runclaim.ledger.enqueue import Enqueued, enqueue
from runclaim.ledger.rerun import rerun
from runclaim.ledger.run_keys import recorded_fingerprint

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from runclaim.app import Runclaim
    from runclaim.cli.service import Asked
    from runclaim.flows.client.access import Ledger
    from runclaim.ledger.doors.run_pages import RunLine
    from runclaim.ledger.new_run import NewRun

_FOUND: Final = 200
_CREATED: Final = 201


def make(runs: Runclaim | None, ledger: Ledger, asked: Asked) -> Enqueued:
    """Make the run that is asked for, or find it. Raises: NotFound, Refused, InputError, KeyConflict, ConfigError."""
    new = _of_application(runs, asked) if runs is not None else _registered(ledger, asked)
    if asked.idempotency_key is None:
        return ledger.enqueue([new])[0]
    place = fingerprint(["command line", new.project, asked.idempotency_key])
    made = ledger.database.run(lambda conn: _once(conn, new, place, asked))
    ledger.publish([replace(new, run_id=made.run_id)], [made])
    return made


def make_again(runs: Runclaim | None, ledger: Ledger, line: RunLine, *, by: str) -> str:
    """The id of a new run of a run's key and input. Raises: NotFound, InputError, ConfigError."""
    if runs is not None and line.flow in runs.flows:
        return ledger.handle(line.id).rerun(by=by).id
    if (record := ledger.ask(lambda conn: registered(conn, line.flow))) is None:
        raise _unregistered(ledger, line.flow)
    made = rerun_of(record, ledger.view(line.id), lambda key: ledger.ask(lambda conn: recorded_fingerprint(conn, *key)))
    return ledger.enqueue([due_now(made)], Way(partial(rerun, by=by), RERUN.read_back))[0].run_id


def _once(conn: Connection, new: NewRun, place: str, asked: Asked) -> Enqueued:
    """The run that this key got, or gets now; the caller owns the transaction."""
    if not answers.begin(conn, place):
        raise _in_flight(asked)
    what = fingerprint([new.flow, new.input, new.key.text, asked.delay and asked.delay.total_seconds(), new.priority])
    if found := answers.find(conn, place):
        if found.fingerprint != what:
            raise Refused(
                f"the idempotency key {asked.idempotency_key!r} was already used for a different run; use a new key"
            )
        return Enqueued(found.run_id, created=found.status == _CREATED)
    made = enqueue(conn, [new])[0]
    kept = answers.KeptAnswer(what, made.run_id, _CREATED if made.created else _FOUND, {}, new.project)
    if not answers.keep(conn, place, kept):
        raise _in_flight(asked)
    return made


def _in_flight(asked: Asked) -> Refused:
    return Refused(f"another command with the idempotency key {asked.idempotency_key!r} is still running; try again")


def _of_application(runs: Runclaim, asked: Asked) -> NewRun:
    if (flow := runs.flows.get(asked.flow)) is None:
        raise _no_flow(f"the application has no flow {asked.flow}", sorted(runs.flows))
    new = flow.using(delay=asked.delay, priority=asked.priority, project=asked.project).new_run(asked.input)
    for name, given, made in (("key", asked.key, new.key.text), ("subject", asked.subject, new.subject)):
        if given not in {None, made}:
            raise InputError(name, f"is computed by the application ({made!r} for this input); leave out --{name}")
    return new


def _registered(ledger: Ledger, asked: Asked) -> NewRun:
    if (record := ledger.ask(lambda conn: registered(conn, asked.flow))) is None:
        raise _unregistered(ledger, asked.flow)
    try:
        made = new_run(
            record,
            asked.input,
            project=asked.project or ledger.config.project,
            key=asked.key,
            subject=asked.subject,
            delay=asked.delay or timedelta(0),
            priority=asked.priority,
        )
    except InputRefused as refused:
        raise InputError("input", "; ".join(f"{place} {why}".strip() for place, why in refused.problems)) from refused
    return due_now(made)


def _unregistered(ledger: Ledger, flow: str) -> NotFound:
    known = [each.name for each in ledger.ask(all_registered)]
    return _no_flow(
        f"flow {flow} is not registered: start a worker of its application, or name the application with -A",
        known,
    )


def _no_flow(what: str, known: list[str]) -> NotFound:
    return NotFound(f"{what}. There {'is' if len(known) == 1 else 'are'} {', '.join(known) or 'none'}")
