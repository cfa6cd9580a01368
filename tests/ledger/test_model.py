"""
The ledger against its model: random verbs by random workers, current and long dead, in time that jumps.

RUNCLAIM_TEST_EXAMPLES=3000 makes a long run of it, with a new seed each time.
"""

from __future__ import annotations

import copy
import os
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from runclaim.errors import KeyConflict
from runclaim.keys import nonce
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import ClaimRequest, claimed
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import Verdict, fail
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.models import phase_results, runs
from runclaim.states import LIVE, TERMINAL, RunState
from tests.ledger import audit
from tests.ledger.factories import (
    LEASE,
    MAX_ATTEMPTS,
    MAX_DURATION,
    PHASES,
    completion,
    due,
    failure,
    new_run,
    send,
    take,
)
from tests.ledger.model import KEEP_KEY, KEEP_RUN, MAX_LOSSES, Model

LONG_RUN = int(os.environ.get("RUNCLAIM_TEST_EXAMPLES", "0"))
#: PostgreSQL is asked less often, as asking it takes longer.
EXAMPLES = {"sqlite": 150, "postgresql": 60}
PICK = st.integers(0, 1000)
WAITS = st.sampled_from([timedelta(0), timedelta(seconds=30), timedelta(minutes=10)])
#: Just before, at and after what lapses; then the things that take hours.
NAMES = st.sampled_from(["approved", "merged"])
SOMETIMES = st.sampled_from([None, None, "approved", "merged"])
TICKS = st.sampled_from([timedelta(seconds=1), LEASE / 2, LEASE, MAX_DURATION, KEEP_RUN, KEEP_KEY])


class Ledger(RuleBasedStateMachine):
    """The verbs in one transaction that is rolled back, and the model beside them."""

    def __init__(self, database, clock):
        super().__init__()
        self.clock, self.model = clock, Model()
        self.connection = database.engine.connect()
        self.transaction = self.connection.begin()
        self.connection.execute(text("CREATE TABLE test_user_rows (run_id text, phase text)"))
        #: Every claim that any worker was ever told, also by a database that then forgot it.
        self.claims = []
        self.told = []

    def teardown(self):
        try:
            self.everything_ends()
            audit.check_moves(self.connection)
        finally:
            self.transaction.rollback()
            self.connection.close()

    @initialize()
    def begin(self):
        """Three runs, so that every rule has something to do from the start."""
        for key, subject in enumerate([None, "a", "b"]):
            self.enqueue(key, 1, subject)

    # --- verbs -------------------------------------------------------------------------------

    @rule(
        key=st.integers(0, 5),
        print_=st.sampled_from([1, 1, 1, 2]),
        subject=st.sampled_from([None, "a", "a", "b"]),
        waits_for=SOMETIMES,
    )
    def enqueue_one(self, key, print_, subject, waits_for):
        self.enqueue(key, print_, subject, waits_for)

    def enqueue(self, key, print_, subject, waits_for=None):
        what = {"subject": subject, "input": {"n": print_}, "waits_for": waits_for}
        run = new_run(f"key-{key}", keep_key=KEEP_KEY, max_losses=MAX_LOSSES, **what)
        expected = self.model.enqueue(f"key-{key}", print_, subject, run.run_id, self.clock.now, waits_for=waits_for)
        try:
            (found,) = enqueue(self.connection, [run])
        except KeyConflict:
            assert expected is None
        else:
            assert (found.run_id, found.created) == expected

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK, late=st.sampled_from([0, 0, 0, 0, 1, 2]))
    def claim(self, pick, late):
        run = self.some_run(pick)
        self.claim_as_seen(run, run.fence - late)

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK)
    def claim_that_a_failover_forgets(self, pick):
        """The worker was told; the database lost its last commit, and will give the same fence again."""
        before = copy.deepcopy(self.model)
        savepoint = self.connection.begin_nested()
        run = self.some_run(pick)
        self.claim_as_seen(run, run.fence)
        savepoint.rollback()
        self.model = before

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, inline=st.booleans(), waits_for=SOMETIMES)
    def complete(self, pick, inline, waits_for):
        self.complete_with_a_row(self.some_claim(pick), inline=inline, waits_for=waits_for)

    @precondition(lambda self: self.claims)
    @rule(pick=PICK, verdict=st.sampled_from([Verdict.RETRY, Verdict.RETRY, *Verdict]), wait=WAITS)
    def fail(self, pick, verdict, wait):
        self.fail_one(self.some_claim(pick), verdict, wait)

    def fail_one(self, claim, verdict, wait):
        expected = self.model.fail(claim.run_id, claim.fence, claim.owner, verdict, wait, self.clock.now)

        assert fail(self.connection, [failure(claim, verdict, delay=wait)]).get(claim.run_id) == expected

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def release(self, pick):
        self.release_one(self.some_claim(pick))

    def release_one(self, claim):
        expected = self.model.release(claim.run_id, claim.fence, claim.owner, self.clock.now)

        assert release(self.connection, [claim]).get(claim.run_id) == expected

    @precondition(lambda self: self.claims)
    @rule()
    def beat_for_every_claim_there_ever_was(self):
        asked = {claim.run_id: claim for claim in self.claims}
        expected = {
            claim.run_id: answer
            for claim in asked.values()
            if (answer := self.model.beat(claim.run_id, claim.fence, claim.owner, self.clock.now)) is not None
        }

        assert heartbeat(self.connection, [(claim, LEASE) for claim in asked.values()]) == expected

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK)
    def cancel(self, pick):
        self.cancel_one(self.some_run(pick))

    def cancel_one(self, run):
        expected = self.model.cancel(run.id, self.clock.now)

        assert cancel(self.connection, [run.id]).get(run.id) == expected

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK, name=NAMES, signal_id=st.sampled_from(["1", "2"]), waiting=st.booleans())
    def signal(self, pick, name, signal_id, waiting):
        run = self.some_run(pick, RunState.WAITING if waiting else None)
        self.signal_one(run, run.waits_for if waiting and run.waits_for else name, signal_id)

    def signal_one(self, run, name, signal_id):
        expected = self.model.signal(run.id, name, signal_id, self.clock.now)
        told = send(self.connection, run.id, name, signal_id=signal_id)

        assert (told.answer, told.moved) == expected

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK)
    def retry(self, pick):
        run = self.some_run(pick, RunState.FAILED)

        assert retry(self.connection, run.id) == self.model.again(run.id, RunState.FAILED, self.clock.now)

    @precondition(lambda self: self.model.runs)
    @rule(pick=PICK)
    def resume(self, pick):
        run = self.some_run(pick, RunState.BLOCKED)

        assert resume(self.connection, run.id) == self.model.again(run.id, RunState.BLOCKED, self.clock.now)

    @rule()
    def rescue(self):
        assert rescue(self.connection) == self.model.rescue(self.clock.now)

    @rule()
    def dispatch(self):
        assert {each.run_id: each.fence for each in due(self.connection)} == self.model.dispatch(self.clock.now)

    @rule()
    def purge(self):
        assert purge(self.connection, dict.fromkeys(TERMINAL, KEEP_RUN)) == self.model.purge(self.clock.now)
        assert purge_keys(self.connection) == self.model.purge_keys(self.clock.now)

    @rule(by=TICKS)
    def tick(self, by):
        self.clock.advance(by)

    @precondition(lambda self: any(run.state is RunState.RUNNING for run in self.model.runs.values()))
    @rule(pick=PICK, inline=st.booleans())
    def takeover(self, pick, inline):
        """A worker stalls, its claim is rescued and taken by another; then it wakes up and goes on."""
        run = self.some_run(pick, RunState.RUNNING)
        stale = next(claim for claim in self.claims if run.holds(claim.fence, claim.owner))
        self.clock.advance(LEASE)
        self.rescue()
        self.claim_as_seen(run, run.fence)
        self.complete_with_a_row(stale, inline=inline)
        assert {} == fail(self.connection, [failure(stale, Verdict.FAIL)])
        assert {} == release(self.connection, [stale])
        assert {} == heartbeat(self.connection, [(stale, LEASE)])

    @precondition(lambda self: any(run.state is RunState.QUEUED for run in self.model.runs.values()))
    @rule(pick=PICK, asked=st.booleans(), ending=st.sampled_from([*Verdict, *Verdict, "inline", "broker", "release"]))
    def attempt(self, pick, asked, ending):
        """A worker's whole attempt, perhaps one that somebody asks to stop."""
        run = self.some_run(pick, RunState.QUEUED)
        self.clock.advance(max(run.available_at - self.clock.now, timedelta(0)))
        self.claim_as_seen(run, run.fence)
        if asked:
            self.cancel_one(run)
        if ending == "release":
            self.release_one(self.claims[-1])
        elif ending in {"inline", "broker"}:
            self.complete_with_a_row(self.claims[-1], inline=ending == "inline")
        else:
            self.fail_one(self.claims[-1], ending, timedelta(0))

    # --- what the verbs share ----------------------------------------------------------------

    def some_run(self, pick, state=None):
        found = [run for run in self.model.runs.values() if state in {None, run.state}] or [*self.model.runs.values()]
        return found[pick % len(found)]

    def some_claim(self, pick):
        """Every other time one that is current, if there is any."""
        current = [claim for claim in self.claims if self.is_current(claim)]
        found = current if pick % 2 and current else self.claims
        return found[pick // 2 % len(found)]

    def is_current(self, claim):
        run = self.model.runs.get(claim.run_id)
        return run is not None and run.holds(claim.fence, claim.owner)

    def claim_as_seen(self, run, seen):
        asked = ClaimRequest(run.id, seen, nonce())
        phase = run.phase
        taken = take(self.connection, asked, phase=phase, waits_for=run.waits_for)
        now, waits_for = self.clock.now, run.waits_for

        assert (taken is not None) == self.model.claim(run.id, seen, phase, asked.owner, now, waits_for=waits_for)
        assert claimed(self.connection, [asked]) == ([] if taken is None else [taken])
        if taken is not None:
            self.claims.append(taken)

    def complete_with_a_row(self, claim, *, inline, waits_for=None):
        """The user's row goes first; without a completion it is rolled back."""
        given = completion(claim, inline=inline, max_losses=MAX_LOSSES, waits_for=waits_for)
        following = given.next.owner if given.next else None
        savepoint = self.connection.begin_nested()
        values = {"run_id": claim.run_id, "phase": claim.phase}
        self.connection.execute(text("INSERT INTO test_user_rows VALUES (:run_id, :phase)"), values)
        moved = complete(self.connection, [given]).get(claim.run_id)
        savepoint.rollback() if moved is None else savepoint.commit()
        proof = (claim.run_id, claim.fence, claim.owner, claim.cursor)
        expected = self.model.complete(*proof, following, self.clock.now, waits_for=waits_for)

        assert (moved and moved.state) == expected
        if moved is not None:
            self.told.append(given)
            if moved.claim is not None:
                self.claims.append(moved.claim)

    def everything_ends(self):
        """Once nothing disturbs them, every run ends: no state is a trap."""
        for _ in range(200):
            live = [run for run in self.model.runs.values() if run.state in LIVE]
            if not live:
                return
            self.clock.advance(MAX_DURATION)
            self.rescue()
            self.dispatch()
            for run in live:
                if run.state is RunState.BLOCKED:
                    assert resume(self.connection, run.id) == self.model.again(run.id, run.state, self.clock.now)
                if run.state is RunState.WAITING:
                    self.signal_one(run, run.waits_for, "1")
                self.claim_as_seen(run, run.fence)
                for claim in [claim for claim in self.claims if self.is_current(claim)]:
                    self.complete_with_a_row(claim, inline=True)
        raise AssertionError(f"a run does not end: {live}")

    # --- what always holds -------------------------------------------------------------------

    @invariant()
    def the_rows_are_what_the_model_says(self):
        found = {row.id: row for row in self.connection.execute(select(runs))}

        assert found.keys() == self.model.runs.keys()
        for run in self.model.runs.values():
            row = found[run.id]
            assert (row.state, row.fence, row.cursor, row.phase) == (run.state, run.fence, run.cursor, run.phase)
            assert (row.attempts, row.losses, row.generation) == (run.attempts, run.losses, run.generation)
            assert (row.owner, row.lease_expires_at) == (run.owner, run.lease_expires_at)
            assert (row.deadline_at, row.finished_at) == (run.deadline_at, run.finished_at)
            assert (row.cancel_requested_at is not None) == run.cancel_requested
            assert (row.waits_for, {*row.signals.split("|")} - {""}) == (
                run.waits_for,
                {name for name, _ in run.signals},
            )
            assert RunState.WAITING != row.state or not run.has_received(row.waits_for)
            if run.state is RunState.QUEUED:
                assert (row.available_at, row.dispatches) == (run.available_at, run.dispatches)
                assert row.dispatch_due_at == run.dispatch_due_at

    @invariant()
    def each_phase_completed_once_and_in_order_with_its_rows(self):
        """I2, I3, I6."""
        query = select(phase_results).order_by(phase_results.c.run_id, phase_results.c.position)
        results = [(row.run_id, row.phase, row.fence, row.owner) for row in self.connection.execute(query)]
        rows = self.connection.execute(text("SELECT run_id, phase FROM test_user_rows")).all()

        assert sorted(results) == sorted(
            (run.id, PHASES[position], fence, owner)
            for run in self.model.runs.values()
            for position, (fence, owner) in enumerate(run.results)
        )
        assert sorted(tuple(row) for row in rows if row.run_id in self.model.runs) == sorted(
            (run_id, phase) for run_id, phase, *_ in results
        )
        assert all(
            len(run.results) == run.cursor == len(PHASES)
            for run in self.model.runs.values()
            if run.state is RunState.SUCCEEDED
        )

    @invariant()
    def nobody_shares_a_run_a_subject_or_a_budget(self):
        """I1, I5, I8."""
        live = [run for run in self.model.runs.values() if run.state in LIVE]
        subjects = [run.subject for run in live if run.subject is not None]

        assert len(subjects) == len(set(subjects))
        for run in live:
            assert sum(run.holds(claim.fence, claim.owner) for claim in self.claims) == (run.state is RunState.RUNNING)
            assert run.starts <= MAX_ATTEMPTS

    @invariant()
    def what_was_told_is_in_the_ledger(self):
        """I7, for the last completions told."""
        kept = [given for given in self.told[-3:] if given.claim.run_id in self.model.runs]
        for given in kept:
            assert given.claim.run_id in completed(self.connection, [given])


def test_the_ledger_does_what_its_model_says(database, clock):
    """
    INVARIANT: I1 to I10 of the design, and that everything ends once faults stop.

    Breaks if a verb lets through what its guards should stop: a second owner, a late completion, a lost attempt.
    """
    how = settings(
        max_examples=LONG_RUN or EXAMPLES[database.url.get_backend_name()],
        stateful_step_count=50,
        derandomize=not LONG_RUN,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(lambda: Ledger(database, clock), settings=how)
