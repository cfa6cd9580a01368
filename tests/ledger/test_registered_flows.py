"""registered_flows: what the ledger knows of an application's flows, as JSON by their names."""

from __future__ import annotations

from sqlalchemy import select

from runclaim.ledger.doors.registered_flows import all_registered, register, registered, unregistered
from runclaim.models import flows

REVIEW = {"name": "review", "phases": [{"name": "plan", "lease": 60.0}], "key": "{repo}"}


def test_a_registered_flow_comes_back_as_it_was_told(conn, clock):
    register(conn, {"review": REVIEW})

    assert REVIEW == registered(conn, "review")
    assert {"review": REVIEW} == all_registered(conn)
    assert clock.now == conn.execute(select(flows.c.registered_at)).scalar_one()
    assert registered(conn, "deploy") is None


def test_a_flow_that_is_known_in_this_form_is_written_once(conn):
    """
    INVARIANT: a worker that starts with the flows of the one before writes nothing.

    Breaks if the fingerprint holds a time, or depends on the order of keys.
    """
    reordered = dict(reversed(REVIEW.items()))

    assert ["review"] == register(conn, {"review": REVIEW})
    assert {} == unregistered(conn, {"review": reordered})
    assert [] == register(conn, {"review": reordered})


def test_the_last_one_told_is_right_and_touches_no_other_flow(conn):
    deploy, newer = REVIEW | {"name": "deploy"}, REVIEW | {"key": "{repo}:{number}"}
    register(conn, {"review": REVIEW, "deploy": deploy})

    assert {"review": newer} == unregistered(conn, {"review": newer, "deploy": deploy})
    assert ["review"] == register(conn, {"review": newer})
    assert newer == registered(conn, "review")
    assert deploy == registered(conn, "deploy")
    assert [] == register(conn, {})
