"""
Each index serves the verb that it names, with twenty thousand finished runs in the ledger.

The statements are the verbs' own, caught on their way to the driver. PostgreSQL plans each twice: for the values at
hand, and once for all values, as it does for a statement that was prepared on a kept connection.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, text, update

from runclaim.keys import run_key
from runclaim.ledger import claim as claims
from runclaim.ledger import read
from runclaim.ledger.actions.claim import claimed_actions
from runclaim.ledger.actions.decide import actions_of, list_actions
from runclaim.ledger.actions.settle import ActionState
from runclaim.ledger.body.findings import findings_of
from runclaim.ledger.body.sessions import sessions_of
from runclaim.ledger.cancel import cancel
from runclaim.ledger.claim import claimed
from runclaim.ledger.complete import complete, completed
from runclaim.ledger.doors import idempotency_keys as answers
from runclaim.ledger.doors import tokens
from runclaim.ledger.doors.dedup_windows import forget
from runclaim.ledger.doors.follow import journal_after
from runclaim.ledger.doors.gauges import gauges
from runclaim.ledger.doors.idempotency_keys import count_answers, forget_answers
from runclaim.ledger.doors.outside_workers import ready, recorded_by
from runclaim.ledger.doors.run_pages import RunFilter, count_live, list_runs
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.fail import fail
from runclaim.ledger.heartbeat import heartbeat, passed_over
from runclaim.ledger.journal import who_canceled
from runclaim.ledger.listeners import tail
from runclaim.ledger.listeners.tail import after
from runclaim.ledger.listeners.untold import due_untold, held_up, is_due
from runclaim.ledger.purge import purge, purge_keys
from runclaim.ledger.put_back import put_back
from runclaim.ledger.release import release
from runclaim.ledger.rerun import rerun
from runclaim.ledger.rescue import rescue, rescue_worker
from runclaim.ledger.retry import retry
from runclaim.ledger.run_keys import find_runs
from runclaim.models import actions, findings, metadata
from runclaim.states import TERMINAL, RunState
from tests import servers
from tests.ledger.factories import (
    LEASE,
    WORKER,
    claimed_runs,
    completion,
    due,
    failure,
    new_run,
    queued_run,
    queued_runs,
    send,
    take_all,
    waiting_run,
    wanted,
)
from tests.ledger.history import DAY, HISTORY, ID, LONG_AGO, OLD, RUNS, ledger_with_history, plan_one
from tests.ledger.planned_verbs import (
    end_one_subject,
    free_again,
    recovered_twice,
    refused,
    send_one,
    settle_one,
    supersede,
    supersede_one,
)
from tests.ledger.scans import generic, literal, scans
from tests.ledger.sql import statements_of


@pytest.fixture(scope="module")
def old_sqlite(tmp_path_factory):
    """Never analyzed, as nobody does that to a file."""
    with ledger_with_history(f"sqlite:///{tmp_path_factory.mktemp('history')}/ledger.db") as database:
        yield database


@pytest.fixture(scope="module")
def old_postgres(postgres_server):
    with servers.database(postgres_server) as url, ledger_with_history(url) as database:
        yield database


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def conn(request):
    """A transaction on a ledger with a long history; rolled back."""
    database = request.getfixturevalue("old_sqlite" if request.param == "sqlite" else "old_postgres")
    with database.engine.connect() as found, found.begin() as transaction:
        yield found
        transaction.rollback()


@pytest.fixture(scope="module")
def longer_postgres(postgres_server):
    """With a backlog, and ten times as long a history."""
    with servers.database(postgres_server) as url, ledger_with_history(url) as database:
        with database.begin() as conn:
            more = f"generate_series({HISTORY + 1}, {10 * HISTORY}) AS series(n)"
            made = RUNS.format(id=ID["postgresql"], at=LONG_AGO["postgresql"], series=more)
            conn.execute(text(made.replace(":", "\\:")))
            for _ in range(3):
                queued_runs(conn, 1000)
            conn.exec_driver_sql("ANALYZE")
        yield database


@pytest.fixture
def longer(longer_postgres):
    """A transaction on it; rolled back."""
    with longer_postgres.engine.connect() as found, found.begin() as transaction:
        yield found
        transaction.rollback()


RUN = "runclaim_runs"
ACTION = "runclaim_actions"
FAILED = RunFilter(project="default", states=frozenset({RunState.FAILED}))
PLACE = "2026-11-20T00:00:00.000000Z/00000000-0000-0000-0000-000000004000"
SINCE = datetime(2026, 11, 20, tzinfo=UTC)
VERBS = {
    "enqueue": (lambda conn: enqueue(conn, [new_run()]), set()),
    "supersede": (supersede, {(RUN, "ix_runclaim_runs_subject")}),
    "enqueue again": (
        lambda conn: enqueue(conn, [new_run("again"), new_run("other")]) and enqueue(conn, [new_run("again")]),
        {("runclaim_run_keys", "pk_runclaim_run_keys"), (RUN, "pk_runclaim_runs")},
    ),
    "enqueue a free key": (free_again, {("runclaim_run_keys", "pk_runclaim_run_keys"), (RUN, "pk_runclaim_runs")}),
    "enqueue refused": (refused, {("runclaim_run_keys", "pk_runclaim_run_keys")}),
    "rerun": (
        lambda conn: queued_run(conn, "again") and rerun(conn, [new_run("again"), new_run("other")]),
        {("runclaim_run_keys", "pk_runclaim_run_keys"), (RUN, "pk_runclaim_runs")},
    ),
    "recover": (recovered_twice, {("runclaim_run_keys", "pk_runclaim_run_keys"), (RUN, "pk_runclaim_runs")}),
    "claim": (
        lambda conn: take_all(conn, [wanted(conn, run_id) for run_id in queued_runs(conn, 3)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "claim many": (
        lambda conn: take_all(conn, [wanted(conn, run_id) for run_id in queued_runs(conn, 9)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "claimed": (lambda conn: claimed(conn, [wanted(conn, queued_run(conn))]), {(RUN, "pk_runclaim_runs")}),
    "heartbeat": (
        lambda conn: heartbeat(conn, [(claim, LEASE) for claim in claimed_runs(conn, 3)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "complete": (
        lambda conn: complete(conn, [completion(claim) for claim in claimed_runs(conn, 3)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "complete many": (
        lambda conn: complete(conn, [completion(claim) for claim in claimed_runs(conn, 9)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "completed": (
        lambda conn: completed(conn, [completion(claim) for claim in claimed_runs(conn, 3)]),
        {(RUN, "pk_runclaim_runs"), ("runclaim_phase_results", "pk_runclaim_phase_results")},
    ),
    "fail": (
        lambda conn: fail(conn, [failure(claim) for claim in claimed_runs(conn, 3)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "release": (lambda conn: release(conn, claimed_runs(conn, 3)), {(RUN, "pk_runclaim_runs")}),
    "cancel": (lambda conn: cancel(conn, queued_runs(conn, 3)), {(RUN, "pk_runclaim_runs")}),
    "retry": (
        lambda conn: retry(conn, OLD),
        {(RUN, "pk_runclaim_runs"), ("runclaim_subjects", "pk_runclaim_subjects")},
    ),
    "rescue": (lambda conn: rescue(conn, limit=10), {(RUN, "ix_runclaim_runs_deadline_at")}),
    "rescue_worker": (
        lambda conn: rescue_worker(conn, WORKER, limit=10),
        {(RUN, "ix_runclaim_runs_deadline_at")},
    ),
    "put back": (
        lambda conn: put_back(conn, [(run_id, 0) for run_id in queued_runs(conn, 3)], task="review.plan", delay=DAY),
        {(RUN, "pk_runclaim_runs")},
    ),
    "beats passed over": (lambda conn: passed_over(conn, claimed_runs(conn, 3)), {(RUN, "pk_runclaim_runs")}),
    "claims passed over": (
        lambda conn: claims.passed_over(conn, [wanted(conn, run_id) for run_id in queued_runs(conn, 3)]),
        {(RUN, "pk_runclaim_runs")},
    ),
    "dispatch": (lambda conn: due(conn, limit=10), {(RUN, "ix_runclaim_runs_dispatch_due_at")}),
    "purge": (
        lambda conn: purge(
            conn, dict.fromkeys(TERMINAL, 90 * DAY), flows={"review": dict.fromkeys(TERMINAL, DAY)}, limit=10
        ),
        {(RUN, "ix_runclaim_runs_finished_at")},
    ),
    "end subjects": (
        end_one_subject,
        {
            (RUN, "ix_runclaim_runs_subject"),
            (RUN, "ix_runclaim_runs_ended_of_subject"),
            ("runclaim_subjects", "pk_runclaim_subjects"),
        },
    ),
    "purge_keys": (
        lambda conn: purge_keys(conn, limit=10),
        {("runclaim_run_keys", "ix_runclaim_run_keys_expires_at")},
    ),
    "forget": (
        lambda conn: forget(conn, limit=10),
        {("runclaim_dedup_keys", "ix_runclaim_dedup_keys_expires_at")},
    ),
    "journal": (
        lambda conn: read.journal(conn, queued_run(conn)),
        {("runclaim_events", "ix_runclaim_events_run_id")},
    ),
    "who canceled": (
        lambda conn: who_canceled(conn, queued_runs(conn, 3)),
        {("runclaim_events", "ix_runclaim_events_run_id")},
    ),
    "claim_actions": (send_one, {(ACTION, "ix_runclaim_actions_available_at")}),
    "claimed_actions": (
        lambda conn: claimed_actions(conn, owner="nobody"),
        {(ACTION, "ix_runclaim_actions_available_at")},
    ),
    "settle_actions": (settle_one, {(ACTION, "pk_runclaim_actions"), (RUN, "pk_runclaim_runs")}),
    "actions_of": (lambda conn: actions_of(conn, plan_one(conn)), {(RUN, "pk_runclaim_runs")}),
    "list actions": (
        lambda conn: list_actions(conn, project="default"),
        {(ACTION, "pk_runclaim_actions"), (RUN, "pk_runclaim_runs")},
    ),
    "list the actions of a state from a page on": (
        lambda conn: list_actions(conn, project="default", state=ActionState.UNKNOWN, after=OLD, limit=101),
        {(RUN, "pk_runclaim_runs")},
    ),
    "list the actions of a run": (
        lambda conn: list_actions(conn, project="default", run_id=plan_one(conn)),
        {(RUN, "pk_runclaim_runs")},
    ),
    "drop_actions": (supersede_one, {(RUN, "ix_runclaim_runs_subject")}),
    "findings_of": (
        lambda conn: findings_of(conn, plan_one(conn)),
        {("runclaim_findings", "ix_runclaim_findings_run_id")},
    ),
    "sessions_of": (lambda conn: sessions_of(conn, queued_run(conn)), set()),
    "cascade of a session": (
        lambda conn: conn.execute(delete(findings).where(findings.c.session_id == OLD)),
        {("runclaim_findings", "ix_runclaim_findings_session_id")},
    ),
    "cascade of a finding": (
        lambda conn: conn.execute(update(actions).where(actions.c.finding_id == OLD).values(finding_id=None)),
        {(ACTION, "ix_runclaim_actions_finding_id")},
    ),
    "find a run": (
        lambda conn: queued_run(conn, "again") and find_runs(conn, "default/review", [run_key(["again"]).hash]),
        {("runclaim_run_keys", "pk_runclaim_run_keys"), (RUN, "pk_runclaim_runs")},
    ),
    "signal": (
        lambda conn: send(conn, waiting_run(conn)),
        {(RUN, "pk_runclaim_runs"), ("runclaim_signals", "pk_runclaim_signals")},
    ),
    "signal again": (
        lambda conn: [send(conn, run_id, signal_id=each) for run_id in [queued_run(conn)] for each in "122"],
        {(RUN, "pk_runclaim_runs"), ("runclaim_signals", "pk_runclaim_signals")},
    ),
    "read a signal": (
        lambda conn: read.signal(conn, queued_run(conn), "approved"),
        {("runclaim_signals", "pk_runclaim_signals")},
    ),
    "list": (
        lambda conn: list_runs(conn, RunFilter(project="default")),
        {(RUN, "ix_runclaim_runs_ended"), (RUN, "ix_runclaim_runs_live")},
    ),
    "list a state from a page on": (
        lambda conn: list_runs(conn, FAILED, after=PLACE, limit=100),
        {(RUN, "ix_runclaim_runs_ended")},
    ),
    "list a flow by time": (
        lambda conn: list_runs(conn, RunFilter(project="default", flow="review", since=SINCE, until=SINCE + DAY)),
        {(RUN, "ix_runclaim_runs_ended_of_flow"), (RUN, "ix_runclaim_runs_live")},
    ),
    "list the runs of no such flow": (
        lambda conn: list_runs(conn, RunFilter(project="default", flow="none", oldest_first=True)),
        {(RUN, "ix_runclaim_runs_ended_of_flow"), (RUN, "ix_runclaim_runs_live")},
    ),
    # By an index of live runs: which one, the database decides by how many there are.
    "ready": (
        lambda conn: ready(conn, project="default", flow="review", phases=["plan"]),
        set(),
    ),
    "count_live": (
        lambda conn: count_live(conn, "default", at_most=1000),
        {(RUN, "ix_runclaim_runs_live")},
    ),
    "count_answers": (
        lambda conn: count_answers(conn, "project-7", at_most=1000),
        {("runclaim_answers", "ix_runclaim_answers_project")},
    ),
    "journal_after": (
        lambda conn: journal_after(conn, queued_run(conn), after=7),
        {("runclaim_events", "ix_runclaim_events_run_id")},
    ),
    "recorded_by": (
        lambda conn: recorded_by(conn, queued_run(conn), fence=1, owner="nobody"),
        {("runclaim_phase_results", "pk_runclaim_phase_results")},
    ),
    "find a token": (
        lambda conn: tokens.find(conn, f"rc_{'0' * 12}_{'0' * 64}"),
        {("runclaim_tokens", "pk_runclaim_tokens")},
    ),
    "find an answer": (
        lambda conn: answers.find(conn, "hash-7"),
        {("runclaim_answers", "pk_runclaim_answers")},
    ),
    "forget_answers": (
        lambda conn: forget_answers(conn, limit=10),
        {("runclaim_answers", "ix_runclaim_answers_expires_at")},
    ),
    "gauges": (
        gauges,
        {
            (RUN, "ix_runclaim_runs_dispatch_due_at"),
            (RUN, "ix_runclaim_runs_deadline_at"),
            (RUN, "ix_runclaim_runs_stalled"),
            ("runclaim_actions", "ix_runclaim_actions_available_at"),
            ("runclaim_actions", "ix_runclaim_actions_unknown"),
            ("runclaim_events", "pk_runclaim_events"),
            ("runclaim_untold", "ix_runclaim_untold_available_at"),
        },
    ),
    "tail": (
        lambda conn: after(conn, tail.newest(conn) - 10, tail.newest(conn), limit=500),
        {("runclaim_events", "pk_runclaim_events"), (RUN, "pk_runclaim_runs")},
    ),
    "due_untold": (
        lambda conn: (is_due(conn, "mailer"), due_untold(conn, "mailer", limit=10)),
        {("runclaim_untold", "ix_runclaim_untold_available_at"), ("runclaim_untold", "ix_runclaim_untold_run_id")},
    ),
    # By its run or among what waits for its listener: both are few.
    "held_up": (lambda conn: held_up(conn, "mailer", queued_runs(conn, 3)), set()),
    "run": (lambda conn: read.run(conn, queued_run(conn)), {(RUN, "pk_runclaim_runs")}),
    "inputs": (lambda conn: read.inputs(conn, queued_runs(conn, 3)), {(RUN, "pk_runclaim_runs")}),
    "results": (
        lambda conn: read.results(conn, queued_run(conn)),
        {("runclaim_phase_results", "pk_runclaim_phase_results")},
    ),
}

#: These read as much as they delete; when that is much of a table, PostgreSQL rightly reads all of it.
IN_BATCHES = {"purge", "purge_keys", "forget", "forget_answers"}
#: One row for each who listens, and one for each total of a flow.
SMALL = {"runclaim_listeners", "runclaim_counters"}


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_reads_by_index_however_long_the_history_is(conn, name):
    """
    INVARIANT: no hot query depends on how much history there is.

    Breaks if an index is dropped, or a statement is written so that a prepared plan cannot use a partial one.
    """
    verb, expected = VERBS[name]
    sent = statements_of(conn, verb, plain=name == "gauges")
    found = [pair for statement, parameters in sent for pair in scans(conn, statement, parameters)]
    used = {(table, re.sub(r"sqlite_autoindex_(\w+)_1", r"pk_\1", index or "")) for _, (table, index) in found}

    assert expected <= used
    if name not in IN_BATCHES:
        assert [] == [pair for pair in found if pair[1][1] is None and pair[1][0] not in SMALL]


#: These are given the runs that they read.
BY_ID = (
    "claim",
    "claimed",
    "claims passed over",
    "heartbeat",
    "beats passed over",
    "complete",
    "completed",
    "fail",
    "release",
    "put back",
)


@pytest.mark.parametrize("name", BY_ID)
def test_a_run_that_is_named_is_found_by_its_id_however_few_are_in_its_state(conn, name):
    """
    INVARIANT: a claim reads its own run, and not the queue.

    Breaks if the state of a run that is found by its id is said as the partial indexes have it.
    """
    verb, _ = VERBS[name]
    sent = statements_of(conn, verb)
    found = [pair for statement, parameters in sent for _, pair in scans(conn, statement, parameters)]

    assert {(RUN, primary_key(conn))} == {(table, index) for table, index in found if table == RUN}


def primary_key(conn):
    return "pk_runclaim_runs" if conn.dialect.name == "postgresql" else "sqlite_autoindex_runclaim_runs_1"


@pytest.mark.parametrize("name", ["list", "list a flow by time", "list the runs of no such flow"])
def test_a_page_is_read_in_its_order_and_nothing_is_sorted_for_it(longer, name):
    """
    INVARIANT: a page costs a page, however long the queue and the history.

    Breaks if PostgreSQL takes the live runs of a state for so few that it reads all of them; or expects so many of an
    ended state, for a limit that it does not know, that it plans each page anew.
    """
    verb, _ = VERBS[name]
    for statement, parameters in statements_of(longer, verb):
        plan = generic(longer, statement, parameters)

        assert set() == kinds(plan[0]["Plan"]) & {"Sort", "Incremental Sort", "Bitmap Heap Scan", "Seq Scan"}
        assert is_kept(longer, statement, parameters)


def test_a_batch_of_a_purge_reads_what_it_deletes_and_not_all_that_is_due(longer):
    """
    INVARIANT: a batch takes as long as what it deletes, however long a purge was put off.

    Breaks if the retentions are joined with the runs: then each batch sorts all that is due.
    """
    verb, _ = VERBS["purge"]
    (statement, parameters), *_of_subjects = statements_of(longer, verb)

    assert set() == kinds(generic(longer, statement, parameters)[0]["Plan"]) & {"Sort", "Hash Join", "Seq Scan"}


def kinds(node):
    return {node["Node Type"]}.union(*(kinds(child) for child in node.get("Plans", [])))


def is_kept(conn, statement, parameters):
    """Whether the server, asked again and again, comes to keep the plan that does for all parameters."""
    conn.exec_driver_sql("SET LOCAL plan_cache_mode = auto")
    conn.connection.dbapi_connection.execute(f"PREPARE kept AS {statement}".encode())
    values = ", ".join(literal(value) for value in parameters)
    for _ in range(7):
        conn.exec_driver_sql(f"EXECUTE kept({values})")
    many = conn.exec_driver_sql("SELECT generic_plans FROM pg_prepared_statements WHERE name = 'kept'").scalar_one()
    conn.exec_driver_sql("DEALLOCATE kept")
    return many > 0


def test_a_purge_finds_the_children_of_a_run_by_index(conn):
    """The database looks for them itself, once for every run it deletes."""
    hanging = ("events", "phase_results", "actions", "acts", "findings", "sessions", "signals")
    for table in (f"runclaim_{name}" for name in hanging):
        name = "$1::UUID" if conn.dialect.name == "postgresql" else "?"
        found = scans(conn, f"DELETE FROM {table} WHERE run_id = {name}", (OLD,))

        assert [] == [index for _, (found_in, index) in found if found_in == table and index is None]


#: Of the wide schema, for verbs that are still to come; each leaves this list with the first that it serves.
TO_COME = {
    "ix_runclaim_bulk_open",
    "ix_runclaim_runs_error_signature",
    "ix_runclaim_runs_parent",
    "ix_runclaim_runs_parked",
    "ix_runclaim_runs_timer_at",
    "ix_runclaim_schedules_next_at",
    "uq_runclaim_runs_second_slot",
    "uq_runclaim_runs_slot",
}


def test_every_index_is_named_by_a_case_here():
    indexes = {index.name for table in metadata.tables.values() for index in table.indexes}
    named = {index for _, expected in VERBS.values() for _, index in expected if index.startswith(("ix_", "uq_"))}

    assert set() == named & TO_COME
    assert indexes == named | TO_COME
