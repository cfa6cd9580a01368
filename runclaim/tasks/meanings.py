"""What Celery's own ways to leave a task mean in the body of a phase."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from celery import exceptions

from runclaim.errors import Blocked, Retry, Skip


def meaning(error: Exception) -> Exception:
    """What of runclaim's a body means that raises this of Celery's; anything else is itself."""
    meant: Exception | None = None
    if isinstance(error, exceptions.Ignore):
        meant = Skip("the body raised Celery's Ignore")
    elif isinstance(error, exceptions.Reject):
        rejected: Any = error
        reason = f"the body raised Celery's Reject: {rejected.reason}"
        meant = Retry(reason) if rejected.requeue else Blocked(reason)
    elif isinstance(error, exceptions.Retry):
        meant = Retry(str(error.exc or error.message or "Celery's Retry"), after=_after(error.when))
    if meant is None:
        return error
    meant.__cause__ = error
    return meant


def retry(_task: Any, *_args: Any, exc: Any = None, eta: Any = None, countdown: Any = None, **_how: Any) -> NoReturn:
    """
    The method `retry` of a phase's task: another attempt of this phase, of this run, with its own `max_attempts`.

    Celery's own would send the message again, which names what is no longer to be done. Raises: Retry.
    """
    raise Retry(str(exc or "the task's retry()"), after=_after(eta or countdown)) from exc


def _after(when: Any) -> timedelta | None:
    """How long that is from now, of seconds or of an instant; never less than nothing."""
    if when is None:
        return None
    if isinstance(when, datetime):
        now = datetime.now(UTC) if when.tzinfo else datetime.now()  # noqa: DTZ005 - as it was given
        return max(timedelta(0), when - now)
    return timedelta(seconds=max(0.0, when))
