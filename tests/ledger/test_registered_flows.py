"""registered_flows: what the ledger knows of an application's flows, release by release."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from runclaim.ledger.doors.registered_flows import (
    Registration,
    all_registered,
    register,
    registered,
    releases_of,
    unseen,
)
from runclaim.models import flows
from tests.ledger.sql import count

REVIEW = {"name": "review", "phases": [{"name": "plan", "lease": 60.0}], "key": "{repo}"}
NEWER = REVIEW | {"key": "{repo}:{number}"}
OLD, NEW = Registration("review", "1.0", REVIEW), Registration("review", "1.1", NEWER)
ALIVE = timedelta(minutes=5)
HERE = "default"


def test_a_registered_flow_comes_back_as_it_was_told(conn, clock):
    register(conn, HERE, [OLD])
    (release,) = releases_of(conn, HERE)

    assert REVIEW == registered(conn, "review", HERE)
    assert {"review": REVIEW} == all_registered(conn, HERE)
    assert ("1.0", clock.now, clock.now, True) == (
        release.release,
        release.first_seen_at,
        release.last_seen_at,
        release.is_alive,
    )
    assert registered(conn, "deploy", HERE) is None


def test_a_flow_that_was_told_of_just_now_is_written_once(conn, clock):
    """
    INVARIANT: a worker that starts with the flows of the one before writes nothing.

    Breaks if the fingerprint holds a time, or depends on the order of keys.
    """
    reordered = Registration("review", "1.0", dict(reversed(REVIEW.items())))

    assert ["review"] == register(conn, HERE, [OLD])
    assert [] == unseen(conn, HERE, [reordered])
    assert [] == register(conn, HERE, [reordered])
    assert [] == register(conn, HERE, [])
    clock.advance(timedelta(minutes=2))
    assert [reordered] == unseen(conn, HERE, [reordered])


def test_while_two_releases_are_alive_doors_go_by_the_one_that_came_last(conn, clock):
    """
    INVARIANT: a canary makes no door change its mind.

    Breaks if the worker that was there last decides: one of the older release that starts again would bring it back.
    """
    register(conn, HERE, [OLD])
    clock.advance(timedelta(minutes=1))
    register(conn, HERE, [NEW])
    seen = []
    for _ in range(3):
        clock.advance(timedelta(minutes=1))
        for each in (NEW, OLD):
            register(conn, HERE, [each])
            seen.append(registered(conn, "review", HERE))

    assert [NEWER] * 6 == seen
    assert {"review": NEWER} == all_registered(conn, HERE)
    assert NEWER == conn.execute(select(flows.c.declared)).scalar_one()


def test_after_a_roll_back_doors_go_by_the_release_that_is_alive(conn, clock):
    register(conn, HERE, [OLD])
    clock.advance(timedelta(minutes=1))
    register(conn, HERE, [NEW])
    clock.advance(ALIVE + timedelta(seconds=1))
    register(conn, HERE, [OLD])

    assert REVIEW == registered(conn, "review", HERE)
    assert [("1.0", True), ("1.1", False)] == [(each.release, each.is_alive) for each in releases_of(conn, HERE)]


def test_while_none_is_alive_doors_go_by_the_one_that_was_there_last(conn, clock):
    register(conn, HERE, [NEW])
    clock.advance(timedelta(minutes=1))
    register(conn, HERE, [OLD])
    clock.advance(timedelta(days=7))

    assert REVIEW == registered(conn, "review", HERE)


def test_a_release_that_keeps_its_name_and_changes_a_flow_changes_it_here(conn):
    register(conn, HERE, [OLD])

    assert ["review"] == register(conn, HERE, [Registration("review", "1.0", NEWER)])
    assert NEWER == registered(conn, "review", HERE)
    assert 1 == count(conn, "releases")


def test_projects_that_have_a_flow_of_one_name_keep_theirs(conn, clock):
    register(conn, "acme", [OLD])
    clock.advance(timedelta(minutes=1))
    register(conn, "globex", [NEW])

    assert [REVIEW, NEWER] == [registered(conn, "review", project) for project in ("acme", "globex")]
    assert registered(conn, "review", "a project that has none of its own") in (REVIEW, NEWER)
    assert {"review": REVIEW} == all_registered(conn, "acme")


def test_what_an_older_release_of_runclaim_has_registered_is_known(conn, clock):
    conn.execute(flows.insert().values(name="review", declared=REVIEW, fingerprint="f", registered_at=clock.now))

    assert REVIEW == registered(conn, "review", HERE)
    assert {"review": REVIEW} == all_registered(conn, HERE)
    register(conn, HERE, [NEW])
    assert NEWER == registered(conn, "review", HERE)


def test_a_release_that_nobody_has_seen_for_long_is_forgotten(conn, clock):
    register(conn, HERE, [OLD])
    clock.advance(timedelta(days=91))
    register(conn, HERE, [NEW])

    assert ["1.1"] == [each.release for each in releases_of(conn, HERE)]
