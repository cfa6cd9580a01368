"""run_pages: the runs of a project, page by page."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from runclaim.keys import uuid7
from runclaim.ledger.cancel import cancel
from runclaim.ledger.doors.run_pages import RunFilter, list_runs, run_line
from runclaim.service.runs import run_json
from runclaim.states import RunState
from tests.ledger.factories import claimed_run, failed_run, finish, queued_run, queued_runs, succeeded_run


def ids(conn, **wanted):
    page = {name: wanted.pop(name) for name in ("after", "limit") if name in wanted}
    return [line.id for line in list_runs(conn, RunFilter(**{"project": "default"} | wanted), **page).runs]


def test_the_newest_run_comes_first(conn):
    made = queued_runs(conn, 5)

    assert made[::-1] == ids(conn)
    assert made == ids(conn, oldest_first=True)


@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_follow_each_other_without_a_gap_or_a_repeat_whatever_the_states(conn, oldest_first):
    """
    INVARIANT: going through the pages shows each run once.

    Breaks if a page is cut by its number, or the states' pages are not merged by id.
    """
    made = [*queued_runs(conn, 3), claimed_run(conn).run_id, succeeded_run(conn), *queued_runs(conn, 3)]
    cancel(conn, made[1:2])
    seen, after = [], None
    while True:
        page = list_runs(conn, RunFilter(project="default", oldest_first=oldest_first), after=after, limit=3)
        seen += [line.id for line in page.runs]
        if (after := page.next_after) is None:
            break
        queued_run(conn)

    expected = made if oldest_first else made[::-1]
    assert expected == seen[: len(made)]
    assert len(set(seen)) == len(seen)


def test_a_page_has_at_most_a_hundred_runs_and_at_least_one(conn):
    queued_runs(conn, 101)

    assert 100 == len(ids(conn, limit=10_000))
    assert 1 == len(ids(conn, limit=0))


def test_the_last_full_page_names_no_next_one(conn):
    queued_runs(conn, 4)

    assert list_runs(conn, RunFilter(project="default"), limit=4).next_after is None


def test_a_listing_keeps_to_its_project_flow_and_states(conn):
    ours, theirs = queued_run(conn), queued_run(conn, project="theirs")
    other, failed = queued_run(conn, flow="deploy"), failed_run(conn).run_id

    assert [failed, other, ours] == ids(conn)
    assert [theirs] == ids(conn, project="theirs")
    assert [other] == ids(conn, flow="deploy")
    assert [failed] == ids(conn, states=frozenset({RunState.FAILED}))
    assert [failed, ours] == ids(conn, flow="review", states=frozenset({RunState.FAILED, RunState.QUEUED}))
    assert [] == ids(conn, project="nobody's")


def test_a_listing_by_time_includes_its_start_and_not_its_end(conn, clock):
    runs, times = [], []
    for _ in range(3):
        runs.append(queued_run(conn))
        times.append(clock.now)
        clock.advance(timedelta(seconds=1))

    assert [runs[1]] == ids(conn, since=times[1], until=times[2])
    assert runs[:1] == ids(conn, until=times[1])
    assert [] == ids(conn, since=clock.now)
    assert runs[::-1] == ids(conn, since=datetime.fromisoformat("0001-01-01T00:00:00+00:00"))
    assert runs[::-1] == ids(conn, until=datetime.fromisoformat("9999-12-31T23:59:59+00:00"))


@pytest.mark.parametrize("after", ["", "/", "2026-11-20", "pr-7/2026-11-20T00:00:00.000000Z"])
def test_what_is_no_place_in_a_listing_is_refused(conn, after):
    with pytest.raises(ValueError, match="time data"):
        list_runs(conn, RunFilter(project="default"), after=after)


def test_a_line_tells_the_run_and_no_traceback(conn):
    run_id = failed_run(conn).run_id
    shown = run_json(run_line(conn, run_id))

    assert ("failed", "plan", "default") == (shown["state"], shown["phase"], shown["project"])
    assert (0, 0) == (shown["rerun"], shown["priority"])
    assert [{"name": "plan", "status": "failed"}] == shown["phases"][:1]
    assert {"type", "message"} == set(shown["error"])
    assert shown["enqueued_at"].endswith("Z")
    assert len("2026-11-20T00:00:00.000000Z") == len(shown["finished_at"])


def test_a_run_that_goes_on_has_no_error(conn):
    claim = claimed_run(conn)
    finish(conn, claim)

    assert run_json(run_line(conn, claim.run_id))["error"] is None
    assert run_line(conn, uuid7()) is None
