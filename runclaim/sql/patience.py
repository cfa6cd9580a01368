"""
Patience: a transaction is tried again for as long as its verb may take, and no longer.

What a person must fix is reported at once. What may pass by itself is waited for, even a server that does not answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from runclaim import logs
from runclaim.errors import LedgerRefused, LedgerUnavailable
from runclaim.sql import watchdog
from runclaim.sql.trouble import Trouble, advice, in_words, trouble

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

logger: Final = logs.logger("runclaim.database")

#: So often a session that holds what the server no longer has is replaced; then sessions are not the cause.
_FRESH_SESSIONS: Final = 3
#: In seconds. A verb that may take longer is tried more than once: its session may be dead and the server well.
_WORTH_TWO: Final = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one verb is tried on the ledger `name`; `was_open` as for `trouble`."""

    seconds: float
    name: str
    was_open: Callable[[], bool]
    #: Which errors are waited out although they would be raised at once: their cause may be fixed meanwhile.
    outwaits: Callable[[BaseException], bool] | None = None
    #: How long a try may take where that is longer than its share of the patience.
    silence: float = 0.0

    def keep_trying(self, once: Callable[[bool], T]) -> T:
        """
        The answer of `once(doubt)`; `doubt` says that an earlier try may have committed.

        Raises: LedgerUnavailable, LedgerRefused, or what `once` raises.
        """
        ends = time.monotonic() + self.seconds
        doubt, pause, stale = False, 0.02, 0
        while True:
            with watchdog.within(max(_share(ends - time.monotonic()), self.silence)) as limit:
                try:
                    return once(doubt)
                except (DBAPIError, PoolTimeout) as error:
                    kind = trouble(error, was_open=self.was_open())
                    stale += kind is Trouble.STALE
                    if self._is_final(error, kind, stale):
                        if (refused := refusal(self.name, error)) is None:
                            raise
                        raise refused from error
                    if time.monotonic() + pause > ends:
                        raise self._unanswered(error, limit) from error
                    if kind is Trouble.STALE and (mends := advice(error)):
                        logger.warning("%s; trying on another session: %s", in_words(error), mends)
                    doubt = doubt or kind in {Trouble.DOUBT, Trouble.FATAL}
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _is_final(self, error: BaseException, kind: Trouble, stale: int) -> bool:
        final = kind in {Trouble.REFUSED, Trouble.FATAL} or stale > _FRESH_SESSIONS
        return final and not (self.outwaits is not None and self.outwaits(error))

    def _unanswered(self, error: BaseException, limit: watchdog.Limit) -> LedgerUnavailable:
        words = f"no answer within {limit.seconds:g} s" if limit.is_cut else in_words(error)
        return LedgerUnavailable(f"the ledger {self.name} does not answer ({words}); {advice(error) or 'try again'}")


def refusal(name: str, error: BaseException) -> LedgerRefused | None:
    """What to raise for an error that waiting does not fix; `None` when the fix is not known."""
    mends = advice(error)
    return (
        None
        if mends is None
        else LedgerRefused(f"the ledger {name} refuses this: {in_words(error)}. To fix it: {mends}")
    )


def _share(left: float) -> float:
    """How much of the patience one try may use, in seconds."""
    return max(left / 2, min(left, _WORTH_TWO))
