"""Many at once, each with a connection of its own, on both databases."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from runclaim.keys import nonce
from runclaim.ledger import counters, read
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import ClaimRequest
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.rescue import rescue
from runclaim.ledger.retry import retry
from runclaim.states import TERMINAL, RunState
from tests.ledger.concurrency import DEADLOCK, refusals, together
from tests.ledger.factories import (
    LEASE,
    claim_again,
    claimed_runs,
    completion,
    due,
    failed_run,
    finish,
    new_run,
    queued_run,
    queued_runs,
    take,
    take_all,
    wanted,
)
from tests.ledger.sql import count

NOW = timedelta(0)


def test_32_callers_of_one_key_make_one_run_and_one_of_them_made_it(database):
    """
    INVARIANT: one run a key, however many ask in the same millisecond.

    Breaks if the key is not unique, or anybody asks before they insert.
    """
    found = together(32, lambda _: database.run(lambda conn: enqueue(conn, [new_run("pr-7")]))[0])

    assert 1 == len({each.run_id for each in found})
    assert 1 == sum(each.created for each in found)
    with database.read() as conn:
        assert (1, 1) == (count(conn, "runs"), count(conn, "run_keys"))


def test_16_callers_of_one_subject_leave_one_run_alive(database):
    together(16, lambda _: database.run(lambda conn: enqueue(conn, [new_run(subject="pr-7")])))

    with database.read() as conn:
        found = conn.execute(text("SELECT generation, state FROM runclaim_runs ORDER BY generation")).all()
        assert [generation for generation, _ in found] == list(range(1, 17))
        assert ["superseded"] * 15 + ["queued"] == [state for _, state in found]


def test_batches_with_the_same_keys_and_subjects_in_any_order_all_find_the_same_runs(database):
    """
    INVARIANT: run keys and subjects are locked in sorted order.

    Breaks if either is taken in the order of the batch: the database would end a circle by ending a transaction.
    """
    keys = [f"pr-{number}" for number in range(80)]

    def batch(number):
        mine = random.Random(number).sample(keys, len(keys))
        runs = [new_run(key, subject=key) for key in mine]
        made = database.run(lambda conn: enqueue(conn, runs))
        database.run(lambda conn: enqueue(conn, [new_run(subject=key) for key in mine]))
        return {key: (each.run_id, each.created) for key, each in zip(mine, made, strict=True)}

    with refusals(database) as refused:
        found = together(8, batch)

    for key in keys:
        assert 1 == len({each[key][0] for each in found})
        assert 1 == sum(each[key][1] for each in found)
    assert DEADLOCK not in refused


def test_16_deliveries_of_one_message_start_one_body(database):
    run_id = database.run(queued_run)

    found = together(16, lambda _: database.run(lambda conn: take(conn, ClaimRequest(run_id, 0, nonce()))))

    assert 1 == sum(each is not None for each in found)
    with database.read() as conn:
        assert 1 == read.run(conn, run_id).attempts


def test_workers_that_claim_overlapping_sets_share_them_without_overlap(database):
    ids = database.run(lambda conn: queued_runs(conn, 60))

    def work(number):
        mine = random.Random(number).sample(ids, 40)
        asked = [ClaimRequest(run_id, 0, nonce()) for run_id in mine]
        return database.run(lambda conn: take_all(conn, asked))

    taken = Counter(claim.run_id for claims in together(6, work) for claim in claims)

    assert {1} == set(taken.values())


def test_beats_and_completions_of_the_same_claims_keep_out_of_each_others_way(database):
    """
    INVARIANT: sets of runs are locked in the order of their ids.

    Breaks if a verb locks them in the order of its plan: the database would end a circle by ending a transaction.
    """
    claims = database.run(lambda conn: claimed_runs(conn, 40))

    def work(number):
        mine = random.Random(number).sample(claims, len(claims))
        if number % 2:
            return database.run(lambda conn: heartbeat(conn, [(claim, LEASE) for claim in mine]))
        return database.run(lambda conn: complete(conn, [completion(claim) for claim in mine]))

    with refusals(database) as refused:
        found = together(8, work)

    assert Counter(run_id for moved in found[::2] for run_id in moved) == {claim.run_id: 1 for claim in claims}
    assert DEADLOCK not in refused


def test_four_rescuers_give_every_lapsed_claim_back_once(database):
    ids = database.run(lambda conn: queued_runs(conn, 50))
    database.run(lambda conn: take_all(conn, [wanted(conn, run_id) for run_id in ids], lease=NOW))

    def work(_):
        found = []
        while some := database.run(lambda conn: rescue(conn, limit=7)):
            assert len(some) <= 7
            found += some
        return found

    rescued = Counter(run_id for found in together(4, work) for run_id in found)

    assert {1} == set(rescued.values())
    assert set(rescued) <= set(ids)
    # Whoever finds rows locked leaves them to the one who holds them.
    database.run(rescue)
    with database.read() as conn:
        assert {1} == {read.run(conn, run_id).losses for run_id in ids}


def test_four_beats_name_every_due_run_once(database):
    ids = database.run(lambda conn: queued_runs(conn, 50, dispatch_after=NOW))

    def work(_):
        found = []
        while some := database.run(lambda conn: due(conn, limit=7)):
            assert len(some) <= 7
            found += [each.run_id for each in some]
        return found

    named = Counter(run_id for found in together(4, work) for run_id in found)

    assert {1} == set(named.values())
    assert set(named) <= set(ids)


def test_of_8_who_retry_a_run_one_does(database):
    run_id = database.run(failed_run).run_id

    assert 1 == sum(together(8, lambda _: database.run(lambda conn: retry(conn, run_id))))


def test_retries_and_newer_runs_leave_one_run_of_a_subject_alive(database):
    older = [database.run(lambda conn: failed_run(conn, subject="pr-7")).run_id for _ in range(4)]

    def work(number):
        if number < 4:
            return database.run(lambda conn: retry(conn, older[number]))
        return database.run(lambda conn: enqueue(conn, [new_run(subject="pr-7")]))

    together(8, work)

    with database.read() as conn:
        live = conn.execute(text("SELECT count(*) FROM runclaim_runs WHERE finished_at IS NULL")).scalar_one()
        assert 1 == live


def test_a_run_goes_through_its_phases_once_while_everybody_pulls_at_it(database):
    """
    INVARIANT: every phase completes exactly once, in order, whatever happens around it.

    Breaks if any guard of claim, complete or rescue is missing.
    """
    ids = database.run(lambda conn: queued_runs(conn, 6, max_attempts=1000, max_losses=1000))

    def ended():
        with database.read() as conn:
            return all(state in TERMINAL for state in read.states(conn, ids).values())

    def step(run_id, rng):
        with database.read() as conn:
            found = read.run(conn, run_id)
        if found.state is not RunState.QUEUED:
            return
        lease = NOW if rng.random() < 0.3 else LEASE
        asked = ClaimRequest(run_id, found.fence, nonce())
        claim = database.run(lambda conn: take(conn, asked, phase=found.phase, lease=lease))
        while claim is not None:
            how = {"inline": rng.random() < 0.5, "lease": lease, "max_attempts": 1000, "max_losses": 1000}
            moved = database.run(partial(finish, claim=claim, **how))
            claim = moved and moved.claim

    def work(number):
        rng = random.Random(number)
        while not ended():
            if number == 0:
                database.run(rescue)
            else:
                step(rng.choice(ids), rng)

    together(5, work)

    with database.read() as conn:
        assert {RunState.SUCCEEDED} == set(read.states(conn, ids).values())
        assert {("plan", "deliver", "compound")} == {tuple(read.results(conn, run_id)) for run_id in ids}
        assert 3 * len(ids) == count(conn, "phase_results")


def test_enqueues_during_a_purge_never_make_purged_work_again(database):
    """
    INVARIANT: the key outlives the run.

    Breaks if purge deletes the key with the run, or a tombstone is looked for before the insert.
    """
    keys = [f"pr-{number}" for number in range(10)]
    first = {key: database.run(lambda conn, key=key: queued_run(conn, key)) for key in keys}
    database.run(lambda conn: cancel(conn, list(first.values())))

    def work(number):
        if number == 0:
            while database.run(lambda conn: purge(conn, dict.fromkeys(TERMINAL, NOW), limit=2)):
                database.run(purge_keys)
            return []
        return [database.run(lambda conn, key=key: enqueue(conn, [new_run(key)]))[0] for key in keys]

    found = together(5, work)

    assert not any(each.created for made in found for each in made)
    assert {each.run_id for made in found for each in made} == set(first.values())


def test_counts_from_many_processes_add_up(database):
    def work(number):
        for _ in range(5):
            database.run(lambda conn: counters.add(conn, {("duplicates", "review"): 1, (f"own-{number}", "review"): 2}))

    together(6, work)

    with database.read() as conn:
        assert 30 == counters.totals(conn)["duplicates", "review"]


@pytest.mark.parametrize("callers", [12])
def test_a_cancel_wins_or_loses_but_never_both(database, callers):
    run_id = database.run(queued_run)

    def work(number):
        if number % 2:
            return database.run(lambda conn: cancel(conn, [run_id]))
        return database.run(lambda conn: take(conn, ClaimRequest(run_id, 0, nonce())))

    found = together(callers, work)

    claims = [each for each in found[::2] if each is not None]
    canceled = [answer[run_id] for answer in found[1::2] if answer]
    with database.read() as conn:
        state = read.states(conn, [run_id])[run_id]
    assert (len(claims), canceled, state) in [
        (1, [RunState.RUNNING], RunState.RUNNING),
        (0, [RunState.CANCELED], RunState.CANCELED),
    ]


def test_a_second_claim_after_a_rescue_is_told_apart_from_the_first(database):
    run_id = database.run(queued_run)
    stale = database.run(lambda conn: claim_again(conn, run_id, lease=NOW))
    database.run(rescue)
    fresh = database.run(lambda conn: claim_again(conn, run_id))

    found = together(2, lambda number: database.run(lambda conn: finish(conn, [stale, fresh][number])))

    assert found[0] is None
    assert "deliver" == found[1].claim.phase
