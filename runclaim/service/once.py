"""
A change under an idempotency key: done once, however often it is asked for, and answered the same every time.

The answer is kept in the transaction that makes the change, so there is never one without the other. Kept are a status
and which run it is about; the code that shows it reads the run as it is by then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from runclaim.ledger.doors import idempotency_keys
from runclaim.ledger.doors.idempotency_keys import KeptAnswer
from runclaim.service.errors import KeyReused, RequestInFlight

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from runclaim.flows.client.access import Change, LedgerAccess

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """A request with an idempotency key: where its answer is kept, and the fingerprint of all that it asks for."""

    place: str
    fingerprint: str
    project: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, but for the body: a status as in HTTP, and the run that it is about."""

    status: int
    run_id: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered(Generic[T]):
    """An answer, and what came of the change; a replayed answer is an earlier one, and nothing was changed."""

    answer: Answer
    outcome: T | None

    @property
    def is_replayed(self) -> bool:
        """Whether it was answered before."""
        return self.outcome is None


@dataclass(frozen=True, slots=True)
class Once(Generic[T]):
    """A change that is made once under the key of a request. It is itself a `Change`."""

    change: Change[T]
    answer: Callable[[T], Answer]
    request: KeyedRequest
    #: What this very value has answered, should the answer of its commit be lost.
    _tries: list[Answered[T]] = field(default_factory=list, compare=False)

    def work(self, conn: Connection) -> Answered[T]:
        """Make the change, or find its answer. Raises: RequestInFlight, KeyReused, and what refuses the change."""
        self._tries.append(self._keyed(conn, self.request))
        return self._tries[-1]

    def read_back(self, conn: Connection) -> Answered[T] | None:
        """After an ambiguous commit: the answer, if it is kept."""
        kept = _find(conn, self.request)
        if kept is None:
            return None
        # Of this very request: what it changed is still to be published.
        mine = (each for each in self._tries if not each.is_replayed and each.answer.run_id == kept.run_id)
        return next(mine, Answered(kept, None))

    def publish(self, access: LedgerAccess, outcome: Answered[T]) -> None:
        """What the change publishes, unless the answer is an earlier one."""
        if outcome.outcome is not None:
            self.change.publish(access, outcome.outcome)

    def _keyed(self, conn: Connection, request: KeyedRequest) -> Answered[T]:
        if not idempotency_keys.begin(conn, request.place):
            raise RequestInFlight
        if (kept := _find(conn, request)) is not None:
            return Answered(kept, None)
        outcome = self.change.work(conn)
        answer = self.answer(outcome)
        row = KeptAnswer(request.fingerprint, answer.run_id, answer.status, answer.headers, request.project)
        if not idempotency_keys.keep(conn, request.place, row):
            raise RequestInFlight
        return Answered(answer, outcome)


def _find(conn: Connection, request: KeyedRequest) -> Answer | None:
    kept = idempotency_keys.find(conn, request.place)
    if kept is None:
        return None
    if kept.fingerprint != request.fingerprint:
        raise KeyReused
    return Answer(kept.status, kept.run_id, kept.headers)
