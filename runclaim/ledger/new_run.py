"""A run to enqueue: what `ledger.enqueue` is given."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - a field's type
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import timedelta

    from runclaim.keys import RunKey


def _itself(plain: Any) -> Any:
    return plain


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to enqueue: its identity, its input as JSON, and where its first phase starts."""

    run_id: str
    project: str
    flow: str
    key: RunKey
    fingerprint: str
    subject: str | None
    input: Any
    phases: tuple[str, ...]
    queue: str | None
    max_attempts: int
    max_losses: int
    #: The broker's; `None` leaves it to Celery.
    priority: int | None
    delay: timedelta
    #: When the ledger publishes the run if the caller has not.
    dispatch_after: timedelta
    keep_key: timedelta
    #: The signal that the first phase waits for.
    waits_for: str | None = None
    trace_context: dict[str, str] | None = None
    #: What the application put into the headers of the run's Celery task; `None` where it puts nothing there.
    headers: dict[str, Any] | None = None
    #: The webhook's delivery that made it, and the event and action that it told of.
    delivery_id: str | None = None
    delivery_action: str | None = None
    #: What a recorded input is compared by, as today's type reads it: equal inputs alike. Raises: InputError.
    comparable: Callable[[Any], Any] = field(default=_itself, repr=False, compare=False)

    @property
    def namespace(self) -> str:
        """Where its key is unique."""
        return f"{self.project}/{self.flow}"
