"""A ledger with a long history: what is in it, as both databases make it."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import text

from runclaim import migrations
from runclaim.database import Database
from runclaim.keys import uuid7
from runclaim.ledger.actions.plan import NewAction
from runclaim.ledger.body.findings import NewFinding
from runclaim.ledger.complete import complete
from tests.ledger.factories import (
    claimed_runs,
    completion,
    queued_runs,
)

HISTORY = 20_000
OLD = "00000000-0000-0000-0000-000000000004"
DAY = timedelta(days=1)
SERIES = {
    "postgresql": "generate_series(1, {many}) AS series(n)",
    "sqlite": "(WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {many})"
    " SELECT n FROM series) AS series",
}
ID = {
    "postgresql": "CAST(lpad(to_hex(n), 32, '0') AS uuid)",
    "sqlite": "printf('00000000-0000-0000-0000-%012x', n)",
}
LONG_AGO = {
    "postgresql": "clock_timestamp() - n * interval '1 second'",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER) - n * 1000000",
}
ZEROS = "rerun, priority, losses, dispatches, pending_actions"
TIMES = "available_at, dispatch_due_at, enqueued_at, started_at, finished_at"
RUNS = f"""
    INSERT INTO runclaim_runs (id, project, flow, key, subject, generation, phases, input, cursor, phase, state,
        fence, attempts, max_attempts, max_losses, {ZEROS}, {TIMES})
    SELECT {{id}}, 'default', 'review', 'old-' || n, 'subject-' || n % 500, n / 500, '["plan"]', '{{{{}}}}', 1, 'plan',
        CASE n % 4 WHEN 0 THEN 'failed' WHEN 1 THEN 'superseded' ELSE 'succeeded' END,
        2, 1, 3, 3, 0, 0, 0, 0, 0, {{at}}, {{at}}, {{at}}, {{at}}, {{at}}
    FROM {{series}}"""
KEYS = """
    INSERT INTO runclaim_run_keys (namespace, key_hash, run_id, fingerprint, expires_at)
    SELECT 'default/review', 'hash-' || n, {id}, 'print', {at} FROM {series}"""
RESULTS = """
    INSERT INTO runclaim_phase_results
        (run_id, phase, position, result, fence, owner, worker, attempts, started_at, finished_at)
    SELECT {id}, 'plan', 0, '1', 1, 'owner', 'node:1', 1, {at}, {at} FROM {series}"""
EVENTS = """
    INSERT INTO runclaim_events (run_id, type, fence, at) SELECT {id}, 'run.succeeded', 2, {at} FROM {series}"""
WINDOWS = """
    INSERT INTO runclaim_dedup_keys (namespace, key_hash, run_id, expires_at)
    SELECT 'default/hook/payload', 'hash-' || n, {id}, {at} FROM {series}"""
ANSWERS = """
    INSERT INTO runclaim_answers (key_hash, fingerprint, run_id, status, headers, project, expires_at)
    SELECT 'hash-' || n, 'print', {id}, 201, '{{}}', 'project-' || n % 50, {at} FROM {series}"""
TOKENS = """
    INSERT INTO runclaim_tokens (id, name, secret_hash, scopes, projects, created_at)
    SELECT 'token-' || n, 'old', 'hash', '[]', '[]', {at} FROM {series}"""
UNTOLD = """
    INSERT INTO runclaim_untold (listener, event_id, run_id, state, attempts, available_at)
    SELECT CASE n % 2 WHEN 0 THEN 'mailer' ELSE 'billing' END, n, {id},
        CASE WHEN n > 19000 THEN 'waiting' ELSE 'given_up' END, 1, {at}
    FROM {series}"""
SUBJECTS = """
    INSERT INTO runclaim_subjects (project, flow, subject, generation)
    SELECT 'default', 'review', 'subject-' || n, 40 FROM {series}"""
SESSIONS = """
    INSERT INTO runclaim_sessions (id, run_id, phase, role, status, blocking_count, started_at, completed_at)
    SELECT {id}, {id}, 'plan', 'security', 'completed', 0, {at}, {at} FROM {series}"""
FINDINGS = """
    INSERT INTO runclaim_findings (id, run_id, phase, session_id, severity, title, found_at)
    SELECT {id}, {id}, 'plan', {id}, 'major', 'title', {at} FROM {series}"""
ACTIONS = """
    INSERT INTO runclaim_actions (id, run_id, phase, name, kind, payload, finding_id, idempotency_key, state, attempts,
        uncertain, superseded, fence, available_at, planned_at, ended_at)
    SELECT {id}, {id}, 'plan', '0', 'comment', '1', {id}, 'key-' || n, 'posted', 1, false, false, 2, {at}, {at}, {at}
    FROM {series}"""
ACTS = """
    INSERT INTO runclaim_acts (run_id, phase, name, state, attempted_at, answered_at)
    SELECT {id}, 'plan', 'check', 'posted', {at}, {at} FROM {series}"""
SIGNALS = """
    INSERT INTO runclaim_signals (run_id, name, signal_id, payload, received_at)
    SELECT {id}, 'approved', '1', '1', {at} FROM {series}"""
HISTORIES = (
    RUNS, KEYS, RESULTS, EVENTS, WINDOWS, SESSIONS, FINDINGS, ACTIONS, ACTS, SIGNALS, ANSWERS, TOKENS, UNTOLD
)  # fmt: skip


def load_history(conn):
    dialect = conn.dialect.name
    tables = [(each, HISTORY) for each in HISTORIES]
    for statement, many in [*tables, (SUBJECTS, 500)]:
        series = SERIES[dialect].format(many=many)
        conn.execute(text(statement.format(id=ID[dialect], at=LONG_AGO[dialect], series=series).replace(":", "\\:")))


@contextmanager
def ledger_with_history(url):
    database = Database(url, patience=timedelta(seconds=5))
    migrations.upgrade(database)
    with database.begin() as conn:
        load_history(conn)
        claimed_runs(conn, 20)
        queued_runs(conn, 20, dispatch_after=timedelta(0))
        plan_one(conn)
    if database.url.get_backend_name() == "postgresql":
        with database.begin() as conn:
            conn.exec_driver_sql("ANALYZE")
    yield database
    database.close()


def plan_one(conn):
    """An action that is due, of a run of its own."""
    (taken,) = claimed_runs(conn, 1)
    finding = NewFinding(uuid7(), taken.run_id, taken.phase, None, "major", "title", None, None, None)
    action = NewAction(uuid7(), taken.run_id, taken.phase, "0", "comment", "{}", finding.id)
    complete(conn, [completion(taken, findings=(finding,), actions=(action,))])
    return taken.run_id
