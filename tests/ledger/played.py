"""
Every interleaving of two or three verbs, held against what no caller may see: a deadlock, or a conflict.

At READ COMMITTED the row decides; at the other levels the database asks for some to be repeated, which is
`Database.run`'s work.
"""

from __future__ import annotations

from functools import partial

from sqlalchemy import text

from runclaim.ledger import read
from runclaim.states import LIVE
from tests.ledger.concurrency import DEADLOCK
from tests.ledger.interleaving import interleavings


def make(db, factory, *arguments, **what):
    return db.run(lambda conn: factory(conn, *arguments, **what))


def script(db, verb, *arguments, **what):
    return partial(make, db, verb, *arguments, **what)


def state_of(db, run_id):
    with db.read() as conn:
        return read.states(conn, [run_id]).get(run_id)


def live(db, subject):
    with db.read() as conn:
        found = conn.execute(
            text("SELECT id, generation, state FROM runclaim_runs WHERE subject = :subject"), {"subject": subject}
        ).all()
    assert max(found, key=lambda run: run.generation).state in LIVE
    return [run.id for run in found if run.state in LIVE]


def played(db, scripts, *, at_most=40):
    """
    The interleavings, each of which ended without a deadlock and without showing a caller a conflict.

    Most of them at READ COMMITTED, where the verbs' own guards decide.
    """
    waited = 0
    at_most = at_most if "read\\ committed" in db.url.query["options"] else at_most * 3 // 5
    for each in interleavings(db, scripts, at_most=at_most):
        assert not [answer for answer in each.answers if isinstance(answer, Exception)], each
        assert DEADLOCK not in each.sqlstates, each
        waited += each.somebody_waited
        yield each
    assert waited, "no interleaving made anybody wait: nothing was tested"


def fresh_keys():
    number = 0
    while True:
        number += 1
        yield f"key-{number}"
