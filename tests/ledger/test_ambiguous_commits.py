"""
A COMMIT whose answer never comes: the ledger is asked what happened, and nothing is assumed.

Each cut really happens, on a real connection to a real server; a test whose cut did not land fails.
"""

from __future__ import annotations

import random
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from runclaim.database import Database
from runclaim.errors import ClaimLost, LedgerUnavailable
from runclaim.events import EventType
from runclaim.flows.client.signal import Signal
from runclaim.flows.inbound.route import Route
from runclaim.flows.run.claimed_writes import ClaimedWrites
from runclaim.flows.run.tally import Tally
from runclaim.keys import nonce
from runclaim.ledger import counters, read
from runclaim.ledger.claim import ClaimRequest, claimed
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.recover import recover, recovered
from runclaim.ledger.rerun import reran, rerun
from runclaim.ledger.rescue import rescue
from runclaim.ledger.signal import Answer, delivered
from runclaim.states import RunState
from tests.ledger.concurrency import PATIENCE, Actor, until
from tests.ledger.factories import (
    LEASE,
    PHASES,
    claim_again,
    claimed_run,
    completion,
    finish,
    new_run,
    queued_run,
    send,
    take,
    waiting_run,
)
from tests.ledger.sql import count
from tests.pgcut import CuttingProxy, When


@pytest.fixture
def proxy(postgres):
    with CuttingProxy(postgres.url.render_as_string(hide_password=False)) as found:
        yield found


@pytest.fixture
def cut_off(proxy):
    """The ledger as a process sees it whose connections can be cut."""
    database = Database(proxy.url, patience=timedelta(seconds=PATIENCE))
    yield database
    database.close()


@pytest.fixture
def user_rows(postgres):
    """A table without constraints, as an application may have one; gives the number of its rows."""
    with postgres.begin() as conn:
        conn.execute(text("CREATE TABLE test_user_rows (run_id uuid, phase text)"))

    def found():
        with postgres.read() as conn:
            return conn.execute(text("SELECT count(*) FROM test_user_rows")).scalar_one()

    yield found
    with postgres.begin() as conn:
        conn.execute(text("DROP TABLE test_user_rows"))


def enqueue_one(database, run):
    return database.run(lambda conn: enqueue(conn, [run]))[0]


def rerun_one(database, run):
    """As flows do it: read back by the new run's id."""
    return database.run(lambda conn: rerun(conn, [run]), read_back=lambda conn: reran(conn, [run]))[0]


def recover_one(database, run):
    """As flows do it: read back by the call's nonce."""
    mine = nonce()
    return database.run(
        lambda conn: recover(conn, run, nonce=mine), read_back=lambda conn: recovered(conn, run, nonce=mine)
    )


def claim_one(database, asked, **how):
    """As the runner does it: read back by the nonce."""

    def work(conn):
        taken = take(conn, asked, **how)
        return [] if taken is None else [taken]

    found = database.run(work, read_back=lambda conn: claimed(conn, [asked]) or None)
    return found[0] if found else None


def complete_one(database, given, meanwhile=lambda: None):
    """As the runner does it: with a row of the application's, read back by the claim."""
    run_id = given.claim.run_id

    def work(conn):
        values = {"run_id": run_id, "phase": given.claim.phase}
        conn.execute(text("INSERT INTO test_user_rows VALUES (:run_id, :phase)"), values)
        moved = complete(conn, [given]).get(run_id)
        if moved is None:
            raise ClaimLost(run_id, given.claim.phase, given.claim.fence)
        return moved

    def read_back(conn):
        meanwhile()
        return completed(conn, [given]).get(run_id)

    return database.run(work, read_back=read_back)


def late(proxy, postgres, work):
    """Cut `work`'s COMMIT, and let it reach the server only when its repetition waits for what it has locked."""
    cut = proxy.order(When.LATE)
    with Actor(postgres) as watching:
        answer = watching.start(lambda _conn: work())
        until(cut.landed.is_set, what="the cut")
        until(lambda: somebody_waits(postgres), what="the repetition to run into its own first try")
        cut.let_go.set()
        found = answer.result(PATIENCE)
    assert cut.committed.wait(PATIENCE)
    return found


def somebody_waits(postgres):
    with postgres.read() as conn:
        return conn.execute(
            text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
            )
        ).scalar_one()


def cut_short(proxy, postgres, when, work):
    """What `work()` gives although its COMMIT is cut."""
    if when is When.LATE:
        return late(proxy, postgres, work)
    cut = proxy.order(when)
    found = work()
    assert cut.landed.is_set()
    assert cut.committed.is_set() == (when is When.AFTER)
    return found


@pytest.mark.parametrize("when", When)
def test_an_enqueue_makes_one_run_and_says_that_it_did(postgres, proxy, cut_off, when):
    """
    INVARIANT: the caller whose transaction made the run is told so, and publishes it.

    Breaks if enqueue does not recognise its own run, or uses a new id when it is repeated.
    """
    run = new_run("pr-7", subject="acme")

    found = cut_short(proxy, postgres, when, lambda: enqueue_one(cut_off, run))

    assert (found.run_id, found.created) == (run.run_id, True)
    with postgres.read() as conn:
        assert (1, 1, 1) == (count(conn, "runs"), count(conn, "run_keys"), count(conn, "events"))
        assert read.run(conn, run.run_id).state is RunState.QUEUED


@pytest.mark.parametrize("when", When)
def test_a_rerun_counts_once_and_says_that_it_did(postgres, proxy, cut_off, when):
    """
    INVARIANT: a rerun whose COMMIT was cut spends one number.

    Breaks if the repetition does not recognise that the key already names its run.
    """
    older, run = postgres.run(lambda conn: queued_run(conn, "pr-7")), new_run("pr-7")

    found = cut_short(proxy, postgres, when, lambda: rerun_one(cut_off, run))

    assert (found.run_id, found.created) == (run.run_id, True)
    with postgres.read() as conn:
        assert (2, 1) == (count(conn, "runs"), read.run(conn, run.run_id).rerun)
        assert read.run(conn, older).state is RunState.SUPERSEDED


@pytest.mark.parametrize("when", When)
def test_a_recovery_does_not_refuse_the_run_that_it_made_itself(postgres, proxy, cut_off, when):
    """
    INVARIANT: RunExists means that somebody else's run is there.

    Breaks if a recovery whose COMMIT was cut is repeated without asking whose run it finds.
    """
    run = new_run("pr-7")

    found = cut_short(proxy, postgres, when, lambda: recover_one(cut_off, run))

    assert (found.run_id, found.created) == (run.run_id, True)
    with postgres.read() as conn:
        assert (1, 1, 1) == (count(conn, "runs"), count(conn, "run_keys"), count(conn, "events"))


@pytest.mark.parametrize("when", When)
def test_a_claim_is_adopted_by_the_worker_that_made_it(postgres, proxy, cut_off, when):
    """
    INVARIANT: a claim whose COMMIT was cut is one attempt, not two, and somebody has it.

    Breaks if a lost answer is taken for a refusal (the run would wait for its lease) or claimed anew by a new nonce.
    """
    run_id = postgres.run(queued_run)
    asked = ClaimRequest(run_id, 0, nonce())

    found = cut_short(proxy, postgres, when, lambda: claim_one(cut_off, asked))

    assert found is not None
    with postgres.read() as conn:
        standing, view = read.standing(conn, run_id), read.run(conn, run_id)
        kinds = [event.type for event in read.journal(conn, run_id)]
    assert (standing.fence, standing.owner) == (found.fence, found.owner) == (1, asked.owner)
    assert 1 == view.attempts
    assert 1 == kinds.count(EventType.PHASE_STARTED)


@pytest.mark.parametrize("way", ["inline", "through the broker", "last"])
@pytest.mark.parametrize("when", When)
def test_a_completion_counts_once_and_its_worker_goes_on(postgres, proxy, cut_off, user_rows, when, way):
    """
    INVARIANT: a completion that was told is in the ledger, with its rows, once.

    Breaks if a lost answer is taken for a failure (the body would run again) or for a success (it may be lost).
    """
    phases = {"phases": ("plan",)} if way == "last" else {}
    claim = postgres.run(lambda conn: claimed_run(conn, **phases))
    given = completion(claim, inline=way == "inline")

    moved = cut_short(proxy, postgres, when, lambda: complete_one(cut_off, given))

    with postgres.read() as conn:
        view, standing = read.run(conn, claim.run_id), read.standing(conn, claim.run_id)
        assert (1, 1) == (count(conn, "phase_results"), user_rows())
    assert (moved.state, moved.fence) == (view.state, view.fence)
    if way == "inline":
        assert (moved.claim.fence, moved.claim.owner) == (standing.fence, standing.owner)
        assert postgres.run(lambda conn: finish(conn, moved.claim)) is not None


def test_a_completion_that_did_not_commit_and_lost_its_claim_meanwhile_is_refused(postgres, proxy, cut_off, user_rows):
    claim = postgres.run(lambda conn: claimed_run(conn, how={"lease": timedelta(0)}))

    def taken_over():
        if postgres.run(rescue):
            postgres.run(lambda conn: finish(conn, claim_again(conn, claim.run_id), result='"fresh"'))

    cut = proxy.order(When.BEFORE)
    with pytest.raises(ClaimLost):
        complete_one(cut_off, completion(claim, '"stale"'), meanwhile=taken_over)
    assert cut.landed.is_set()
    with postgres.read() as conn:
        assert {"plan": "fresh"} == read.results(conn, claim.run_id)
    assert 0 == user_rows()


def test_a_completion_that_committed_and_was_superseded_meanwhile_is_told_without_a_claim(
    postgres, proxy, cut_off, user_rows
):
    claim = postgres.run(lambda conn: claimed_run(conn, subject="acme"))

    def superseded():
        postgres.run(lambda conn: queued_run(conn, subject="acme"))

    cut = proxy.order(When.AFTER)
    moved = complete_one(cut_off, completion(claim), meanwhile=superseded)

    assert cut.committed.is_set()
    assert (RunState.SUPERSEDED, None) == (moved.state, moved.claim)
    assert 1 == user_rows()


def test_a_claim_that_committed_and_was_rescued_meanwhile_is_not_adopted(postgres, proxy, cut_off):
    run_id = postgres.run(queued_run)
    asked = ClaimRequest(run_id, 0, nonce())

    def read_back(conn):
        postgres.run(rescue)
        return claimed(conn, [asked]) or None

    cut = proxy.order(When.AFTER)
    found = cut_off.run(lambda conn: take(conn, asked, lease=timedelta(0)), read_back=read_back)

    assert cut.committed.is_set()
    assert found is None
    with postgres.read() as conn:
        assert (RunState.QUEUED, 1) == (read.run(conn, run_id).state, read.run(conn, run_id).attempts)


def test_sixty_cuts_in_twenty_runs_lose_nothing_and_double_nothing(postgres, proxy, cut_off, user_rows):
    """
    INVARIANT: whatever a process was told is what the ledger holds.

    Breaks if any verb of a run assumes an answer it did not get.
    """
    rng = random.Random(7)
    cuts = []

    def perhaps_cut():
        cuts.append(proxy.order(rng.choice([When.BEFORE, When.AFTER])))

    for number in range(20):
        run = new_run(f"pr-{number}", max_attempts=1)
        perhaps_cut()
        assert enqueue_one(cut_off, run).created
        claim = claim_one(cut_off, ClaimRequest(run.run_id, 0, nonce()), lease=LEASE)
        perhaps_cut()
        while claim is not None:
            claim = complete_one(cut_off, completion(claim)).claim
            if rng.random() < 0.5:
                perhaps_cut()
    proxy.withdraw()

    with postgres.read() as conn:
        assert {("review", RunState.SUCCEEDED): 20} == read.counts(conn)
        assert (60, 60) == (count(conn, "phase_results"), user_rows())
        assert 20 * 9 == count(conn, "events")
    landed = [cut for cut in cuts if cut.landed.is_set()]
    assert len(landed) >= 50
    assert {When.BEFORE, When.AFTER} == {cut.when for cut in landed}


@pytest.mark.parametrize("when", When)
def test_a_signal_whose_commit_is_cut_is_told_as_it_is(postgres, proxy, cut_off, when):
    """
    INVARIANT: whoever delivered a signal is told so, and publishes the run.

    Breaks if the repetition, which finds the signal there, is believed: the run would wait for its dispatch.
    """
    run_id = postgres.run(waiting_run)

    def deliver():
        return cut_off.run(
            lambda conn: send(conn, run_id, call="mine"),
            read_back=lambda conn: delivered(conn, run_id, "approved", signal_id="1", call="mine"),
        )

    told = cut_short(proxy, postgres, when, deliver)

    assert (Answer.DELIVERED, True, 1) == (told.answer, told.moved, told.due.fence)
    with postgres.read() as conn:
        assert (1, 1) == (count(conn, "signals"), read.run(conn, run_id).fence)
        assert 1 == [event.type for event in read.journal(conn, run_id)].count(EventType.RUN_SIGNALED)


@pytest.mark.parametrize("waits", [False, True], ids=["a new run", "a waiting run"])
@pytest.mark.parametrize("when", When)
def test_a_route_whose_commit_is_cut_is_told_as_it_is(postgres, proxy, cut_off, when, waits):
    older, newer = new_run("pr-7", waits_for="approved"), new_run("pr-7", waits_for="approved")
    if waits:
        postgres.run(lambda conn: enqueue(conn, [older]))
    phase = SimpleNamespace(name=PHASES[0], position=0)
    route = Route(newer, phase, Signal("approved", "event-1", "1"))

    landed = cut_short(proxy, postgres, when, lambda: cut_off.run(route.work, read_back=route.read_back))

    assert (landed.made.run_id, landed.made.created) == ((older if waits else newer).run_id, not waits)
    assert (True, 1) == (landed.started, landed.due.fence)
    with postgres.read() as conn:
        assert (1, 1) == (count(conn, "runs"), count(conn, "signals"))


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_total_whose_commit_got_no_answer_is_added_once(postgres, proxy, cut_off, when):
    """
    INVARIANT: what a process counted is in the totals once.

    Breaks if a total is added again although the first COMMIT went through, or is not although it did not.
    """
    tally = counting(cut_off)
    cut = proxy.order(when)
    tally.write(patience=PATIENCE)
    tally.write(patience=PATIENCE)

    assert cut.landed.is_set()
    assert {("duplicates_refused", "review"): 3} == postgres.ask(counters.totals)


def test_a_total_whose_commit_is_still_under_way_is_written_when_that_has_ended(postgres, proxy, cut_off):
    """Breaks if a transaction that may commit yet is taken for one that was rolled back."""
    tally = counting(cut_off)
    cut = proxy.order(When.LATE)
    with pytest.raises(LedgerUnavailable):
        tally.write(patience=PATIENCE)
    cut.let_go.set()
    assert cut.committed.wait(PATIENCE)
    tally.write(patience=PATIENCE)

    assert {("duplicates_refused", "review"): 3} == postgres.ask(counters.totals)


def counting(database):
    tally = Tally(database)
    for _ in range(3):
        tally.count("duplicates_refused", "review")
    return tally


def test_a_doubt_stays_a_doubt_whatever_comes_after_it(postgres, proxy, cut_off):
    """
    INVARIANT: what may have committed is asked about before it is repeated.

    Breaks if an error that committed nothing, of a later try, makes the earlier lost connection forgotten.
    """
    run, tries, asks = new_run("pr-7"), [], []

    def work(conn):
        tries.append(1)
        return enqueue(conn, [run])

    def read_back(conn):
        asks.append(1)
        if len(asks) <= 2:
            conn.execute(text("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"))
        return "committed" if read.standing(conn, run.run_id) else None

    cut = proxy.order(When.AFTER)
    answer = cut_off.run(work, read_back=read_back)

    assert cut.committed.is_set()
    assert ("committed", 1, 3) == (answer, len(tries), len(asks))


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_named_session_whose_commit_was_cut_is_ones_own(postgres, proxy, cut_off, when):
    """
    INVARIANT: NamedSessionMoved means that somebody else was first.

    Breaks if a repetition does not recognise the version that its own first try wrote.
    """
    claim = postgres.run(claimed_run)
    notes = ClaimedWrites(cut_off, claim)
    versions = []
    for seen in (0, 1):
        cut = proxy.order(when)
        versions.append(notes.keep_named("reviewer", f"session-{seen}", seen))
        assert cut.landed.is_set()

    assert [1, 2] == versions
    assert ("session-1", 2) == notes.read_named("reviewer")


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
def test_a_call_whose_first_note_was_cut_is_still_the_first(postgres, proxy, cut_off, when):
    """
    INVARIANT: a call that was never made is not looked up.

    Breaks if the note that this very attempt has committed is taken for an earlier attempt's.
    """
    notes = ClaimedWrites(cut_off, postgres.run(claimed_run))
    cut = proxy.order(when)
    first = notes.begin_act("charge")
    later = notes.begin_act("charge")

    assert cut.landed.is_set()
    assert (True, False) == (first[0], later[0])
