"""
Telling: the totals are counted, and each listener is told of what happened, at least once and in the order of each run.

One process at a time has a listener's turn. The position is recorded on the way, so after a crash some events are told
again and loses none; an event that fails is set aside in the same transaction.
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runclaim import logs
from runclaim.errors import ClaimLost, GiveUp, Retry
from runclaim.keys import clip, nonce
from runclaim.ledger.listeners import tail, totals
from runclaim.ledger.listeners.turns import Turn, add_listener, keep_turn, leave_turn, places, take_turn
from runclaim.ledger.listeners.untold import Aside, due_untold, forget_untold, held_up, is_due, set_aside
from runclaim.listeners.horizon import settled
from runclaim.listeners.listener import Listener, event_of
from runclaim.secrets import kind_of, redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import Connection

    from runclaim.database import Database
    from runclaim.ledger.listeners.tail import Line

logger: Final = logs.logger("runclaim.listeners")

_BATCH: Final = 200
_FOLD: Final = 500
#: After this long without a sign, a turn goes to another process; longer than a listener may take over one event.
HOLD: Final = timedelta(minutes=2)
_SETTLE: Final = timedelta(seconds=2)
#: Then it makes room for what waits in the same queue.
_TURN_SECONDS: Final = 20.0
_SAVE_SECONDS: Final = 1.0
#: After this many failures in a row, the listener is paused: it is away, and the events are not at fault.
_AWAY_AFTER: Final = 3
_PAUSES: Final = tuple(timedelta(seconds=seconds) for seconds in (5, 15, 60, 300))


class TurnLost(ClaimLost):
    """Another process tells this listener now."""

    def __init__(self, turn: Turn) -> None:
        super().__init__(turn.name, "turn", 0, "its claim on the listener lapsed")


def register(database: Database, listeners: Mapping[str, Listener]) -> None:
    """Let those that are new listen from here on; what happened before is not told."""
    known = database.ask(places)
    if new := [name for name in listeners if name not in known]:

        def work(conn: Connection) -> None:
            start = tail.newest(conn)
            for name in new:
                add_listener(conn, name, start=start)

        database.run(work)


def tell(database: Database, listeners: Mapping[str, Listener], *, stopping: Callable[[], bool]) -> int:
    """Count and tell what has happened since; returns how many events were told. Raises: LedgerUnavailable."""
    register(database, listeners)
    known, newest = database.ask(lambda conn: (places(conn), tail.newest(conn)))
    behind = {name for name in (totals.NAME, *listeners) if known.get(name, 0) < newest}
    upto = settled(database, within=_SETTLE) if behind else newest
    if upto is None:
        logger.info("an open transaction has written events; they and later ones are told when it has ended")
        upto = 0
    while totals.NAME in behind and database.run(lambda conn: totals.fold(conn, upto=upto, limit=_FOLD)) == _FOLD:
        pass
    told = 0
    for name, listener in listeners.items():
        if name in behind or database.ask(lambda conn, name=name: is_due(conn, name)):  # type: ignore[misc]
            told += Round(database, listener, upto=upto, stopping=stopping).take()
    return told


class Round:
    """One turn of one listener."""

    def __init__(self, database: Database, listener: Listener, *, upto: int, stopping: Callable[[], bool]) -> None:
        self._database, self._listener, self._upto, self._stopping = database, listener, upto, stopping
        self._ends = time.monotonic() + _TURN_SECONDS
        self._told = self._failed_in_a_row = self._cursor = 0
        self._saved_at = time.monotonic()

    def take(self) -> int:
        """Tell what is due; returns how many events got through. A turn of another process is not an error."""
        name, owner = self._listener.name, nonce()
        turn = self._database.run(lambda conn: take_turn(conn, name, owner=owner, hold=HOLD))
        if turn is None:
            return 0
        self._cursor = turn.cursor
        try:
            self._tell_set_aside(turn)
            self._tell_new(turn)
        except TurnLost as lost:
            logger.info("%s", lost)
            return self._told
        failures = turn.failures + 1 if self._is_away else 0
        pause = _PAUSES[min(failures, len(_PAUSES)) - 1] if failures else timedelta(0)
        self._database.run(lambda conn: leave_turn(conn, turn, failures=failures, pause=pause))
        return self._told

    @property
    def _is_away(self) -> bool:
        return self._failed_in_a_row >= _AWAY_AFTER

    @property
    def _is_over(self) -> bool:
        return self._is_away or self._stopping() or time.monotonic() >= self._ends

    def _tell_set_aside(self, turn: Turn) -> None:
        """What was set aside, until nothing of it is due."""
        while not self._is_over:
            due = self._database.ask(lambda conn: due_untold(conn, turn.name, limit=_BATCH))
            for attempts, line in due:
                if self._is_over:
                    return
                aside = self._tell(line, attempts + 1)
                self._save(turn, forget=None if aside else line.id, aside=aside)
            if not due:
                return

    def _tell_new(self, turn: Turn) -> None:
        """What comes after the cursor."""
        while not self._is_over and self._cursor < self._upto:
            lines = self._database.ask(lambda conn: tail.after(conn, self._cursor, self._upto, limit=_BATCH))
            wanted = [line for line in lines if self._listener.wants(line)]
            behind = self._held_up({line.run_id for line in wanted})
            for line in wanted:
                if self._is_over:
                    break
                if line.run_id in behind:
                    aside = Aside(line, 0, timedelta(0), None)
                elif (aside := self._tell(line, 1)) and not aside.given_up:  # type: ignore[assignment]
                    behind.add(line.run_id)
                self._cursor = line.id
                if aside or time.monotonic() - self._saved_at >= _SAVE_SECONDS:
                    self._save(turn, aside=aside)
            else:
                self._cursor = lines[-1].id if len(lines) == _BATCH else self._upto
            self._save(turn)

    def _held_up(self, run_ids: set[str]) -> set[str]:
        return self._database.ask(lambda conn: held_up(conn, self._listener.name, run_ids)) if run_ids else set()

    def _save(self, turn: Turn, *, aside: Aside | None = None, forget: int | None = None) -> None:
        def work(conn: Connection) -> None:
            if not keep_turn(conn, turn, cursor=self._cursor, hold=HOLD):
                raise TurnLost(turn)
            if aside is not None:
                set_aside(conn, turn.name, [aside])
            if forget is not None:
                forget_untold(conn, turn.name, forget)

        self._database.run(work)
        self._saved_at = time.monotonic()

    def _tell(self, line: Line, attempt: int) -> Aside | None:
        """Tell it; what to set aside when it was not taken."""
        try:
            self._listener.tell(event_of(line))
        except Exception as error:  # noqa: BLE001 - whatever it is, the listener did not take it
            self._failed_in_a_row += 1
            return self._aside(line, attempt, error)
        self._told, self._failed_in_a_row = self._told + 1, 0
        return None

    def _aside(self, line: Line, attempt: int, error: Exception) -> Aside:
        schedule, nothing = self._listener.schedule, timedelta(0)
        given_up = isinstance(error, GiveUp) or attempt > len(schedule)
        delay = nothing if given_up else schedule[attempt - 1] * random.uniform(1.0, 1.1)  # noqa: S311 - spreads load
        if isinstance(error, Retry) and error.after is not None:
            delay = max(delay, error.after)
        # Before it is cut: half a secret looks like none.
        said = {"type": kind_of(error), "message": clip(redact(str(error)), 2048)}
        level = logger.error if given_up else logger.warning
        level(
            "listener %s failed on %s of run %s, attempt %d: %s: %s; %s",
            self._listener.name,
            line.type,
            line.run_id,
            attempt,
            said["type"],
            said["message"],
            "given up" if given_up else f"again in {delay.total_seconds():.0f} s",
            extra={"run": line.run_id},
        )
        return Aside(line, attempt, delay, said, given_up)
