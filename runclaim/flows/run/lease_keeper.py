"""
The keeper of leases: one thread per process beats for all its claims, on a connection of its own.

It proves that the process lives, not that the body gets on: no beat passes a claim's deadline. What it hears
(canceled, lost) it leaves where `Context.check` looks. A claim whose row another transaction holds is neither: it is
beaten for again within a second. Started at the first claim after a fork.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from runclaim import forks, logs
from runclaim.errors import Canceled, ClaimLost, LedgerClosed
from runclaim.flows.run.tally import Tally
from runclaim.ledger import read
from runclaim.ledger.heartbeat import heartbeat, passed_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from runclaim.database import Database
    from runclaim.ledger.fence import Claim

logger = logs.logger("runclaim.keeper")

#: A beat that takes longer has failed, and the next one is tried.
PATIENCE: Final = timedelta(seconds=1)
_PATIENCE: Final = PATIENCE.total_seconds()
#: Beats in a lease: three may fail before it lapses.
_BEATS: Final = 4
#: A claim that a beat passed over is beaten for again after this, much sooner than rescue may come.
_PASSED_OVER_SECONDS: Final = 1.0
#: Totals such as refused duplicates are written this often, and at the end of the process.
_FLUSH_SECONDS: Final = 5.0
#: How long the end of a process waits for a heartbeat that is being sent.
_CLOSE_SECONDS: Final = 2.0
#: How long an overdue body gets after its deadline before its process is given up.
_GRACE_SECONDS: Final = 30.0


@dataclass(slots=True)
class _Watched:
    claim: Claim
    lease: timedelta
    beat_at: float
    deadline: float
    overdue: int = 0
    is_passed_over: bool = False
    lost: ClaimLost | None = None

    @property
    def pause(self) -> float:
        """Seconds until its next beat."""
        pause = self.lease.total_seconds() / _BEATS
        return min(pause, _PASSED_OVER_SECONDS) if self.is_passed_over else pause


class Keeper:
    """Beats for the claims it watches. `on_overdue(claim, times)` is called when a body outlives its deadline."""

    def __init__(self, database: Database, *, on_overdue: Callable[[Claim, int], None] | None = None) -> None:
        self._database = database
        self._on_overdue = on_overdue
        self._is_shut = False
        self._reset()
        # A forked child has its parent's claims and counts, but not its thread.
        forks.in_child(self, Keeper._reset)

    def _reset(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._tally = Tally(self._database)
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._flushed_at = 0.0
        #: When the thread looks again by itself: a claim whose first beat is later need not wake it.
        self._sleeps_until = 0.0

    def watch(self, claim: Claim, *, lease: timedelta, max_duration: timedelta) -> None:
        """Beat for `claim` until it is forgotten, lost, or past its deadline. Raises: LedgerClosed."""
        if self._is_shut:
            raise LedgerClosed
        start = time.monotonic()
        beat_at, deadline = start + lease.total_seconds() / _BEATS, start + max_duration.total_seconds()
        watched = _Watched(claim, lease, min(beat_at, deadline), deadline)
        with self._wake:
            self._start()
            self._watched[claim.owner] = watched
            if watched.beat_at < self._sleeps_until:
                self._wake.notify()

    def forget(self, claim: Claim) -> None:
        """Stop beating for `claim`; its body has ended."""
        with self._wake:
            self._watched.pop(claim.owner, None)

    def trouble(self, claim: Claim) -> ClaimLost | None:
        """Why the body of `claim` has to stop, as far as this process has heard."""
        with self._wake:
            watched = self._watched.get(claim.owner)
        if watched is None:
            return None
        if watched.lost is None and time.monotonic() >= watched.deadline:
            watched.lost = ClaimLost(claim.run_id, claim.phase, claim.fence, "its max_duration has passed")
        return watched.lost

    def count(self, name: str, flow: str) -> None:
        """Add one to a total; written to the ledger in the background."""
        with self._wake:
            self._start()
        self._tally.count(name, flow)

    def close(self) -> None:
        """End the thread and write what is counted. For the end of the process; a later claim starts it again."""
        with self._wake:
            thread, self._thread = self._thread, None
            self._wake.notify()
        if thread is not None:
            thread.join(_CLOSE_SECONDS)
        self._flush()

    def shut(self) -> None:
        """Close for good, with its connection: no thread starts any more."""
        self._is_shut = True
        try:
            self.close()
        finally:
            self._database.shut()

    def _start(self) -> None:
        if self._thread is not None or self._is_shut:
            return
        self._flushed_at = time.monotonic()
        self._thread = threading.Thread(target=self._loop, name="runclaim-keeper", daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while True:
            with self._wake:
                # Under the lock: a thread that is told to end before it waits would sleep over it.
                if self._thread is not threading.current_thread():
                    return
                self._sleeps_until = self._next_due()
                self._wake.wait(max(0.01, self._sleeps_until - time.monotonic()))
            try:
                self.run_once()
            except Exception as error:  # noqa: BLE001 - the thread has to live whatever a beat meets
                # A beat that failed is "unknown", not "lost"; the next one may succeed.
                logger.warning("heartbeat failed, trying again in a second: %s", error)
                time.sleep(1.0)

    def _next_due(self) -> float:
        due = [watched.beat_at for watched in self._watched.values()]
        due.append(self._flushed_at + _FLUSH_SECONDS)
        return min(due)

    def run_once(self) -> None:
        """Beat for every claim that is due, report overdue bodies, write the totals when it is time."""
        moment = time.monotonic()
        with self._wake:
            due = [watched for watched in self._watched.values() if watched.beat_at <= moment]
        if beating := [watched for watched in due if watched.lost is None]:
            self._beat(beating)
        for watched in due:
            if moment >= watched.deadline + _GRACE_SECONDS * watched.overdue:
                watched.overdue += 1
                self._report_overdue(watched)
            next_report = watched.deadline + _GRACE_SECONDS * watched.overdue
            watched.beat_at = min(time.monotonic() + watched.pause, next_report)
        if moment - self._flushed_at >= _FLUSH_SECONDS:
            self._flush()

    def _report_overdue(self, watched: _Watched) -> None:
        with self._wake:
            # Not the body that follows it in this process.
            if self._on_overdue is not None and self._watched.get(watched.claim.owner) is watched:
                self._on_overdue(watched.claim, watched.overdue)

    def _beat(self, due: list[_Watched]) -> None:
        pairs = [(watched.claim, watched.lease) for watched in due]
        # Until the next beat: a server that is slow is not to be taken for one that is gone.
        silence = min(watched.lease for watched in due).total_seconds() / _BEATS
        heard = self._database.run(lambda conn: heartbeat(conn, pairs), patience=_PATIENCE, silence=silence)
        missing = [watched.claim for watched in due if watched.claim.run_id not in heard]
        standing = self._database.ask(lambda conn: passed_over(conn, missing), patience=_PATIENCE) if missing else {}
        for watched in due:
            claim = watched.claim
            watched.is_passed_over = claim.run_id in standing
            if (is_to_be_canceled := (heard | standing).get(claim.run_id)) is None:
                watched.lost = self._lost(claim)
            elif is_to_be_canceled:
                watched.lost = Canceled(claim.run_id, claim.phase, claim.fence, "cancellation was requested")

    def _lost(self, claim: Claim) -> ClaimLost:
        standing = self._database.ask(lambda conn: read.standing(conn, claim.run_id), patience=_PATIENCE)
        if standing is not None and (standing.fence, standing.owner) == (claim.fence, claim.owner):
            reason = "its max_duration has passed"
        else:
            reason = "the run was purged" if standing is None else f"the run is {standing.state}"
        return ClaimLost(claim.run_id, claim.phase, claim.fence, reason)

    def _flush(self) -> None:
        self._flushed_at = time.monotonic()
        self._tally.write(patience=_PATIENCE)
