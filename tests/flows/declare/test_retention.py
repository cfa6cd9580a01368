"""Retention: each flow's own, and the longest for flows that this application does not know."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from runclaim.errors import DeclarationError
from tests.harness.bench import PullRequest

if TYPE_CHECKING:
    from runclaim import Context, Runclaim

DAY = timedelta(days=1)


def ended(runs: Runclaim, name: str, days_ago: int, **keep: timedelta) -> str:
    """A canceled run of a new flow, so many days after its end."""
    flow = runs.flow(name, PullRequest, key="{repo}", **keep)

    @flow.phase
    def plan(ctx: Context[PullRequest]) -> None:
        """Never runs."""

    run = flow.enqueue(PullRequest(name, 1))
    run.cancel()
    sql = "UPDATE runclaim_runs SET finished_at = {} WHERE key = '{}'"
    then = {
        "sqlite": f"finished_at - {days_ago * 86_400_000_000}",
        "postgresql": f"finished_at - interval '{days_ago} days'",
    }
    with runs.ledger.database.begin() as conn:
        conn.exec_driver_sql(sql.format(then[conn.dialect.name], name))
    return name


def left(runs: Runclaim) -> set[str]:
    runs.purge()
    with runs.ledger.database.read() as conn:
        return set(conn.exec_driver_sql("SELECT key FROM runclaim_runs").scalars())


def test_each_flow_keeps_its_runs_as_long_as_it_says_and_else_as_the_settings_say(make):
    runs = make()
    ended(runs, "short", 2, keep_canceled=DAY)
    ended(runs, "young", 2, keep_canceled=3 * DAY)
    ended(runs, "long", 60, keep_canceled=61 * DAY)
    ended(runs, "other-state", 31, keep_failed=365 * DAY)
    ended(runs, "plain", 29)

    assert {"young", "long", "plain"} == left(runs)


def test_runs_of_a_flow_that_nobody_here_declares_are_kept_for_the_longest_time_that_is_known(make):
    """
    INVARIANT: one application deletes nothing that another one on the same ledger keeps, as far as it can know.

    Breaks if the settings of this application are applied to flows that it does not declare.
    """
    runs = make(keep_canceled=DAY)
    ended(runs, "audit", 2, keep_failed=200 * DAY)
    strangers = make()
    ended(strangers, "strange", 199)
    ended(strangers, "too-old", 201)

    assert {"strange"} == left(runs)


@pytest.mark.parametrize("wrong", [timedelta(0), -DAY, 30, timedelta(days=4000)], ids=repr)
def test_a_retention_that_is_no_time_is_refused_by_name(make, wrong):
    with pytest.raises(DeclarationError, match="keep_superseded must be a timedelta"):
        make().flow("review", PullRequest, key="{repo}", keep_superseded=wrong)
