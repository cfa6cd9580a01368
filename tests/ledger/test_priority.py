"""The priority of a run's messages, as it was asked for, through every verb: 0 is one, and none is none."""

from __future__ import annotations

from datetime import timedelta

import pytest

from runclaim.ledger import read
from runclaim.ledger.doors import run_pages as listing
from tests.ledger.factories import claimed_run, due, queued_run


@pytest.mark.parametrize("priority", [None, 0, 9])
def test_a_priority_is_read_as_it_was_given(conn, priority: int | None):
    """
    INVARIANT: whoever asks for priority 0 gets it, and whoever asks for none gets the application's default.

    Breaks if a verb takes what is false for what was not given.
    """
    run_id = queued_run(conn, priority=priority, dispatch_after=timedelta(0))
    (named,) = due(conn)

    assert (named.run_id, named.priority) == (run_id, priority)
    assert read.run(conn, run_id).priority == priority
    assert listing.run_line(conn, run_id).priority == priority
    assert claimed_run(conn, priority=priority).priority == priority
