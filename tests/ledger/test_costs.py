"""Counted, not timed: statements, commits, and what a refusal writes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, text

from runclaim import migrations
from runclaim.database import Database
from runclaim.keys import nonce
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import ClaimRequest, claimed
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import fail
from runclaim.ledger.heartbeat import heartbeat
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.put_back import put_back
from runclaim.ledger.release import release
from runclaim.ledger.rescue import rescue, rescue_worker
from runclaim.ledger.resume import resume
from runclaim.ledger.retry import retry
from runclaim.states import TERMINAL
from tests.ledger.factories import (
    LEASE,
    WORKER,
    blocked_run,
    claim_again,
    claimed_run,
    claimed_runs,
    completion,
    due,
    failed_run,
    failure,
    finish,
    new_run,
    queued_run,
    queued_runs,
    take,
    take_all,
    wanted,
)
from tests.ledger.sql import row, statements_of

NOW = timedelta(0)


def new_of_subjects(conn, many):
    return [new_run(subject=f"{many}:{number}") for number in range(many)]


def known_already(conn, many):
    found = [new_run(f"known-{number}") for number in range(many)]
    enqueue(conn, found)
    return [new_run(f"known-{number}") for number in range(many)]


def messages(conn, many):
    return [wanted(conn, run_id) for run_id in queued_runs(conn, many)]


def duplicates(conn, many):
    return [ClaimRequest(claim.run_id, 0, nonce()) for claim in claimed_runs(conn, many)]


def lapsed(conn, many):
    return take_all(conn, messages(conn, many), lease=NOW)


def ended(conn, many):
    cancel(conn, queued_runs(conn, many, keep_key=NOW))


def ended_and_purged(conn, many):
    ended(conn, many)
    purge(conn, dict.fromkeys(TERMINAL, NOW))


#: A verb, what it is given, what it does with it, and how many statements that takes however many runs there are; two
#: numbers where PostgreSQL takes fewer than SQLite, as it can write to several tables in one.
COSTS = [
    ("enqueue", lambda conn, many: [new_run() for _ in range(many)], enqueue, (3, 1)),
    ("enqueue with subjects", new_of_subjects, enqueue, (5, 4)),
    ("enqueue again", known_already, enqueue, 2),
    ("claim", messages, take_all, (2, 1)),
    ("refuse a duplicate", duplicates, take_all, 1),
    ("read claims back", messages, claimed, 1),
    ("heartbeat", claimed_runs, lambda conn, claims: heartbeat(conn, [(claim, LEASE) for claim in claims]), 1),
    ("complete", claimed_runs, lambda conn, claims: complete(conn, [completion(claim) for claim in claims]), (3, 1)),
    ("read completions back", claimed_runs, lambda conn, claims: completed(conn, map(completion, claims)), 1),
    ("fail", claimed_runs, lambda conn, claims: fail(conn, [failure(claim) for claim in claims]), 2),
    ("release", claimed_runs, release, 2),
    ("cancel", queued_runs, cancel, 2),
    ("rescue", lapsed, lambda conn, _: rescue(conn, limit=500), 3),
    ("rescue a process's claims", claimed_runs, lambda conn, _: rescue_worker(conn, WORKER), 3),
    ("rescue nothing", claimed_runs, lambda conn, _: rescue(conn), 1),
    ("dispatch", lambda conn, many: queued_runs(conn, many, dispatch_after=NOW), lambda conn, _: due(conn), 1),
    (
        "put back",
        queued_runs,
        lambda conn, runs: put_back(conn, [(run, 0) for run in runs], task="review.plan", delay=NOW),
        1,
    ),
    ("purge", ended, lambda conn, _: purge(conn, dict.fromkeys(TERMINAL, NOW)), 1),
    ("purge keys", ended_and_purged, lambda conn, _: purge_keys(conn), 1),
]


@pytest.mark.parametrize("given, verb, statements", [each[1:] for each in COSTS], ids=[each[0] for each in COSTS])
def test_a_verb_takes_as_many_statements_for_one_run_as_for_200(conn, given, verb, statements):
    """
    INVARIANT: every verb is set-based.

    Breaks if a verb loops over its runs.
    """
    counted = []
    for many in (1, 200):
        made = given(conn, many)
        counted.append(len(statements_of(conn, lambda conn, made=made: verb(conn, made))))

    if isinstance(statements, tuple):
        statements = statements[conn.dialect.name == "postgresql"]
    assert [statements, statements] == counted


@pytest.mark.parametrize("again, made", [(retry, failed_run), (resume, blocked_run)], ids=["retry", "resume"])
def test_sending_a_run_on_takes_four_statements(conn, again, made):
    run_id = made(conn).run_id

    assert 4 == len(statements_of(conn, lambda conn: again(conn, run_id)))


def test_a_run_of_three_short_phases_takes_five_commits(database):
    commits = []

    def note(conn):
        commits.append(conn)

    event.listen(database.engine, "commit", note)
    try:
        run_id = database.run(queued_run)
        claim = database.run(lambda conn: take(conn, ClaimRequest(run_id, 0, nonce())))
        while claim is not None:
            claim = database.run(lambda conn, claim=claim: finish(conn, claim)).claim
    finally:
        event.remove(database.engine, "commit", note)

    assert 5 == len(commits)


def duplicate(database):
    """A message whose run somebody has claimed."""
    return ClaimRequest(database.run(claimed_run).run_id, 0, nonce())


def test_a_duplicate_changes_no_row_and_takes_no_transaction_number(postgres):
    """
    INVARIANT: a refused claim waits for no disk.

    Breaks if a refusal writes or locks anything: a transaction without a number has nothing to flush at COMMIT.
    """
    message = duplicate(postgres)
    version = text("SELECT xmin, ctid FROM runclaim_runs")
    with postgres.begin() as conn:
        before = (row(conn, message.run_id), conn.execute(version).one())
        refused = take(conn, message)
        number = conn.execute(text("SELECT pg_current_xact_id_if_assigned()")).scalar()
        after = (row(conn, message.run_id), conn.execute(version).one())

    assert (None, None) == (refused, number)
    assert after == before


def test_fifty_duplicates_write_nothing_to_the_log_of_a_server(private_postgres):
    """A server of its own, as the log is the whole server's."""
    database = Database(private_postgres.url, patience=timedelta(seconds=5))
    migrations.upgrade(database)
    message = duplicate(database)
    with database.engine.connect() as conn:
        # What reading would tidy up on the way is tidied up first.
        conn.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM (ANALYZE)")

    def position(conn):
        return conn.execute(text("SELECT pg_current_wal_insert_lsn()::text")).scalar_one()

    refused = [database.run(lambda conn: take(conn, message)) for _ in range(10)]
    before = database.ask(position)
    refused += [database.run(lambda conn: take(conn, message)) for _ in range(50)]
    after = database.ask(position)
    database.close()

    assert [None] * 60 == refused
    assert after == before


def test_a_duplicate_writes_nothing_to_the_log_of_a_file(sqlite):
    message = duplicate(sqlite)
    log = Path(f"{sqlite.url.database}-wal")
    before = log.read_bytes()
    with sqlite.begin() as conn:
        changes = conn.connection.dbapi_connection.total_changes
        refused = take(conn, message)
        changed = conn.connection.dbapi_connection.total_changes - changes

    assert (None, 0) == (refused, changed)
    assert log.read_bytes() == before


def test_a_claim_of_a_lapsed_run_is_the_only_thing_that_is_written(conn, clock, claimed_run):
    """A refusal of every other verb changes nothing either."""
    release(conn, [claimed_run])
    claim_again(conn, claimed_run.run_id)
    before = row(conn, claimed_run.run_id)

    assert {} == heartbeat(conn, [(claimed_run, LEASE)])
    assert {} == complete(conn, [completion(claimed_run)])
    assert {} == fail(conn, [failure(claimed_run)])
    assert {} == release(conn, [claimed_run])
    assert row(conn, claimed_run.run_id) == before
