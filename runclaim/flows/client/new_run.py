"""A new run: from a flow's description and an input that was taken to what `ledger.enqueue` is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from runclaim.errors import DeclarationError, InputError
from runclaim.keys import check_id, dump_json, fingerprint, uuid7
from runclaim.ledger.new_run import NewRun
from runclaim.retries import LONGEST
from runclaim.sql.rowset import as_id

if TYPE_CHECKING:
    from runclaim.flows.declare.description import FlowDescription
    from runclaim.flows.declare.intake import Intake

#: What an application puts into the headers of a new run's Celery task, `None` where it has no say in them.
HeadersOf: TypeAlias = Callable[[NewRun], dict[str, Any] | None]

#: Of JSON, for what the application adds to the headers of a run's task.
_MAX_HEADERS_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How runs are enqueued, in addition to their input."""

    delay: timedelta | None = None
    priority: int | None = None
    rerun: bool = False
    run_id: str | None = None

    def __post_init__(self) -> None:
        if self.delay is not None and not (isinstance(self.delay, timedelta) and timedelta(0) <= self.delay <= LONGEST):
            raise DeclarationError(f"delay must be a timedelta from zero to {LONGEST.days} days, not {self.delay!r}")
        if self.priority is not None and not (isinstance(self.priority, int) and 0 <= self.priority <= 9):  # noqa: PLR2004 - Celery's range
            raise DeclarationError(f"priority must be a number from 0 to 9, not {self.priority!r}")
        if self.run_id is not None:
            check_id("run_id", self.run_id)
            if self.rerun:
                raise DeclarationError("a rerun gets an id of its own; give either rerun=True or run_id=…")


def options_of_door(*, delay: timedelta | None, priority: int | None) -> Options:
    """What a door was asked for, where a wrong value is the caller's mistake. Raises: InputError."""
    if delay is not None and not timedelta(0) <= delay <= LONGEST:
        raise InputError("delay", f"must be from zero to {LONGEST.days} days")
    return Options(delay=delay, priority=priority)


def no_headers(_new: NewRun) -> dict[str, Any] | None:
    """What an application puts into the headers of a run's task where there is no Celery, or no application to ask."""
    return None


def new_run(
    description: FlowDescription,
    intake: Intake,
    options: Options,
    *,
    project: str,
    trace_context: dict[str, str] | None = None,
    headers_of: HeadersOf = no_headers,
) -> NewRun:
    """
    The run that an input stands for; nothing is written.

    `trace_context` is the enqueuer's; `headers_of` asks the application for the headers of its task.
    Raises: InputError for headers that are too large or look like a secret, and whatever the application raises.
    """
    first = description.phases[0]
    new = NewRun(
        run_id=as_id(options.run_id) if options.run_id else uuid7(),
        project=project,
        flow=description.name,
        key=intake.key,
        fingerprint=fingerprint(intake.compared),
        subject=intake.subject,
        input=intake.plain,
        phases=description.phase_names,
        queue=first.queue,
        max_attempts=first.max_attempts,
        max_losses=first.max_losses,
        priority=options.priority,
        delay=options.delay or timedelta(0),
        dispatch_after=description.dispatch_after,
        keep_key=description.keep_keys,
        waits_for=first.on,
        trace_context=trace_context,
        comparable=intake.comparable,
    )
    headers = headers_of(new)
    if headers is None:
        return new
    dump_json("headers", headers, cap=_MAX_HEADERS_BYTES)
    description.secrets.check_made(headers=headers)
    return replace(new, headers=headers)
