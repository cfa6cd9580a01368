"""The ledger as a plain dictionary: what every verb is meant to do, written down a second time without SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from runclaim.ledger.fail import Verdict
from runclaim.states import LIVE, TERMINAL, RunState
from tests.ledger.factories import DISPATCH_AFTER, LEASE, MAX_ATTEMPTS, MAX_DURATION, PHASES, SPACING

QUEUED, RUNNING, WAITING, BLOCKED = RunState.QUEUED, RunState.RUNNING, RunState.WAITING, RunState.BLOCKED
SUCCEEDED, FAILED, CANCELED, SUPERSEDED = (
    RunState.SUCCEEDED,
    RunState.FAILED,
    RunState.CANCELED,
    RunState.SUPERSEDED,
)
MAX_LOSSES = 2
KEEP_RUN, KEEP_KEY = timedelta(hours=2), timedelta(hours=6)
LONGEST = timedelta(hours=1)


@dataclass
class ModelRun:
    """A run, and who may move it."""

    id: str
    subject: str | None
    generation: int
    available_at: datetime
    dispatch_due_at: datetime
    state: RunState = QUEUED
    fence: int = 0
    cursor: int = 0
    attempts: int = 0
    losses: int = 0
    dispatches: int = 0
    owner: str | None = None
    lease_expires_at: datetime | None = None
    deadline_at: datetime | None = None
    cancel_requested: bool = False
    finished_at: datetime | None = None
    results: list[tuple[int, str]] = field(default_factory=list)
    waits_for: str | None = None
    #: Pairs of a name and an id.
    signals: set[tuple[str, str]] = field(default_factory=set)
    #: Bodies started for the current phase since its budgets were last given.
    starts: int = 0

    @property
    def phase(self) -> str:
        return PHASES[min(self.cursor, len(PHASES) - 1)]

    def holds(self, fence: int, owner: str) -> bool:
        return (self.state, self.fence, self.owner) == (RUNNING, fence, owner)

    def has_received(self, name: str | None) -> bool:
        """Also when there is nothing to wait for."""
        return name is None or name in {received for received, _ in self.signals}

    def move(self, state: RunState, now: datetime, *, wait: timedelta = timedelta(0)) -> None:
        """Take a transition after which nobody holds the run."""
        self.state, self.fence = state, self.fence + 1
        self.owner = self.lease_expires_at = self.deadline_at = None
        self.finished_at = now if state in TERMINAL else None
        self.available_at = self.dispatch_due_at = now + wait
        self.dispatches = 0

    def hold(self, owner: str, now: datetime, attempts: int) -> None:
        """Take a transition after which `owner` holds the run."""
        self.state, self.fence, self.owner, self.attempts = RUNNING, self.fence + 1, owner, attempts
        self.lease_expires_at, self.deadline_at = now + LEASE, now + MAX_DURATION


@dataclass
class Model:
    """Runs by id, keys, and generations of subjects. Each method is a verb and says what the ledger has to answer."""

    runs: dict[str, ModelRun] = field(default_factory=dict)
    keys: dict[str, tuple[str, int, datetime]] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)

    def enqueue(
        self, key: str, print_: int, subject: str | None, run_id: str, now: datetime, *, waits_for: str | None = None
    ) -> tuple[str, bool] | None:
        """The key's run and whether it is new; `None` for a conflict."""
        held = self.keys.get(key)
        if held and held[2] <= now and held[0] not in self.runs:
            held = None
        if held:
            return (held[0], False) if held[1] == print_ else None
        self.keys[key] = (run_id, print_, now + KEEP_KEY)
        generation = 0
        if subject is not None:
            generation = self.generations[subject] = self.generations.get(subject, 0) + 1
            for older in self.runs.values():
                if older.subject == subject and older.state in LIVE:
                    older.move(SUPERSEDED, now)
        self.runs[run_id] = made = ModelRun(run_id, subject, generation, now, now + DISPATCH_AFTER, waits_for=waits_for)
        made.state = WAITING if waits_for else QUEUED
        return run_id, True

    def claim(
        self, run_id: str, seen: int, phase: str, owner: str, now: datetime, *, waits_for: str | None = None
    ) -> bool:
        run = self.runs.get(run_id)
        if run is None or (run.state, run.fence, run.phase) != (QUEUED, seen, phase) or run.available_at > now:
            return False
        if not run.has_received(waits_for):
            return False
        run.hold(owner, now, run.attempts + 1)
        run.starts += 1
        return True

    def beat(self, run_id: str, fence: int, owner: str, now: datetime) -> bool | None:
        """Whether the run is to be canceled; `None` when the claim is lost."""
        run = self.runs.get(run_id)
        if run is None or not run.holds(fence, owner) or now >= run.deadline_at:
            return None
        run.lease_expires_at = min(now + LEASE, run.deadline_at)
        return run.cancel_requested

    def complete(
        self,
        run_id: str,
        fence: int,
        owner: str,
        cursor: int,
        following: str | None,
        now: datetime,
        *,
        waits_for: str | None = None,
    ) -> RunState | None:
        """The run's state afterwards, with `following` as the next claim's owner if there is one; `None`: lost."""
        run = self.runs.get(run_id)
        if run is None or not run.holds(fence, owner) or run.cursor != cursor:
            return None
        run.results.append((fence, owner))
        run.cursor, run.losses, run.starts = run.cursor + 1, 0, 0
        run.waits_for = None if run.cursor == len(PHASES) else waits_for
        if run.cursor == len(PHASES):
            run.move(SUCCEEDED, now)
        elif run.cancel_requested:
            run.attempts = 0
            run.move(CANCELED, now)
        elif not run.has_received(run.waits_for):
            run.attempts = 0
            run.move(WAITING, now)
        elif following is None:
            run.attempts = 0
            run.move(QUEUED, now)
            run.dispatch_due_at = now + DISPATCH_AFTER
        else:
            run.hold(following, now, 1)
            run.starts = 1
        return run.state

    def fail(
        self, run_id: str, fence: int, owner: str, verdict: Verdict, wait: timedelta, now: datetime
    ) -> RunState | None:
        run = self.runs.get(run_id)
        if run is None or not run.holds(fence, owner):
            return None
        spent = verdict is Verdict.FAIL or run.attempts >= MAX_ATTEMPTS
        state = BLOCKED if verdict is Verdict.BLOCK else FAILED if spent else QUEUED
        run.move(CANCELED if run.cancel_requested else state, now, wait=wait)
        return run.state

    def release(self, run_id: str, fence: int, owner: str, now: datetime) -> RunState | None:
        run = self.runs.get(run_id)
        if run is None or not run.holds(fence, owner):
            return None
        run.attempts, run.starts = run.attempts - 1, run.starts - 1
        run.move(CANCELED if run.cancel_requested else QUEUED, now)
        return run.state

    def cancel(self, run_id: str, now: datetime) -> RunState | None:
        run = self.runs.get(run_id)
        if run is None or run.state in TERMINAL or (run.state is RUNNING and run.cancel_requested):
            return None
        run.cancel_requested = True
        if run.state is not RUNNING:
            run.move(CANCELED, now)
        return run.state

    def signal(self, run_id: str, name: str, signal_id: str, now: datetime) -> tuple[str, bool]:
        """The answer, and whether the run goes on by it."""
        run = self.runs.get(run_id)
        if run is not None and (name, signal_id) in run.signals:
            return "duplicate", False
        if run is None or run.state not in LIVE:
            return "not live", False
        run.signals.add((name, signal_id))
        moved = run.state is WAITING and run.waits_for == name
        if moved:
            run.move(QUEUED, now)
        return "delivered", moved

    def again(self, run_id: str, source: RunState, now: datetime) -> bool:
        """Retry and resume."""
        run = self.runs.get(run_id)
        if run is None or run.state is not source:
            return False
        if run.subject is not None and run.generation != self.generations[run.subject]:
            return False
        run.attempts = run.losses = run.starts = 0
        run.cancel_requested = False
        run.move(QUEUED, now)
        return True

    def rescue(self, now: datetime) -> dict[str, RunState]:
        rescued = {}
        for run in self.runs.values():
            if run.state is RUNNING and run.lease_expires_at <= now:
                run.losses += 1
                spent = run.attempts >= MAX_ATTEMPTS or run.losses >= MAX_LOSSES
                run.move(CANCELED if run.cancel_requested else FAILED if spent else QUEUED, now)
                rescued[run.id] = run.state
        return rescued

    def dispatch(self, now: datetime) -> dict[str, int]:
        """Run id → fence of what is published."""
        due = [run for run in self.runs.values() if run.state is QUEUED and run.dispatch_due_at <= now]
        for run in due:
            run.dispatch_due_at = now + min(SPACING * 2**run.dispatches, LONGEST)
            run.dispatches += 1
        return {run.id: run.fence for run in due}

    def purge(self, now: datetime) -> int:
        old = [run.id for run in self.runs.values() if run.state in TERMINAL and run.finished_at + KEEP_RUN <= now]
        for run_id in old:
            del self.runs[run_id]
        # A subject's count ends with its last run.
        left = {run.subject for run in self.runs.values()}
        self.generations = {subject: many for subject, many in self.generations.items() if subject in left}
        return len(old)

    def purge_keys(self, now: datetime) -> int:
        old = [key for key, (run_id, _, ends) in self.keys.items() if ends <= now and run_id not in self.runs]
        for key in old:
            del self.keys[key]
        return len(old)
