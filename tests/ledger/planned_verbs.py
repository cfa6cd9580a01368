"""Verbs whose plans are looked at and that need something to be there first."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from runclaim.errors import KeyConflict, RunExists
from runclaim.keys import nonce, uuid7
from runclaim.ledger.actions.claim import claim_actions
from runclaim.ledger.actions.decide import retry_action
from runclaim.ledger.actions.plan import NewAction
from runclaim.ledger.actions.settle import ActionState, Sent, settle_actions, settled_actions
from runclaim.ledger.complete import complete
from runclaim.ledger.enqueue import enqueue
from runclaim.ledger.history.unused_subjects import Subject, end_subjects
from runclaim.ledger.recover import recover
from tests.ledger.factories import LEASE, completion, new_run, queued_run, take_all, wanted
from tests.ledger.history import plan_one


def supersede(conn):
    enqueue(conn, [new_run(subject="subject-7"), new_run(subject="subject-8")])


def end_one_subject(conn):
    conn.exec_driver_sql(
        "INSERT INTO runclaim_subjects (project, flow, subject, generation) VALUES ('default', 'review', 'unused', 1)"
    )
    end_subjects(conn, [Subject("default", "review", "unused")])


def free_again(conn):
    queued_run(conn, "free", keep_key=timedelta(0))
    conn.exec_driver_sql("DELETE FROM runclaim_runs WHERE key = 'free'")
    enqueue(conn, [new_run("free")])


def refused(conn):
    queued_run(conn, "again")
    with suppress(KeyConflict):
        enqueue(conn, [new_run("other"), new_run("again", input={})])


def recovered_twice(conn):
    recover(conn, new_run("lost"), nonce="a")
    with suppress(RunExists):
        recover(conn, new_run("lost"), nonce="b")


def send_one(conn):
    plan_one(conn)
    return claim_actions(conn, {"comment": LEASE}, owner=nonce(), limit=1)


def settle_one(conn):
    sent = [Sent(claim, ActionState.UNKNOWN, timedelta(0)) for claim in send_one(conn)]
    settle_actions(conn, sent)
    settled_actions(conn, sent)
    retry_action(conn, sent[0].claim.action_id)


def supersede_one(conn):
    queued_run(conn, subject="subject-9")
    (taken,) = take_all(conn, [wanted(conn, queued_run(conn, subject="subject-9"))])
    complete(conn, [completion(taken, actions=(NewAction(uuid7(), taken.run_id, "plan", "0", "comment", "{}"),))])
    enqueue(conn, [new_run(subject="subject-9")])
