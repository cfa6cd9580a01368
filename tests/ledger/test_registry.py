"""registry: what the ledger knows of an application's flows."""

from __future__ import annotations

from dataclasses import replace

from runclaim.ledger.doors.registered_flows import (
    FlowRecord,
    PhaseRecord,
    all_registered,
    register,
    registered,
    unregistered,
)
from runclaim.models import flows

PLAN = PhaseRecord(
    name="plan",
    queue=None,
    on=None,
    max_attempts=5,
    max_losses=5,
    lease=60.0,
    max_duration=3600.0,
    backoff={"first": 2.0, "factor": 2.0, "ceiling": 600.0, "jitter": True},
)
REVIEW = FlowRecord(
    name="review",
    phases=(PLAN,),
    input={"type": "object"},
    key="{repo}",
    subject=None,
    has_subject=False,
    keep_keys=7776000.0,
    dispatch_after=30.0,
    hooks={"on_failed": ["review.on_failed.tell"]},
)


def test_a_registered_flow_comes_back_as_it_was_told(conn, clock):
    register(conn, [REVIEW])

    assert REVIEW == registered(conn, "review")
    assert clock.now == registered(conn, "review").registered_at
    assert [REVIEW] == all_registered(conn)
    assert registered(conn, "deploy") is None


def test_a_flow_that_is_known_in_this_form_is_written_once(conn):
    """
    INVARIANT: a worker that starts with the flows of the one before writes nothing.

    Breaks if the fingerprint holds a time, or depends on the order of keys.
    """
    assert ["review"] == register(conn, [REVIEW])
    assert [] == unregistered(conn, [REVIEW])
    assert [] == register(conn, [REVIEW])


def test_the_last_one_told_is_right_and_touches_no_other_flow(conn):
    newer = replace(REVIEW, phases=(PLAN, replace(PLAN, name="deliver", queue="slow", on="approved")))
    register(conn, [replace(REVIEW, name="deploy"), REVIEW])

    assert [newer] == unregistered(conn, [newer, replace(REVIEW, name="deploy")])
    assert ["review"] == register(conn, [newer])
    assert newer == registered(conn, "review")
    assert [] == register(conn, [])


def test_what_a_later_release_adds_does_not_hide_the_flow_from_this_one(conn):
    register(conn, [REVIEW])
    told = REVIEW.declared() | {"colour": "red", "phases": [declared() | {"colour": "red"}]}
    conn.execute(flows.update().values(declared=told))

    assert REVIEW == registered(conn, "review")


def declared():
    return REVIEW.declared()["phases"][0]
