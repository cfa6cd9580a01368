"""A new run on the ledger at hand: of the application's own flow, or by what its workers have registered."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from runclaim import tracing
from runclaim.cli.exits import NotFound, Refused
from runclaim.errors import InputError
from runclaim.flows.client.changes import view_of
from runclaim.flows.client.enqueue import Enqueue, Rerun, make_runs
from runclaim.flows.declare.registered_inputs import InputRefused
from runclaim.keys import fingerprint
from runclaim.service.errors import KeyReused, RequestInFlight, UnknownFlow
from runclaim.service.flows import known_flow, requested_run
from runclaim.service.once import Answer, KeyedRequest, Once

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runclaim.app import Runclaim
    from runclaim.flows.client.access import LedgerAccess
    from runclaim.ledger.enqueue import Enqueued
    from runclaim.ledger.new_run import NewRun
    from runclaim.service.run_request import RunRequest

_FOUND: Final = 200
_CREATED: Final = 201


def enqueue(
    application: Runclaim | None, access: LedgerAccess, request: RunRequest, idempotency_key: str | None
) -> tuple[str, bool]:
    """
    The id of the run that is wanted, and whether it was made for this request.

    Raises: NotFound, Refused, InputError, KeyConflict, ConfigError.
    """
    if application is not None and request.flow not in application.flows:
        raise _no_flow(f"the application has no flow {request.flow}", sorted(application.flows))
    with _worded(idempotency_key):
        new = requested_run(known_flow(access, request.flow, request.project), request, trace_context=tracing.carrier())
        if idempotency_key is None:
            (run,) = make_runs(access, Enqueue([new]))
            return run.run_id, run.created
        answer = access.do(Once(Enqueue([new]), _answer, _keyed(new, request, idempotency_key))).answer
        return answer.run_id, answer.status == _CREATED


def rerun(access: LedgerAccess, run_id: str, *, by: str) -> str:
    """The id of a new run of a run's key and input. Raises: RunNotFound, NotFound, InputError, ConfigError."""
    view = access.ask(lambda conn: view_of(conn, run_id))
    with _worded(None):
        new = known_flow(access, view.flow, view.project).rerun_of(view)
        return make_runs(access, Rerun([new], by))[0].run_id


def _answer(enqueued: Sequence[Enqueued]) -> Answer:
    (run,) = enqueued
    return Answer(_CREATED if run.created else _FOUND, run.run_id)


def _keyed(new: NewRun, request: RunRequest, idempotency_key: str) -> KeyedRequest:
    delay = request.delay and request.delay.total_seconds()
    return KeyedRequest(
        place=fingerprint(["command line", new.project, idempotency_key]),
        fingerprint=fingerprint([new.flow, new.input, new.key.text, delay, new.priority]),
        project=new.project,
    )


@contextmanager
def _worded(idempotency_key: str | None) -> Iterator[None]:
    """What is refused, in the words of the command line."""
    try:
        yield
    except UnknownFlow as unknown:
        what = (
            f"flow {unknown.name} is not registered: start a worker of its application, or name the application with -A"
        )
        raise _no_flow(what, unknown.known) from unknown
    except InputRefused as refused:
        raise InputError("input", "; ".join(f"{place} {why}".strip() for place, why in refused.problems)) from refused
    except KeyReused as reused:
        problem = f"the idempotency key {idempotency_key!r} was already used for a different run; use a new key"
        raise Refused(problem) from reused
    except RequestInFlight as other:
        problem = f"another command with the idempotency key {idempotency_key!r} is still running; try again"
        raise Refused(problem) from other


def _no_flow(what: str, known: Sequence[str]) -> NotFound:
    return NotFound(f"{what}. Known flows: {', '.join(known) or 'none'}")
