"""Receivers in real workers: told at once, and of everything, also when a process dies while it tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from tests.harness import Site, until

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = "tests.acceptance.hearing_app"


def heard(site: Site) -> list[str]:
    """The keys it was told of, in order."""
    file = site.folder / "heard"
    return [line.split()[1] for line in file.read_text().splitlines()] if file.exists() else []


def hold_lapses(site: Site) -> None:
    """Two minutes pass for whoever held a listener's turn."""
    with site.database.begin() as conn:
        conn.execute(text("UPDATE runclaim_listeners SET held_until = available_at WHERE owner IS NOT NULL"))


def all_of(site: Site, keys: list[str]) -> Callable[[], bool]:
    return lambda: set(keys) <= set(heard(site))


@pytest.mark.site(settings={"tell_every": "1h", "dispatch_every": "1h"})
def test_a_receiver_hears_of_an_end_without_waiting_for_beat(redis_site: Site):
    """The worker that ends a phase rings; no beat runs here."""
    site = redis_site
    site.worker(pool="threads", module=MODULE)
    site.ended(site.enqueue("one"))

    until(all_of(site, ["one"]), "the event", within=10, so_far=site.story)


@pytest.mark.parametrize("site", ["redis_site", "postgres_site"])
@pytest.mark.site(settings={"tell_every": "300ms"})
def test_a_process_killed_while_it_tells_loses_no_event(request: pytest.FixtureRequest, site: str):
    """
    INVARIANT: every event is told at least once, whoever dies.

    Breaks if the place in the journal is written before the receiver has returned, or is kept in a process's memory.
    """
    site: Site = request.getfixturevalue(site)
    worker = site.worker(pool="prefork", module=MODULE)
    site.beat()
    (site.folder / "dies").write_text("run3")
    keys = [f"run{number}" for number in range(6)]
    site.ended(*[site.enqueue(key) for key in keys], upkeep=True)
    until(lambda: not (site.folder / "dies").exists(), "the death of a child", so_far=site.story)
    worker.kill_all()
    hold_lapses(site)
    site.worker(pool="prefork", module=MODULE)
    site.ended(site.enqueue("late"), upkeep=True)

    until(all_of(site, [*keys, "late"]), "every event", within=60, so_far=site.story)
