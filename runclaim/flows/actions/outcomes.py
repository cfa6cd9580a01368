"""
Outcomes: what became of sends, recorded as soon as no other transaction holds the run's row.

A send whose run another transaction holds is kept in memory and recorded by a thread of the process, so its delivery
continues with other actions, and its slot with other phases. What is never recorded stays `sending` until its claim
lapses, and then is looked up or unknown, as after a crash.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runclaim import forks, logs
from runclaim.errors import LedgerClosed
from runclaim.ledger.actions.settle import ActionState, Sent, passed_over, settle_actions, settled_actions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runclaim.database import Database

logger: Final = logs.logger("runclaim.actions")

#: In seconds. The send has happened: knowing that is worth waiting for.
_PATIENCE: Final = 60.0
#: For one try of the thread, and for the end of the process.
_TRY_SECONDS: Final = 2.0
_CLOSE_SECONDS: Final = 5.0
#: Between two tries of the thread, the first and the longest pause.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
#: When this many wait, a delivery waits as well: each of them holds a payload.
_MOST_WAITING: Final = 100


@dataclass(frozen=True, slots=True)
class _Waiting:
    sent: Sent
    #: When it is given up, by the monotonic clock.
    ends: float


class Outcomes:
    """Records how sends ended. `count(name, kind)` adds to a total. Safe across threads and forks."""

    def __init__(
        self, database: Callable[[], Database], count: Callable[[str, str], None], *, patience: float = _PATIENCE
    ) -> None:
        self._database, self._count, self._patience = database, count, patience
        self._reset()
        # What waits is the parent's to record.
        forks.in_child(self, Outcomes._reset)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        #: By the owner of its claim, which is new at each claim.
        self._waiting: dict[str, _Waiting] = {}
        self._thread: threading.Thread | None = None

    def record(self, sent: Sent) -> None:
        """
        Record it now, or soon where another transaction holds its rows.

        Waits up to a minute for a ledger that is away. Raises: LedgerUnavailable, and then it is not recorded.
        """
        if not self._settle([sent], patience=self._patience):
            return
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < _MOST_WAITING, timeout=self._patience)
            self._waiting[sent.claim.owner] = _Waiting(sent, time.monotonic() + self._patience)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="runclaim-outcomes", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Wait a few seconds for what is not recorded yet. For the end of a process."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting, timeout=_CLOSE_SECONDS)

    def _loop(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            time.sleep(pause)
            with self._changed:
                tried = list(self._waiting.values())
            held = self._held([each.sent for each in tried])
            over = [each for each in tried if each.sent.claim.owner not in held or _is_given_up(each)]
            pause = _FIRST_PAUSE if over else min(pause * 2, _LONGEST_PAUSE)
            with self._changed:
                for each in over:
                    del self._waiting[each.sent.claim.owner]
                self._changed.notify_all()
                if not self._waiting:
                    self._thread = None
                    return

    def _held(self, sent: Sequence[Sent]) -> set[str]:
        """Try them all once; returns the owners of those that still wait."""
        try:
            sent = self._settle(sent, patience=_TRY_SECONDS)
        except LedgerClosed:
            logger.warning("the outcome of %d sends was not recorded: the ledger is closed", len(sent))
            return set()
        except Exception as error:  # noqa: BLE001 - the thread has to live whatever a try meets
            logger.debug("the outcome of %d sends is not recorded yet: %s", len(sent), error)
        return {each.claim.owner for each in sent}

    def _settle(self, sent: Sequence[Sent], *, patience: float) -> list[Sent]:
        """Record what can be recorded now; returns what other transactions keep from it."""
        database = self._database()
        after = database.run(
            lambda conn: settle_actions(conn, sent),
            read_back=lambda conn: settled_actions(conn, sent) or None,
            patience=patience,
            outwaits=lambda _error: True,
        )
        missing = [each for each in sent if each.claim.action_id not in after]
        held: set[str] = set()
        if missing:
            held = database.ask(lambda conn: passed_over(conn, missing), patience=patience)
            # An earlier try may have recorded some, and failed after its commit.
            after |= database.ask(lambda conn: settled_actions(conn, missing), patience=patience)
        for each in sent:
            if each.claim.action_id not in held:
                with logs.about(each.claim):
                    self._tell(each, after.get(each.claim.action_id))
        return [each for each in missing if each.claim.action_id in held]

    def _tell(self, sent: Sent, state: ActionState | None) -> None:
        claim = sent.claim
        if state is None:
            logger.warning("%s %s: took too long and lost its claim", claim.kind, claim.idempotency_key)
            return
        level = logging.ERROR if state is ActionState.UNKNOWN else logging.INFO
        why = f": {sent.error['type']}: {sent.error['message']}" if sent.error else ""
        logger.log(level, "%s %s: %s, attempt %d%s", claim.kind, claim.idempotency_key, state, claim.attempt, why)
        if state in {ActionState.POSTED, ActionState.FAILED, ActionState.UNKNOWN}:
            self._count(f"actions_{state}", claim.kind)


def _is_given_up(waiting: _Waiting) -> bool:
    if time.monotonic() < waiting.ends:
        return False
    claim = waiting.sent.claim
    with logs.about(claim):
        logger.warning(
            "%s %s: %s, but not recorded: another transaction holds its run. End that transaction; once the claim of"
            " this send has lapsed, it is looked up or unknown",
            claim.kind,
            claim.idempotency_key,
            waiting.sent.state,
        )
    return True
